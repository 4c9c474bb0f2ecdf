from __future__ import annotations

import pytest

from dnsproxy.core import chains
from dnsproxy.core.attempt import Limits
from dnsproxy.core.cache import Cache
from dnsproxy.core.chains import Chains
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.response import Response
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import scan_query
from tests.messages import addresses, query, reply_to

RULES = Ruleset([Owned("owned.example.", addresses=("10.0.0.1",))])
CHAIN = "alias.example. 300 IN CNAME owned.example."


def answered(*records: str, key: bytes = b"key") -> tuple[Exchange, Response]:
    asked = scan_query(query("alias.example."))
    exchange = Exchange(key, asked, (Upstream("one", ("192.0.2.1", 53)),), Limits(1, 2), 0.0)
    attempt = exchange.next_attempt(0.0)
    assert attempt is not None
    exchange.receive_reply(reply_to(b"\0\0" + attempt.payload, records, edns=False), 0.0)
    assert exchange.response is not None
    return exchange, exchange.response


def test_p06_the_owned_end_of_a_chain_is_put_in_and_goes_when_it_changes() -> None:
    cache = Cache(10)
    made = Chains(cache)
    exchange, response = answered(CHAIN, "owned.example. 300 IN A 203.0.113.9")
    taken = made.rewritten(exchange, response, RULES, 0.0)
    assert taken is not None
    assert addresses(
        query("alias.example.")[:2] + b"\x81\x80\0\1\0\2\0\0\0\0" + exchange.question + taken.sections
    )
    cache.keep(b"key", taken, 0.0)
    assert len(cache) == 1
    made.forget()
    assert len(cache) == 0


def test_p06_a_chain_elsewhere_is_left_as_it_is() -> None:
    exchange, response = answered("alias.example. 300 IN CNAME www.example.", "www.example. 9 IN A 192.0.2.1")
    assert Chains(Cache(10)).rewritten(exchange, response, RULES, 0.0) is response


def test_p06_beyond_the_bound_the_oldest_answer_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MAX_DERIVED", 2)
    cache = Cache(10)
    made = Chains(cache)
    for key in (b"one", b"two", b"one", b"three"):
        exchange, response = answered(CHAIN, key=key)
        taken = made.rewritten(exchange, response, RULES, 0.0)
        assert taken is not None
        assert taken.ttl == 30
        cache.keep(key, taken, 0.0)
    assert sorted(cache.keys()) == [b"one", b"three"]
