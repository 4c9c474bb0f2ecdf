"""A bounded map that forgets what was not used lately."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """At most ``size`` values by key and ``max_bytes`` of memory, in two generations.

    When the young one is full it becomes the old one, and the values of the old one are freed: two with
    each that is put in, as to free 30,000 at once would cost one query 5 ms. So there are three parts of
    ``max_bytes``. A key that is looked up becomes young. Each step takes constant time, which evicting the
    first key of a dict does not. ``each`` is what a key and its value cost beside the bytes of the key.
    """

    __slots__ = ("_each", "_forgotten", "_half", "_old", "_third", "_young", "_young_bytes")

    def __init__(self, size: int, max_bytes: int, each: int) -> None:
        self._half = max(size // 2, 1)
        self._third = max_bytes // 3
        self._each = each
        # Counted when a value is put in, and not less when one is removed before its generation ends.
        self._young_bytes = 0
        self._young: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}
        self._forgotten: dict[bytes, Value] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> Value | None:
        """Return the value for ``key``, which becomes young; for values that cost `each` and no more."""
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

    def put(self, key: bytes, value: Value, size: int = 0) -> None:
        """Keep ``value``, which costs ``size`` more than `each`."""
        if self._forgotten:
            self._forgotten.popitem()
            if self._forgotten:
                self._forgotten.popitem()
        cost = len(key) + size + self._each
        if (len(self._young) >= self._half and key not in self._young) or (
            self._young and self._young_bytes + cost > self._third
        ):
            self._forgotten = self._old
            self._old = self._young
            self._young = {}
            self._young_bytes = 0
            self._old.pop(key, None)
        elif self._old:
            self._old.pop(key, None)
        self._young[key] = value
        self._young_bytes += cost

    def remove(self, key: bytes) -> None:
        """Forget ``key``."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def keys(self) -> list[bytes]:
        """Return every key."""
        return [*self._young, *self._old]

    def clear(self) -> None:
        """Forget all."""
        self._young_bytes = 0
        self._young.clear()
        self._old.clear()
        self._forgotten.clear()
