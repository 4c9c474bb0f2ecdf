"""Read a JSON object that somebody else has written: every key is checked, and named when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dnsproxy.core import names
from dnsproxy.core.text import is_label
from dnsproxy.errors import Rejection, SnapshotError

# Bytes of a text that becomes a label of a metric, such as an issuer.
MAX_LABEL: Final = 255


class Fields:
    """Typed access to a JSON object.

    Each method raises `SnapshotError` (``MALFORMED``), naming the key, for a value of another kind.
    """

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise SnapshotError(Rejection.MALFORMED, f"{place}: not an object")
        self._value = value
        self._place = place

    def has(self, key: str) -> bool:
        """Tell whether ``key`` is there and not null."""
        return self._value.get(key) is not None

    def keys(self) -> list[str]:
        """Return the keys that are texts."""
        return [key for key in self._value if isinstance(key, str)]

    def wrong(self, key: str, reason: str) -> SnapshotError:
        """Return the error that says what is wrong with ``key``."""
        return SnapshotError(Rejection.MALFORMED, f"{self._place}.{key}: {reason}")

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self._value.get(key)
        if not isinstance(value, str) or not value or not _is_unicode(value):
            raise self.wrong(key, "not a text")
        return value

    def label(self, key: str, limit: int = MAX_LABEL) -> str:
        """Return a printable text of at most ``limit`` bytes: for logs, tables and metric labels."""
        value = self._value.get(key)
        if not isinstance(value, str) or not is_label(value, limit):
            raise self.wrong(key, f"not a text of 1 to {limit} printable bytes")
        return value

    def labels(self, key: str, most: int, limit: int = MAX_LABEL) -> tuple[str, ...]:
        """Return a list of at most ``most`` such texts."""
        items = self.sequence(key)
        if len(items) > most:
            raise self.wrong(key, f"more than {most}")
        labels: list[str] = []
        for item in items:
            if not isinstance(item, str) or not is_label(item, limit):
                raise self.wrong(key, f"not a list of texts of 1 to {limit} printable bytes")
            labels.append(item)
        return tuple(labels)

    def whole(self, key: str) -> int:
        """Return a whole number, 0 to 2**63 - 1."""
        value = self._value.get(key)
        # 2**63 keeps what a JSON peer in another language can hold; bool is an int in Python.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self.wrong(key, "not a whole number")
        return value

    def optional_moment(self, key: str) -> float | None:
        """Return Unix seconds, which may have a fraction, 0 up to 2**63; None when there is none or null."""
        if not self.has(key):
            return None
        value = self._value.get(key)
        # Python's JSON knows NaN, which compares as false, and infinities.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self.wrong(key, "not a time")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "not true or false")
        return value

    def inner(self, key: str) -> Fields:
        """Return an object."""
        return Fields(self._value.get(key), f"{self._place}.{key}")

    def sequence(self, key: str) -> list[object]:
        """Return a list."""
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "not a list")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        texts = []
        for item in self.sequence(key):
            if not isinstance(item, str) or not _is_unicode(item):
                raise self.wrong(key, "not a list of texts")
            texts.append(item)
        return texts

    def name(self, key: str) -> str:
        """Return a name in canonical form."""
        return self._canonical(key, self.text(key))

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of names in canonical form."""
        return tuple(self._canonical(key, text) for text in self.texts(key))

    def _canonical(self, key: str, text: str) -> str:
        try:
            return names.canonical(text)
        except ValueError as exc:
            raise self.wrong(key, str(exc)) from exc

    def optional_name(self, key: str) -> str | None:
        """Return a name, or None when there is none or null."""
        return self.name(key) if self.has(key) else None


def _is_unicode(text: str) -> bool:
    # JSON can spell half of a surrogate pair. No log, metric or file could hold it.
    return not any("\ud800" <= character <= "\udfff" for character in text)
