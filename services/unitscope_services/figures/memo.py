"""A memory of what was made last: each thing is made once, also where several ask for it at once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class _Slot(Generic[Value]):
    """The place of one value, empty until it is made."""

    def __init__(self) -> None:
        self.lock, self.values = threading.Lock(), list[Value]()


class Memo(Generic[Value]):
    """A memory of at most so many values by their keys; the least recently asked for is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: OrderedDict[Hashable, _Slot[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now unless it is remembered.

        Who asks meanwhile waits. What `make` raises is not remembered.
        """
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if not slot.values:
                slot.values.append(make())
            return slot.values[0]
