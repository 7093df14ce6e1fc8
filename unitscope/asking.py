"""How a method of an atlas takes the fields of a question as its arguments."""

import functools
import getpass
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar, cast

import pyarrow as pa

from unitscope_schemas.errors import UsageError
from unitscope_schemas.question import Question, check_names

Arguments = ParamSpec("Arguments")
Asked = TypeVar("Asked", bound=Question)
Subject = TypeVar("Subject")
Answer = TypeVar("Answer")


def asks_about(
    model: Callable[Arguments, Asked],
) -> Callable[[Callable[[Subject, str, Asked], Answer]], Callable[Concatenate[Subject, str, Arguments], Answer]]:
    """Turn a method that takes a subject and a question into one that takes the question's fields as arguments.

    Type checkers and editors see every field with its type; an unknown name raises UsageError with the nearest one.
    """

    def spell_out(
        method: Callable[[Subject, str, Asked], Answer],
    ) -> Callable[Concatenate[Subject, str, Arguments], Answer]:
        subject = list(inspect.signature(method).parameters)[1]

        @functools.wraps(method)
        def ask(self: Subject, about: str = "", /, *args: Arguments.args, **fields: Arguments.kwargs) -> Answer:
            about = about or cast(str, fields.pop(subject, ""))
            if not about:
                check_names(fields, [subject, *inspect.signature(model).parameters])
            if not (isinstance(about, str) and about):
                given = f"{about!r} is no text" if about else "none is given"
                raise UsageError(f"{method.__name__} asks about one {subject}; {given}")
            _by_name_alone(method.__name__, args)
            return method(self, about, model(*args, **fields))

        _spell_signature(ask, method, model)
        return ask

    return spell_out


def asks(
    model: Callable[Arguments, Asked],
) -> Callable[[Callable[[Subject, Asked], Answer]], Callable[Concatenate[Subject, Arguments], Answer]]:
    """Turn a method that takes a question into one that takes its fields as arguments, as `asks_about` does."""

    def spell_out(method: Callable[[Subject, Asked], Answer]) -> Callable[Concatenate[Subject, Arguments], Answer]:
        @functools.wraps(method)
        def ask(self: Subject, /, *args: Arguments.args, **fields: Arguments.kwargs) -> Answer:
            _by_name_alone(method.__name__, args)
            return method(self, model(*args, **fields))

        _spell_signature(ask, method, model)
        return ask

    return spell_out


def _by_name_alone(name: str, args: Sequence[object]) -> None:
    """Raise UsageError for an argument behind the subject that is not given by its name."""
    if args:
        raise UsageError(f"{name} takes its further arguments by name, for example k=20; {args[0]!r} has none")


def _spell_signature(ask: Callable[..., object], method: Callable[..., object], model: Callable[..., object]) -> None:
    """Give a method its question, and the signature that help and completion show: its subject and the fields."""
    parameters = list(inspect.signature(method).parameters.values())
    fields = inspect.signature(model).parameters.values()
    answer = inspect.signature(method).return_annotation
    ask.__signature__ = inspect.Signature([*parameters[:-1], *fields], return_annotation=answer)  # type: ignore[attr-defined]
    ask.question = model  # type: ignore[attr-defined]


def local_author() -> str:
    """Return the name of the person at this machine, empty where the system knows none."""
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


def check_size(size: int | None) -> None:
    """Raise UsageError for a size of a picture that no server would send."""
    if size is not None and not 16 <= size <= 2048:
        raise UsageError(f"size {size} is not between 16 and 2048 pixels")


def bins_table(edges: Sequence[float], counts: Sequence[int]) -> pa.Table:
    """Return one row per bin of a histogram: its lower and upper edge and its count."""
    return pa.table({"low": list(edges[:-1]), "high": list(edges[1:]), "count": list(counts)})
