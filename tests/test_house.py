"""The house itself: its rooms, its names, its sentences, and what docs/architecture.md says of them."""

import ast
import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from unitscope_schemas import layout, tables

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [ROOT / package for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
ROOMS = sorted(
    path.parent for package in PACKAGES for path in package.rglob("__init__.py") if "__pycache__" not in path.parts
)
MOST_FILES = 15
"""Files that may stand side by side in a room before it needs rooms of its own."""
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}
LEANING = "Of|The same|At|As|In|Those|That|It|Also|And|By|With|From|To|Its|Their|None|Which"
"""First words of sentences that lean on something above them, and cannot be read alone in an editor."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def room_name(room: Path) -> str:
    """The room as imports write it, for example `unitscope_services.web.routes`."""
    package = next(package for package in PACKAGES if room.is_relative_to(package))
    return ".".join(room.relative_to(package.parent).parts)


def short_name(room: Path) -> str:
    """The room as docs/architecture.md writes it: a package by its name, a room within one by its path there."""
    package, _, within = room_name(room).partition(".")
    return within.replace(".", "/") or package


def files(room: Path) -> list[Path]:
    """The modules of a room, without those of its rooms."""
    return sorted(room.glob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def product_files() -> Iterator[Path]:
    for room in ROOMS:
        yield from files(room)


@pytest.mark.parametrize("room", ROOMS, ids=room_name)
def test_a_room_has_few_files_side_by_side(room: Path) -> None:
    assert len(files(room)) <= MOST_FILES


def test_every_file_of_the_product_lies_in_a_room() -> None:
    assert set(product_files()) == {path for package in PACKAGES for path in package.rglob("*.py")}


def test_every_room_stands_in_the_contract_that_says_which_room_may_know_which() -> None:
    contract = next(item for item in PYPROJECT["tool"]["importlinter"]["contracts"] if item["name"] == "rooms")
    listed = [name for layer in contract["layers"] for name in re.split(r" *[|:] *", layer)]
    divided = {package.name for package in PACKAGES if f"{package.name}." in " ".join(listed)}
    whole = {package.name for package in PACKAGES} - divided
    parts = {room_name(room) for room in ROOMS if room.parent.name in divided}
    assert sorted(listed) == sorted(whole | parts | {"unitscope_pipelines.cluster"})


def test_no_contract_has_exceptions() -> None:
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]:
        assert not {name for name in contract if name.startswith("ignore")}, contract["name"]


def test_only_cluster_imports_ray() -> None:
    importers = {file.parent.name for file in product_files() if "ray" in imported(tree(file))}
    assert importers == {"cluster"}


def imported(module: ast.Module) -> set[str]:
    """The top-level names of what a module imports, anywhere in it."""
    names = set[str]()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_class_is_defined_once() -> None:
    homes: dict[str, list[str]] = {}
    for file in product_files():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_nothing_is_named_by_a_word_that_says_nothing() -> None:
    names = Counter[str]()
    for file in product_files():
        names.update((file.stem.lower(), file.parent.name.lower()))
        names.update(
            word.lower()
            for node in ast.walk(tree(file))
            if isinstance(node, ast.ClassDef)
            for word in re.findall("[A-Z][a-z]*", node.name)
        )
    assert EMPTY_NAMES & set(names) == set()


@pytest.mark.parametrize("room", ROOMS, ids=room_name)
def test_what_a_room_says_of_itself_can_be_read_alone(room: Path) -> None:
    faults = [
        f"{file.relative_to(ROOT)}:{line}: {fault}" for file in files(room) for line, fault in sentence_faults(file)
    ]
    assert not faults, "\n" + "\n".join(faults)


def sentence_faults(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file at which a docstring is missing, leans on its neighbours, or ends in the middle."""
    for node, is_public in documented(tree(file)):
        line = getattr(node, "lineno", 1)
        name = getattr(node, "name", file.name)
        sentence = ast.get_docstring(node)
        if sentence is None:
            if is_public and not is_inherited(file, node):
                yield line, f"{name} has no docstring"
            continue
        if leans(sentence):
            yield line, f"{name}: {first_line(sentence)!r} leans on what stands above it"
        if not isinstance(node, ast.Module | ast.ClassDef) and not ends(sentence):
            yield line, f"{name}: {first_line(sentence)!r} ends without a full stop"
    for line, text in field_texts(tree(file)):
        if leans(text):
            yield line, f"{first_line(text)!r} leans on what stands above it"


@cache
def classes() -> dict[str, ast.ClassDef]:
    """The product's classes by name."""
    return {
        node.name: node for file in product_files() for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef)
    }


def is_inherited(file: Path, method: ast.AST) -> bool:
    """Whether a method carries out what a base of its class describes: an editor shows that text."""
    owner = next(
        (kind for kind in ast.walk(tree(file)) if isinstance(kind, ast.ClassDef) and method in kind.body), None
    )
    bases = [ast.unparse(base).rpartition(".")[2] for base in owner.bases] if owner else []
    while bases:
        kind = classes().get(bases.pop())
        if kind is not None:
            bases += [ast.unparse(base).rpartition(".")[2] for base in kind.bases]
            for other in kind.body:
                if getattr(other, "name", None) == getattr(method, "name", "") and ast.get_docstring(other):  # type: ignore[arg-type]
                    return True
    return False


def documented(module: ast.Module) -> Iterator[tuple[Documented, bool]]:
    """The module, its classes, functions and methods, and whether each is public; overloads are part of another."""

    def within(owner: ast.AST, is_public: bool) -> Iterator[tuple[Documented, bool]]:
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
                if not marks & {"overload", "setter"}:
                    yield node, is_public and not node.name.startswith("_")
            elif isinstance(node, ast.ClassDef):
                shown = is_public and not node.name.startswith("_")
                yield node, shown
                yield from within(node, shown)
            elif isinstance(node, ast.If | ast.Try):
                yield from within(node, is_public)

    yield module, True
    yield from within(module, True)


def field_texts(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The strings below constants and fields, each with its line."""
    for owner in ast.walk(module):
        if isinstance(owner, ast.Module | ast.ClassDef):
            for before, node in zip(owner.body, owner.body[1:], strict=False):
                if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr):
                    value = node.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield node.lineno, inspect.cleandoc(value.value)


def leans(text: str) -> bool:
    return re.match(rf"({LEANING})\b", text) is not None


def ends(text: str) -> bool:
    """Whether the first paragraph is a sentence, with a full stop or colon at its end."""
    return text.split("\n\n")[0].rstrip().endswith((".", ":"))


def first_line(text: str) -> str:
    return text.partition("\n")[0]


@pytest.fixture(scope="module")
def named() -> set[str]:
    """All that docs/architecture.md sets as code."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)))


def test_the_architecture_names_every_room(named: set[str]) -> None:
    assert {short_name(room) for room in ROOMS} - {name.rstrip("/") for name in named} == set()


def test_the_architecture_names_every_table(named: set[str]) -> None:
    schemas = {name for name, value in vars(tables).items() if isinstance(value, pa.Schema) and name.isupper()}
    schemas |= {name for name, value in public_functions(tables) if value.return_annotation is pa.Schema}
    assert len(schemas) > 8
    assert schemas - named == set()


def test_the_architecture_names_every_place_within_an_atlas(named: set[str]) -> None:
    assert len(places()) > 12
    assert places() - named == set()


def places() -> set[str]:
    """Every folder of an atlas with a slash behind it, and every file at its root with a star for what varies."""
    paths = {
        value
        for name, value in vars(layout).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    found = {path if "." in path else f"{path}/" for path in paths}
    for name, signature in public_functions(layout):
        if signature.return_annotation is not str:
            continue
        given = [0 if parameter.annotation is int else "*" for parameter in signature.parameters.values()]
        path = getattr(layout, name)(*given)
        found.add(path.partition("/")[0] + "/" if "/" in path else path)
    return found


def public_functions(module: object) -> Iterator[tuple[str, inspect.Signature]]:
    for name, value in vars(module).items():
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__:  # type: ignore[attr-defined]
            yield name, inspect.signature(value)
