from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dnsproxy.admin.findings import Address, Concern, Tone, addresses, concerns, problem
from dnsproxy.admin.status import Facts, status_document
from dnsproxy.core.addresses.overrides import Freeze, Overrides
from dnsproxy.core.registry import Sought
from tests.fakes.facts import NOW, REGISTRY, bad_facts, good_facts


def found(facts: Facts) -> list[Concern]:
    return concerns(status_document(facts))


def detail(**changes: Any) -> dict[str, Any]:
    held: dict[str, Any] = {
        "address": "10.0.0.1",
        "state": "serving",
        "reason": None,
        "routed": None,
        "probe": {},
        "since": None,
    }
    return {**held, **changes}


@pytest.mark.parametrize(
    ("changes", "tone", "word", "text"),
    [
        ({}, Tone.NONE, "not probed", ""),
        ({"probe": {"443": "ok"}}, Tone.OK, "ok", "port 443"),
        ({"probe": {"80": "ok", "443": "ok"}}, Tone.OK, "ok", "ports 80, 443"),
        (
            {"probe": {"80": "ok", "443": "timed out"}, "reason": "port 443: timed out"},
            *(Tone.WARN, "failed, still answered", "port 443: timed out"),
        ),
        (
            {"probe": {"443": "timed out"}, "reason": "port 443: timed out", "state": "held_back"},
            *(Tone.BAD, "failed", "port 443: timed out"),
        ),
        (
            {"state": "held_back", "reason": "not probed yet"},
            *(Tone.WARN, "held back", "not probed yet"),
        ),
        (
            {"state": "held_back", "probe": {"443": "ok"}, "reason": "not in the set that is answered"},
            *(Tone.WARN, "held back", "not in the set that is answered"),
        ),
        ({"state": "refused", "reason": "loopback"}, Tone.BAD, "refused", "loopback"),
    ],
)
def test_an_address(changes: dict[str, Any], tone: Tone, word: str, text: str) -> None:
    (address,) = addresses({"details": [detail(**changes)], "addresses": []})
    assert (address.tone, address.word, address.detail) == (tone, word, text)
    assert address.served is (changes.get("state", "serving") == "serving")


def test_since_when_is_told_of_probes_alone() -> None:
    told = [detail(since=5.0, probe={"443": "ok"}), detail(since=5.0)]
    assert [address.since for address in addresses({"details": told, "addresses": []})] == [5.0, None]


def test_an_address_that_nothing_is_known_of_is_listed_once() -> None:
    listed = addresses({"details": [detail(routed=True)], "addresses": ["10.0.0.1", "10.0.0.2"]})
    assert [(one.address, one.routed) for one in listed] == [
        ("10.0.0.1", True),
        ("10.0.0.2", None),
    ]
    assert listed[1] == Address("10.0.0.2", True, Tone.NONE, "not probed", "", None, None)


def test_nothing_is_wrong_with_a_proxy_that_is_well() -> None:
    assert found(good_facts()) == []


def test_everything_that_is_wrong_is_told_the_worst_first() -> None:
    listed = found(bad_facts())
    tones = [concern.tone for concern in listed]
    assert tones == sorted(tones, key=[Tone.BAD, Tone.WARN].index)
    told = {(concern.section, concern.subject, concern.text) for concern in listed}
    storage = "*.oss-cn-hangzhou-internal.aliyuncs.com"
    assert told == {
        ("top", "draining", "the proxy is being stopped; clients should go elsewhere"),
        ("names", "files.example.internal", "no address is known, clients get SERVFAIL"),
        ("orders", "orders", "rolled back to serial 5 for 2\xa0min: what is learned anew is not taken"),
        ("names", storage, "stale: last confirmed 1\xa0d ago"),
        ("names", storage, "100.118.28.43 failed, still answered: port 443: Connection refused"),
        ("names", storage, "100.118.28.43 is not in network.routed"),
        ("names", storage, "100.118.28.44 failed: port 443: Connection refused"),
        ("names", storage, "2001:db8:1234:5678:9abc:def0:1234:5678 held back: not probed yet"),
        ("names", storage, "127.0.0.1 refused: loopback: 127.0.0.1 is in 127.0.0.0/8"),
        (
            "canary",
            "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com",
            "10.94.205.199 was rolled back: 10.94.205.199 failed 3 times in a row",
        ),
        ("upstreams", "10.200.0.2:53", "upstream is down"),
        (
            "upstreams",
            "https://10.200.0.3/dns-query#a-resolver.with.a.long.name.example",
            "leads back to this proxy, and is left out",
        ),
        ("sources", "https://helper.example/", "no answer"),
        ("workers", "worker 2", "does not answer"),
    }


def test_a_freeze() -> None:
    orders = Overrides(freeze=Freeze(NOW - 3600, {}))
    (concern,) = found(replace(good_facts(), overrides=orders))
    assert concern.text == "frozen for 1\xa0h: what is learned anew is not taken"


def test_a_role_that_is_not_known_yet() -> None:
    (concern,) = found(replace(good_facts(), undiscovered=[Sought("hangzhou", "auth", ())]))
    assert (concern.tone, concern.subject) == (Tone.BAD, "hangzhou: auth (not discovered yet)")


def test_the_url_of_a_source_is_not_said_twice() -> None:
    url = "http://h.example/v1/snapshot"
    assert problem({"url": url, "last_error": f"{url}: Connection refused"}) == "Connection refused"
    assert problem({"url": url, "last_error": "expired"}) == "expired"


def test_a_name_that_is_well_names_its_address() -> None:
    (name,) = status_document(good_facts())["names"]
    assert name["name"] == REGISTRY
    (address,) = addresses(name)
    assert address == Address("10.94.205.198", True, Tone.OK, "ok", "port 443", NOW - 600.0, True)
