"""The names of arguments, checked where Python itself would not say which one was meant."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def names_checked(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Let a function raise UsageError with the nearest name for an argument of a name that it does not have."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def call(*args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        if not named.keys() <= set(known):
            from unitscope_schemas.question import check_names  # with pydantic, which `import unitscope` leaves alone

            check_names(named, known)
        return function(*args, **named)

    return call
