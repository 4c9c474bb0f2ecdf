"""A bounded map that forgets what was not used lately."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """At most ``size`` values by key, in two generations.

    When the young one is full it becomes the old one, and what was old is forgotten: two values with
    each that is put in, as to free 30,000 at once would cost one query 5 ms. What is looked up becomes
    young. Each step takes constant time, which evicting the first key of a dict does not.
    """

    __slots__ = ("_forgotten", "_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}
        self._forgotten: dict[bytes, Value] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> Value | None:
        """Return the value for ``key``."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def peek(self, key: bytes) -> Value | None:
        """Return the value for ``key`` and change nothing."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: bytes, value: Value) -> None:
        """Keep ``value``."""
        if self._forgotten:
            self._forgotten.popitem()
            if self._forgotten:
                self._forgotten.popitem()
        if len(self._young) >= self._half and key not in self._young:
            self._forgotten = self._old
            self._old = self._young
            self._young = {}
        elif self._old:
            self._old.pop(key, None)
        self._young[key] = value

    def remove(self, key: bytes) -> None:
        """Forget ``key``."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def keys(self) -> list[bytes]:
        """Return every key."""
        return [*self._young, *self._old]

    def clear(self) -> None:
        """Forget all."""
        self._young.clear()
        self._old.clear()
        self._forgotten.clear()
