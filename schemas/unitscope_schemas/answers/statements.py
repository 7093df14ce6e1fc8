"""What a corpus says of one picture: several files or rows may say it, and may disagree."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class Statement:
    """The labels and the metadata that one file, or one row of a list, gives to a picture."""

    path: str
    """Path of the picture, or of the list that says it."""
    labels: tuple[str, ...]
    metadata: dict[str, JsonValue]

    @classmethod
    def of(cls, path: str, labels: Iterable[str], metadata: str | None) -> "Statement":
        """Return the statement whose metadata are written as a JSON object."""
        return cls(path, tuple(labels), json.loads(metadata or "{}"))


def joined_labels(statements: Iterable[Statement]) -> list[str]:
    """Return the labels of all statements, each once, in their order."""
    return list(dict.fromkeys(label for statement in statements for label in statement.labels))


def labels_differ(statements: Iterable[Statement]) -> bool:
    """Return whether some statements give different labels; one without a label agrees with all others."""
    return len({frozenset(statement.labels) for statement in statements if statement.labels}) > 1


def disagreement(statements: Sequence[Statement]) -> str | None:
    """Return statements as a JSON list where their labels or metadata differ, None where they do not."""
    metadata = [statement.metadata for statement in statements if statement.metadata]
    if not labels_differ(statements) and all(said == metadata[0] for said in metadata):
        return None
    return json.dumps([vars(statement) for statement in statements], separators=(",", ":"))


def read_statements(text: str | None) -> list[Statement]:
    """Return the statements that `disagreement` wrote, none for None."""
    entries = json.loads(text) if text else []
    return [Statement(entry["path"], tuple(entry["labels"]), entry["metadata"]) for entry in entries]
