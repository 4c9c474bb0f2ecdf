"""Names that a registry may turn out to use, by pattern: they are owned before discovery has named them.

To forward such a name would have its answer, often NXDOMAIN, cached by clients while discovery is under way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dnsproxy.core import names


class ReservedNames:
    """``patterns`` are canonical names in which ``*`` matches letters, digits, hyphens and underscores."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        # The labels behind the last one with a `*`: few names end with them.
        self._suffixes = tuple({_suffix(pattern) for pattern in self.patterns})
        self._matches = [re.compile(_expression(pattern)) for pattern in self.patterns]

    def has(self, key: bytes) -> bool:
        """Return whether ``key`` matches a pattern."""
        if not key.endswith(self._suffixes):
            return False
        text = names.to_text(key)
        return any(match.fullmatch(text) is not None for match in self._matches)


def _suffix(pattern: str) -> bytes:
    return names.to_key(pattern.rpartition("*")[2].partition(".")[2] or pattern)


def _expression(pattern: str) -> str:
    labels = (
        "[a-z0-9_-]+" if label == "*" else "[a-z0-9_-]*".join(map(re.escape, label.split("*")))
        for label in pattern.split(".")
    )
    return r"\.".join(labels)
