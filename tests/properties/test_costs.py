"""No message costs more than its goal: what is expensive by construction, and what the search has found.

`python -m tests.faults.slowest` searches for more. Time is that of this thread alone, the least of many runs,
and against a machine as slow as this one is.
"""

from __future__ import annotations

from math import inf

import pytest

from tests.faults.slowest import corpus
from tests.faults.slowest.parsers import PARSERS, Parser, Run
from tests.faults.slowest.search import cost, goal, search

# Runs of an input before it counts as too expensive: on a busy machine most of them are disturbed.
RUNS = 40
# Further looks at what seems too expensive, each beside a new look at how fast this machine is.
AGAIN = 5


@pytest.mark.parametrize("name", PARSERS)
def test_p29_no_input_costs_more_than_its_goal(name: str) -> None:
    parser = PARSERS[name]
    most = goal(parser)
    inputs = [*parser.seeds(parser.limit), *corpus.read(name)]
    assert max(map(len, inputs)) <= parser.limit
    expensive = {
        index: data for index, data in enumerate(inputs) if cost(parser, data, RUNS, int(most)) > most
    }
    for _ in range(AGAIN):
        # Other programs make all of this slower from one moment to the next.
        most = goal(parser)
        expensive = {
            index: data for index, data in expensive.items() if cost(parser, data, RUNS, int(most)) > most
        }
    assert {index: cost(parser, data, RUNS, int(most)) for index, data in expensive.items()} == {}, most


def test_the_search_finds_what_is_expensive_and_keeps_to_the_limit() -> None:
    """Of a parser that works for each byte of a kind: the start has none."""

    def prepare(data: bytes) -> Run:
        return lambda: [sum(range(200)) for byte in data if byte == 0xC0]

    toy = Parser("toy", 200, 1, prepare, lambda limit: iter([b"\0" * (limit // 2)]))
    found = search(toy, inf, [], rounds=400)
    assert found[0].data.count(0xC0) > 3
    assert max(len(entry.data) for entry in found) <= toy.limit


def test_the_search_has_found_something_of_each() -> None:
    assert [name for name in PARSERS if not corpus.read(name)] == []
