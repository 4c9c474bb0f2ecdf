from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.engine import Engine
from dnsproxy.core.explain import Question, explain
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.names import to_key
from dnsproxy.core.policy import Owned
from dnsproxy.errors import DropReason
from tests.messages import OSS, REGISTRY, addresses, engine, hangzhou, query, read

USUAL, CANARY, STRANGER = (ip_address(text).packed for text in ("127.0.0.1", "127.9.0.1", "192.0.2.9"))
# In the canary's range, which does not make it one that may ask.
FOREIGN = ip_address("10.9.0.1").packed
OLD, NEW = "10.94.205.198", "10.94.205.199"
BUCKET = f"bucket.{OSS}"
NEW_BUCKET = "100.118.28.50"
TRIED = {
    REGISTRY: Owned(REGISTRY, addresses=(NEW,)),
    f"*.{OSS}": Owned(f"*.{OSS}", addresses=(NEW_BUCKET,)),
}


def trying(limiter: RateLimiter | None = None) -> Engine:
    made = engine(hangzhou(), canary=["127.9.0.0/16", "10.9.0.0/16"], limiter=limiter)
    made.swap_rules(made.rules, dict(TRIED))
    return made


def asked(made: Engine, source: bytes, name: str = REGISTRY, *, tcp: bool = False) -> list[str]:
    step = made.receive(query(name), source, 1.0, tcp=tcp)
    assert type(step) is bytes, step
    return sorted(addresses(step))


@pytest.mark.parametrize("tcp", [False, True])
def test_clients_of_the_canary_get_what_is_tried(tcp: bool) -> None:
    made = trying()
    for _ in range(3):
        assert asked(made, USUAL, tcp=tcp) == [OLD]
        assert asked(made, CANARY, tcp=tcp) == [NEW]
        # By the name of the rule that answers: the exact one is not on trial.
        assert asked(made, CANARY, BUCKET, tcp=tcp) == [NEW_BUCKET]
        assert asked(made, CANARY, OSS, tcp=tcp) == ["100.118.28.43", "100.118.28.44"]


def test_without_a_trial_there_is_nobody_apart() -> None:
    made = trying()
    made.swap_rules(made.rules)
    assert asked(made, CANARY) == asked(made, USUAL) == [OLD]
    # The very list that was given, asked once for each query, and nothing else.
    assert made._access is made.canary.swap({})
    assert not made.canary.holds(CANARY)


def test_an_engine_without_canary_clients_ignores_what_is_tried() -> None:
    made = engine(hangzhou())
    made.swap_rules(made.rules, dict(TRIED))
    assert asked(made, CANARY) == [OLD]


@pytest.mark.parametrize("source", [STRANGER, FOREIGN])
def test_strangers_stay_strangers(source: bytes) -> None:
    made = trying()
    step = made.receive(query(REGISTRY), source, 1.0)
    assert type(step) is bytes
    assert read(step).rcode() == 5
    assert made.receive(b"\0\1", source, 1.0) is DropReason.REFUSED_CLIENT
    assert made.stats.drops[DropReason.REFUSED_CLIENT] == 2


def test_the_limit_of_queries_holds_for_the_canary() -> None:
    made = trying(RateLimiter(1.0))
    steps = [made.receive(query(REGISTRY), CANARY, 1.0) for _ in range(20)]
    assert steps.count(DropReason.RATE_LIMITED) > 5
    assert type(made.receive(query(REGISTRY), CANARY, 1.0, tcp=True)) is bytes


def test_all_is_counted_once() -> None:
    made = trying()
    for source in (USUAL, CANARY, CANARY):
        asked(made, source)
        asked(made, source, OSS)
    stats = made.stats_now()
    assert stats.responses[("NOERROR", "learned")] == 6
    assert stats.requests[("udp", "A")] == 6


def test_explain_says_what_a_client_of_the_canary_gets() -> None:
    made = trying()
    question = Question(to_key(REGISTRY), 1, allowed=True, client=CANARY)
    found = explain(made, question, 1.0)
    assert found.owned is not None
    assert (found.canary, found.owned.given) == (True, (NEW,))
    usual = explain(made, Question(to_key(REGISTRY), 1, allowed=True, client=USUAL), 1.0)
    assert usual.owned is not None
    assert (usual.canary, usual.owned.given) == (False, (OLD,))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([USUAL, CANARY]),
            st.sampled_from([REGISTRY, OSS, BUCKET]),
            st.booleans(),
            st.sampled_from(["ask", "begin", "end"]),
        ),
        max_size=40,
    )
)
def test_no_answer_reaches_who_it_is_not_for(steps: list[tuple[bytes, str, bool, str]]) -> None:
    made = trying()
    is_trying = True
    for source, name, tcp, what in steps:
        if what != "ask":
            is_trying = what == "begin"
            made.swap_rules(made.rules, dict(TRIED) if is_trying else {})
        pair = ["100.118.28.43", "100.118.28.44"]
        usual = {REGISTRY: [OLD], OSS: pair, BUCKET: pair}
        new = usual | {REGISTRY: [NEW], BUCKET: [NEW_BUCKET]}
        expected = new if is_trying and source == CANARY else usual
        assert asked(made, source, name, tcp=tcp) == expected[name]
