from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest

from dnsproxy.admin.status import Facts, NameDetails, SourceView, status_document
from dnsproxy.core.addresses.filter import Finding, Refusal
from dnsproxy.core.addresses.health import Outcome, Result
from dnsproxy.core.addresses.name_state import AddressState
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Pin
from dnsproxy.core.addresses.table import ServedTable, pinned
from dnsproxy.core.registry import Sought, Wanted
from dnsproxy.core.stats import Stats, UpstreamStats
from dnsproxy.core.totals import WorkerView
from dnsproxy.core.trend import Counts, Recent
from dnsproxy.version import __version__
from tests.fakes.facts import NOW, STORAGE, bad_canary, facts_of
from tests.strategies import learned, served_table, snapshot

REGISTRY = Wanted("a.example.", "registry", "hangzhou")
PINNED = Wanted("b.example.", "other", "hangzhou", addresses=("10.1.2.3",))
UNKNOWN = Wanted("c.example.", "auth", "hangzhou")
PLAIN = {"pinned": False, "frozen": False, "ports": [], "details": []}
TAKEN = snapshot(learned("a.example.", ("10.0.0.1", "10.0.0.2"), observed_at=1010), serial=7, at=1020)


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "wanted": [REGISTRY, PINNED],
        "table": served_table(TAKEN),
    }
    return facts_of(**{**values, **changes})


def test_names() -> None:
    document = status_document(facts(wanted=[REGISTRY, PINNED, UNKNOWN]))
    assert document["names"] == [
        {
            "name": "a.example.",
            "role": "registry",
            "registry": "hangzhou",
            "addresses": ["10.0.0.1", "10.0.0.2"],
            "cname": None,
            "source": "helper-a",
            "serial": 7,
            "ttl": 30,
            "source_ttl": 60,
            "age": 40.0,
            "observed_at": 1010,
            "status": "ok",
            **PLAIN,
        },
        {
            "name": "b.example.",
            "role": "other",
            "registry": "hangzhou",
            "addresses": ["10.1.2.3"],
            "cname": None,
            "source": "pinned",
            "serial": None,
            "ttl": 30,
            "source_ttl": None,
            "age": None,
            "observed_at": None,
            "status": "pinned",
            **PLAIN,
            "pinned": True,
        },
        {
            "name": "c.example.",
            "role": "auth",
            "registry": "hangzhou",
            "addresses": [],
            "cname": None,
            "source": None,
            "serial": None,
            "ttl": 30,
            "source_ttl": None,
            "age": None,
            "observed_at": None,
            "status": "missing",
            **PLAIN,
        },
    ]
    assert (document["ready"], document["missing"], document["serial"]) == (False, ["c.example."], 7)


def test_a_pinned_name_stays_pinned_when_a_helper_tells_of_it_too() -> None:
    table = served_table(snapshot(learned("b.example.", ("10.6.6.6",))))
    (name,) = status_document(facts(wanted=[PINNED], table=table))["names"]
    assert (name["addresses"], name["source"], name["age"]) == (["10.1.2.3"], "pinned", None)


def test_a_name_that_is_learned_through_another() -> None:
    wanted = Wanted("a.example.", "storage", "hangzhou", cname="ep.example.")
    table = served_table(snapshot(learned("a.example.", cname="ep.example.")))
    (name,) = status_document(facts(wanted=[wanted], table=table))["names"]
    assert name["cname"] == "ep.example."
    (name,) = status_document(facts(wanted=[wanted], table=ServedTable()))["names"]
    assert (name["cname"], name["status"]) == ("ep.example.", "missing")


@pytest.mark.parametrize(("status", "expected"), [("ok", "ok"), ("stale", "stale"), ("later", "stale")])
def test_what_the_helper_could_not_confirm_is_stale(status: str, expected: str) -> None:
    table = served_table(snapshot(learned("a.example.", status=status)))
    document = status_document(facts(table=table))
    assert (document["names"][0]["status"], document["ready"]) == (expected, True)


@pytest.mark.parametrize(
    ("beyond", "max_stale", "status", "ready"),
    [
        (-1, 60.0, "ok", True),
        (0, 60.0, "stale", True),
        (59, 60.0, "stale", True),
        (60, 60.0, "missing", False),
        (10**9, math.inf, "stale", True),
        (0, 0.0, "missing", False),
    ],
)
def test_after_max_stale_a_name_is_missing_as_clients_see_it(
    beyond: int, max_stale: float, status: str, *, ready: bool
) -> None:
    given = facts(wall_now=float(TAKEN.expires_at + beyond), max_stale=max_stale, wanted=[REGISTRY], ttl=600)
    document = status_document(given)
    (name,) = document["names"]
    assert (name["status"], document["ready"]) == (status, ready)
    assert bool(name["addresses"]) is ready
    # Stale answers are given for 30 s at most (RFC 8767 §4).
    assert name["ttl"] == (30 if status == "stale" else 600)
    # How old the last known addresses are is what an operator asks next.
    assert name["age"] == given.wall_now - 1010


def test_a_registry_that_has_not_told_keeps_it_from_being_ready() -> None:
    document = status_document(facts(undiscovered=[Sought("hangzhou", "auth", ())]))
    assert (document["ready"], document["missing"]) == (False, ["hangzhou: auth (not discovered yet)"])


def test_while_draining_it_is_not_ready() -> None:
    document = status_document(facts(draining=True))
    assert (document["ready"], document["draining"], document["missing"]) == (False, True, [])


def test_without_names_it_is_ready() -> None:
    assert status_document(facts(wanted=[], table=ServedTable()))["ready"] is True


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    source = SourceView("http://h.example/", 1050.0, 1050.0, None, "helper-a", 7)
    document = status_document(facts(wall_now=900.0, sources=[source]))
    assert (document["names"][0]["age"], document["sources"][0]["age"]) == (0.0, 0.0)


def test_details_of_addresses() -> None:
    refused = Result(Outcome.FAILED, {443: "Connection refused", 80: "ok"})
    details = NameDetails(
        (
            AddressState("10.0.0.1", True, True, None, Result(Outcome.ANSWERED, {443: "ok"}), 1040.5, 1020.5),
            AddressState("10.0.0.2", False, False, refused.problem, refused, 1041.0, 1041.0),
            AddressState("10.0.0.3", False, None, "not probed yet", None, None),
        ),
        (Finding("127.0.0.1", Refusal.LOOPBACK, "127.0.0.1 is in 127.0.0.0/8"),),
        {"10.0.0.1": True, "10.0.0.2": False, "10.0.0.3": None},
    )
    (name,) = status_document(facts(wanted=[REGISTRY], details={"a.example.": details}))["names"]
    assert name["details"] == [
        {
            "address": "10.0.0.1",
            "state": "serving",
            "reason": None,
            "routed": True,
            "probe": {"443": "ok"},
            "checked_at": 1040.5,
            "since": 1020.5,
        },
        {
            "address": "10.0.0.2",
            "state": "held_back",
            "reason": "port 443: Connection refused",
            "routed": False,
            "probe": {"443": "Connection refused", "80": "ok"},
            "checked_at": 1041.0,
            "since": 1041.0,
        },
        {
            "address": "10.0.0.3",
            "state": "held_back",
            "reason": "not probed yet",
            "routed": None,
            "probe": {},
            "checked_at": None,
            "since": None,
        },
        {
            "address": "127.0.0.1",
            "state": "refused",
            "reason": "loopback: 127.0.0.1 is in 127.0.0.0/8",
            "routed": None,
            "probe": {},
            "checked_at": None,
            "since": None,
        },
    ]


def test_a_name_that_is_pinned_by_order() -> None:
    pin = Pin(("10.7.7.7",), 1020)
    table = ServedTable(sets={"a.example.": pinned("a.example.", pin.addresses, pin.since)})
    document = status_document(
        facts(wanted=[REGISTRY], table=table, overrides=Overrides(pins={"a.example.": pin}))
    )
    (name,) = document["names"]
    assert (name["addresses"], name["source"], name["status"]) == (["10.7.7.7"], "pinned", "pinned")
    assert (name["age"], name["serial"], name["pinned"]) == (None, None, True)
    assert document["pinned"] == [{"name": "a.example.", "addresses": ["10.7.7.7"], "since": 1020}]
    assert (document["ready"], document["frozen"]) == (True, None)


def test_a_freeze_says_what_it_holds_and_since_when() -> None:
    table = served_table(TAKEN)
    orders = Overrides(freeze=Freeze(1030, dict(table.sets), serial=7))
    document = status_document(facts(wanted=[REGISTRY, UNKNOWN], overrides=orders))
    assert document["frozen"] == {"since": 1030, "rolled_back_to": 7, "names": 1}
    assert [name["frozen"] for name in document["names"]] == [True, False]


def test_trials() -> None:
    document = status_document(facts(canary=bad_canary()))["canary"]
    assert (document["identity"], document["share"], document["hold"]) == ("idc-dns-1", 0.05, 600.0)
    assert document["promotions"] == {"held": 2, "old_failed": 0, "accepted": 0}
    assert document["rollbacks"] == {"failed": 1, "silent": 0, "refused": 0, "fleet": 0}
    running, ended = document["trials"]
    assert running == {
        "name": STORAGE,
        "state": "running",
        "old": ["100.118.28.43"],
        "new": ["100.118.28.44"],
        "cname": None,
        "served_to": "all",
        "started_at": NOW - 120,
        "ends_at": NOW + 480,
        "ended_at": None,
        "reason": None,
        "detail": None,
    }
    told = ended["state"], ended["served_to"], ended["ends_at"], ended["ended_at"], ended["reason"]
    assert told == ("rolled_back", "none", None, NOW - 300, "failed")


def test_sources() -> None:
    well = SourceView("http://h.example/", 1045.0, 1040.0, None, "helper-a", 7)
    never = SourceView("file:///x", 1049.0, None, "No such file or directory", None, None)
    assert status_document(facts(sources=[well, never]))["sources"] == [
        {
            "url": "http://h.example/",
            "issuer": "helper-a",
            "serial": 7,
            "age": 10.0,
            "last_attempt": 1045.0,
            "last_success": 1040.0,
            "last_error": None,
        },
        {
            "url": "file:///x",
            "issuer": None,
            "serial": None,
            "age": None,
            "last_attempt": 1049.0,
            "last_success": None,
            "last_error": "No such file or directory",
        },
    ]


def test_the_rest() -> None:
    stats = Stats(cache_hits=3, cache_misses=2)
    stats.requests.update({("udp", "A"): 5, ("tcp", "AAAA"): 1})
    stats.responses.update({("NOERROR", "learned"): 4, ("NXDOMAIN", "forward"): 1, ("NOERROR", "forward"): 1})
    stats.drops["short"] = 2
    upstream = UpstreamStats(sent=9, failures=Counter(timeout=1), rtt=0.02, up=False)
    document = status_document(
        facts(
            stats=stats,
            upstreams={"10.0.0.2:53": upstream},
            rejected={"older": 1},
            refused={"public": 2},
            cache_entries=8,
            in_flight=1,
            cache_size=100,
            host="idc-1",
            listen=["10.0.0.10:53"],
            state_file="/var/lib/dnsproxy/learned.jws",
            disk_failure="No space left on device",
            recent=Recent((Counts(5, (3, 0, 1, 0, 1, 0), 1, 2, 0), Counts(1, drops=2)), 0.16666),
        )
    )
    rest = {key: value for key, value in document.items() if key not in {"names", "sources"}}
    assert rest == {
        "version": __version__,
        "host": "idc-1",
        "listen": ["10.0.0.10:53"],
        "now": 1050.0,
        "uptime": 50.0,
        "serial": 7,
        "ready": True,
        "draining": False,
        "undiscovered": [],
        "missing": [],
        "state": {"file": "/var/lib/dnsproxy/learned.jws", "failure": "No space left on device"},
        "rejected": {"older": 1},
        "refused": {"public": 2},
        "pinned": [],
        "frozen": None,
        "canary": None,
        "upstreams": [
            {
                "name": "10.0.0.2:53",
                "up": False,
                "looped": False,
                "rtt": 0.02,
                "sent": 9,
                "failures": {"timeout": 1},
            }
        ],
        "cache": {"entries": 8, "size": 100, "hits": 3, "misses": 2},
        "in_flight": 1,
        "requests": 6,
        "responses": {"learned": 4, "forward": 2},
        "drops": {"short": 2},
        "recent": {
            "queries_per_second": 0.17,
            "queries": [5, 1],
            "answers": {
                "learned": [3, 0],
                "local": [0, 0],
                "cache": [1, 0],
                "stale": [0, 0],
                "forward": [1, 0],
                "error": [0, 0],
            },
            "cache_hits": [1, 0],
            "cache_misses": [2, 0],
            "drops": [0, 2],
        },
        "workers": [],
    }
    assert json.loads(json.dumps(document)) == document


def test_workers() -> None:
    running = WorkerView(1, 4711, 1010.0, 12, 1, answers=True)
    ended = WorkerView(2, None, None, 0, 3, answers=False)
    document = status_document(facts(workers=(running, ended)))
    assert document["workers"] == [
        {
            "worker": 1,
            "pid": 4711,
            "answers": True,
            "started_at": 1010.0,
            "uptime": 40.0,
            "queries": 12,
            "restarts": 1,
        },
        {
            "worker": 2,
            "pid": None,
            "answers": False,
            "started_at": None,
            "uptime": None,
            "queries": 0,
            "restarts": 3,
        },
    ]
    assert status_document(facts())["workers"] == []
