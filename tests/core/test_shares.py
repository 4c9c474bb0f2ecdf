from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.shares import Shares

A, B = b"a", b"b"


def test_the_client_with_the_most_is_known() -> None:
    shares: Shares[int] = Shares()
    for entry in range(3):
        shares.add(A, entry)
    shares.add(B, 9)
    assert (shares.fullest(), shares.most, shares.total) == (A, 3, 4)
    assert list(shares.entries(A)) == [0, 1, 2]
    for entry in (1, 0, 2):
        shares.remove(A, entry)
    assert (shares.fullest(), shares.most, shares.total) == (B, 1, 1)
    assert list(shares.entries(A)) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_it_counts_as_a_plain_count_does(steps: list[tuple[int, bool]]) -> None:
    shares: Shares[int] = Shares()
    held: dict[bytes, list[int]] = {bytes([number]): [] for number in range(5)}
    for entry, (number, adds) in enumerate(steps):
        client = bytes([number])
        if adds:
            shares.add(client, entry)
            held[client].append(entry)
        elif held[client]:
            shares.remove(client, held[client].pop(0))
        counts = Counter({client: len(entries) for client, entries in held.items()})
        assert {client: shares.count(client) for client in held} == counts
        assert shares.total == counts.total()
        assert shares.most == max(counts.values())
        if shares.total:
            assert counts[shares.fullest()] == shares.most
    for client, entries in held.items():
        assert list(shares.entries(client)) == entries
        for entry in entries:
            shares.remove(client, entry)
    assert (shares._entries, shares._levels) == ({}, {})


def test_what_a_client_does_not_have_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        Shares[int]().remove(A, 1)
