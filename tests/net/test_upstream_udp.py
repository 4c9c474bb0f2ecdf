from __future__ import annotations

from itertools import pairwise

import pytest

from dnsproxy.core.stats import Ignored
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net.upstream_udp import MAX_STRAYS, Ids, UpstreamSocket


@pytest.mark.parametrize(("sent", "bound"), [(0, MAX_STRAYS), (1, MAX_STRAYS + 2), (50, MAX_STRAYS + 100)])
def test_two_strays_for_each_query_are_not_guesses_yet(sent: int, bound: int) -> None:
    used = UpstreamSocket(Upstream("one", ("127.0.0.1", 9)), 0.0)
    try:
        used.left -= sent
        for _ in range(bound):
            used.ignore(Ignored.UNKNOWN_ID)
        before = used.is_guessed_at
        used.ignore(Ignored.NOT_OURS)
        assert (before, used.is_guessed_at) == (False, True)
        assert used.upstream.stats.ignored == {"unknown_id": bound, "not_ours": 1}
    finally:
        used.sock.close()


def test_ids_are_two_octets_each_and_not_counted_up() -> None:
    ids = Ids()
    drawn = [ids.draw() for _ in range(3000)]
    assert {len(ident) for ident in drawn} == {2}
    assert len(set(drawn)) > 2500
    numbers = [int.from_bytes(ident, "big") for ident in drawn]
    assert sum(later - earlier == 1 for earlier, later in pairwise(numbers)) < 20
