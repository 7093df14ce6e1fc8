"""Factories: functions of a person's own files (`path.py:factory`), which give networks and coders of latents."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from unitscope_pipelines.vision.recording.owners_code import owners_code
from unitscope_schemas.errors import UsageError, listing

SCHEME = "file:"
"""Beginning of a spec that names a factory of a file."""


@dataclass(frozen=True)
class Factory:
    """A function without arguments that comes from a person's own file."""

    spec: str
    """File and name of the function, in a form that holds in every working directory."""
    make: Callable[[], object]
    digest: str
    """SHA-256 of the file."""


def load_factory(spec: str, trusted: bool) -> Factory:
    """Run the file of `file:path.py:factory` and return its function; the bytes that run are those of the digest.

    The file may import what is installed; only the file itself is digested. Raises UsageError unless trusted, and
    ModelError with file and line for whatever its code raises.
    """
    path_text, _, name = spec.removeprefix(SCHEME).rpartition(":")
    if not spec.startswith(SCHEME) or not path_text or not name.isidentifier():
        raise UsageError(f"{spec!r} is not file:PATH.py:FACTORY, for example file:nets/mine.py:build")
    if not trusted:
        raise UsageError(f"{spec!r} would run code of that file; give --trust-code if you trust it")
    path = Path(path_text).absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path_text!r} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(source).hexdigest()
    module = ModuleType(f"unitscope_file_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look classes up
    with owners_code(f"the code of {path_text!r}"):
        exec(compile(source, str(path), "exec"), module.__dict__)
    make = getattr(module, name, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path_text!r} has no function {name!r}; it has {listing(functions)}")

    def run() -> object:
        with owners_code(f"{name!r} of {path_text!r}"):
            return make()

    return Factory(f"{SCHEME}{path}:{name}", run, digest)
