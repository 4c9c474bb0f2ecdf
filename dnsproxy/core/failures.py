"""Questions that failed lately, apart from the cache: a failure displaces no answer (RFC 9520, RFC 8767)."""

from __future__ import annotations

from typing import Final

from dnsproxy.core.memory import FAILURE, FAILURES
from dnsproxy.core.recent import Recent

# Seconds for which a question that failed is not asked again (RFC 9520 §3.2: 1 s at least, 5 min at most).
FAILURE_TTL: Final = 2.0
# Seconds for which a stale answer is given at once, and looked for anew behind the client's back. RFC 8767
# §5 recommends not to look at all for 30 s; asking by way of health and `FAILURE_TTL` costs upstreams less.
RECHECK: Final = 30.0
# A flood of names that fail pushes out older failures and nothing else.
MAX_FAILURES: Final = 10_000


class Failed:
    """A failure: not asked again before ``until``, remembered to ``recheck``; ``ede`` says why (RFC 8914)."""

    __slots__ = ("ede", "recheck", "until")

    def __init__(self, ede: int, now: float) -> None:
        self.ede = ede
        self.until = now + FAILURE_TTL
        self.recheck = now + RECHECK


class Failures:
    """Failures by cache key. ``active`` is False while there are none, so that most misses need not look."""

    __slots__ = ("_last", "_recent", "active")

    def __init__(self) -> None:
        self._recent: Recent[Failed] = Recent(MAX_FAILURES, FAILURES, FAILURE)
        self._last = 0.0
        self.active = False

    def __len__(self) -> int:
        return len(self._recent)

    def remember(self, key: bytes, ede: int, now: float) -> None:
        """Remember that the question of ``key`` failed at ``now``."""
        self._recent.put(key, Failed(ede, now))
        self._last = now
        self.active = True

    def get(self, key: bytes, now: float) -> Failed | None:
        """Return the failure of ``key`` if it counts at ``now``; nothing is changed."""
        failed = self._recent.peek(key)
        return failed if failed is not None and now < failed.recheck else None

    def forget(self, key: bytes) -> None:
        """The question was answered."""
        self._recent.remove(key)

    def forget_name(self, name_key: bytes | None) -> None:
        """Forget what failed of one name, or all."""
        if name_key is None:
            self._recent.clear()
        else:
            for key in self._recent.keys():  # noqa: SIM118 - not a dict
                if key[:-5] == name_key:
                    self._recent.remove(key)

    def tidy(self, now: float) -> None:
        """Forget all when nothing has failed for so long that nothing counts any more."""
        if self.active and now >= self._last + RECHECK:
            self._recent.clear()
            self.active = False
