from __future__ import annotations

import pytest

from dnsproxy.helper.caching import NO_STORE, cache_headers


def test_an_open_document() -> None:
    headers = cache_headers(1234.5, status=200, guarded=False, blocking=False)
    assert headers == {"Cache-Control": "public, max-age=5, stale-if-error=1234"}


def test_a_guarded_one_is_for_who_asked() -> None:
    headers = cache_headers(1234.5, status=304, guarded=True, blocking=False)
    assert headers == {
        "Cache-Control": "private, max-age=5, stale-if-error=1234",
        "Vary": "Authorization",
    }


@pytest.mark.parametrize(
    ("left", "status", "blocking"),
    [(1000, 200, True), (1000, 304, True), (1000, 503, False), (0, 200, False), (-1, 200, False)],
)
@pytest.mark.parametrize("guarded", [True, False])
def test_what_no_cache_keeps(left: float, status: int, *, blocking: bool, guarded: bool) -> None:
    assert cache_headers(left, status=status, guarded=guarded, blocking=blocking) == NO_STORE
