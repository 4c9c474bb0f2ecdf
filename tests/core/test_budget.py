from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.clients import Clients

ONE, OTHER = b"\x7f\0\0\1", b"\x7f\0\0\2"


class Holder:
    def __init__(self) -> None:
        self.evictions = 0

    def evict(self) -> None:
        self.evictions += 1


def test_the_client_that_holds_most_loses_its_largest_connection() -> None:
    budget = MemoryBudget(1000)
    small, large, single = Holder(), Holder(), Holder()
    budget.charge(small, ONE, 200)
    budget.charge(large, ONE, 300)
    budget.charge(single, OTHER, 400)
    assert (budget.used, large.evictions) == (900, 0)
    budget.charge(small, ONE, 310)
    assert (budget.used, small.evictions, large.evictions, single.evictions) == (700, 1, 0, 0)
    budget.charge(single, OTHER, 800)
    assert (budget.used, large.evictions, single.evictions) == (300, 0, 1)


def test_all_addresses_of_an_ipv6_client_count_together() -> None:
    network = bytes.fromhex("20010db8 00000001 00000000 000000")
    other = bytes.fromhex("20010db8 00000002 00000000 00000001")
    budget = MemoryBudget(1000)
    single, flood = Holder(), [Holder() for _ in range(10)]
    budget.charge(single, other, 200)
    for number, holder in enumerate(flood):
        budget.charge(holder, network + bytes([number]), 100)
    assert single.evictions == 0
    assert sum(holder.evictions for holder in flood) == 2
    # A reload may change what one client is.
    budget.clients = Clients(ipv6_prefix=128)
    budget.charge(flood[-1], network + bytes([9]), 110)
    assert single.evictions == 1


def test_a_holder_beyond_the_limit_is_closed_itself() -> None:
    budget, holder = MemoryBudget(1000), Holder()
    budget.charge(holder, ONE, 1001)
    assert (budget.used, holder.evictions) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 700)), max_size=100))
def test_the_limit_holds_and_what_is_given_back_is_counted(steps: list[tuple[int, int]]) -> None:
    budget = MemoryBudget(1000)
    holders = [Holder() for _ in range(6)]
    for number, size in steps:
        budget.charge(holders[number], (ONE, OTHER)[number % 2], size)
        assert 0 <= budget.used <= 1000
    for number, holder in enumerate(holders):
        budget.charge(holder, (ONE, OTHER)[number % 2], 0)
    assert (budget.used, budget._sources) == (0, {})
