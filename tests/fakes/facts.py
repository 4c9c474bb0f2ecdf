"""What the admin endpoint is told of proxies in several states."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from dnsproxy.admin.status import Facts, NameDetails, SourceView
from dnsproxy.core.addresses.canary import CanaryPolicy, CanaryView, Trial, TrialOutcome, rolled_back
from dnsproxy.core.addresses.filter import Finding, Refusal
from dnsproxy.core.addresses.health import Outcome, Result
from dnsproxy.core.addresses.name_state import AddressState
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Pin, Record
from dnsproxy.core.registry import Wanted
from dnsproxy.core.stats import Stats, UpstreamStats
from dnsproxy.core.totals import WorkerView
from dnsproxy.core.trend import Counts, Recent
from tests.strategies import learned, served_table, snapshot

NOW = 1_764_000_000
REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
STORAGE = "*.oss-cn-hangzhou-internal.aliyuncs.com."
LOST = "files.example.internal."
OK, FAILED = Result(Outcome.ANSWERED, {443: "ok"}), Result(Outcome.FAILED, {443: "Connection refused"})


def facts_of(**given: Any) -> Facts:
    """Return facts with ``given`` in place of the defaults, which name no ``wanted`` and no ``table``."""
    values: dict[str, Any] = {
        "sources": [],
        "rejected": {},
        "stats": Stats(),
        "upstreams": {},
        "cache_entries": 0,
        "in_flight": 0,
        "wall_now": 1050.0,
        "started_at": 1000.0,
        "draining": False,
    }
    return Facts(**{**values, **given})


def good_facts(address: str = "10.94.205.198") -> Facts:
    """Return the facts of a proxy with which all is well."""
    entry = learned(REGISTRY, (address,), observed_at=NOW - 5)
    taken = snapshot(entry, serial=NOW * 1000, at=NOW - 5)
    state = AddressState(address, True, True, None, OK, NOW - 3.0, NOW - 600.0)
    stats = Stats(cache_hits=700, cache_misses=300)
    stats.requests.update({("udp", "A"): 2000})
    return facts_of(
        wanted=[Wanted(REGISTRY, "registry", "hangzhou")],
        table=served_table(taken),
        snapshots={taken.issuer: taken},
        details={REGISTRY: NameDetails((state,), (), {address: True})},
        sources=[SourceView("http://10.94.0.10:8953/v1/snapshot", NOW - 2.0, NOW - 2.0, None, "helper-a", 5)],
        upstreams={"10.200.0.2:53": UpstreamStats(sent=300, rtt=0.004)},
        stats=stats,
        recent=Recent(tuple(Counts(n, (n // 2, 0, n // 4, 0, 1, 0), n, 3, 0) for n in range(60)), 12.34),
        wall_now=float(NOW),
        started_at=NOW - 90_000.0,
        host="idc-dns-1",
        listen=["10.200.0.10:53"],
        cache_size=100_000,
    )


def bad_facts(text: str = "") -> Facts:
    """Return facts in which everything that can be wrong is; ``text`` stands wherever others have a say."""
    entry = learned(STORAGE, ("100.118.28.43", "100.118.28.44"), observed_at=NOW - 90_000)
    held = snapshot(entry, serial=NOW * 1000, at=NOW - 90_000, issuer=f"helper-a{text}")
    states = (
        AddressState("100.118.28.43", True, True, FAILED.problem + text, FAILED, NOW - 1.0, NOW - 30.0),
        AddressState("100.118.28.44", False, False, FAILED.problem, FAILED, NOW - 1.0, NOW - 30.0),
        AddressState("2001:db8:1234:5678:9abc:def0:1234:5678", False, None, "not probed yet", None, None),
    )
    refused = (Finding("127.0.0.1", Refusal.LOOPBACK, f"127.0.0.1 is in 127.0.0.0/8{text}"),)
    pinned = Wanted(
        f"pinned{_label(text)}.example.", f"other{text}", f"hangzhou{text}", addresses=("10.1.2.3",)
    )
    down = UpstreamStats(sent=9, failures=Counter({"timeout": 7, f"network{text}": 2}), rtt=1.0, up=False)
    stats = Stats()
    stats.drops.update({f"full{text}": 12, "short": 1})
    return replace(
        good_facts(),
        wanted=[Wanted(STORAGE, "storage", "hangzhou"), Wanted(LOST, "other", "hangzhou"), pinned],
        table=served_table(held),
        snapshots={held.issuer: held},
        details={STORAGE: NameDetails(states, refused, {"100.118.28.43": False, "100.118.28.44": True})},
        sources=[
            SourceView(
                f"https://helper.example/{text}", NOW - 2.0, NOW - 400.0, f"no answer{text}", None, None
            )
        ],
        upstreams={
            f"10.200.0.2:53{text}": down,
            "https://10.200.0.3/dns-query#a-resolver.with.a.long.name.example": UpstreamStats(looped=True),
        },
        stats=stats,
        rejected={"older": 3},
        refused={"loopback": 1},
        workers=(
            WorkerView(1, 4711, NOW - 60.0, 12_345, 0, answers=True),
            WorkerView(2, None, None, 0, 7, answers=False),
        ),
        host=f"idc-dns-1{text}",
        overrides=bad_orders(text),
        canary=bad_canary(text),
        draining=True,
    )


def bad_orders(text: str = "") -> Overrides:
    """Return orders and a history to go with `bad_facts`."""
    name = f"moved{_label(text)}.example."
    record = snapshot(learned(name, ("10.0.0.9",)), issuer=f"helper-a{text}")
    entries = served_table(record).sets
    return Overrides(
        pins={f"pin{_label(text)}.example.": Pin(("10.7.7.7",), NOW - 60)},
        freeze=Freeze(NOW - 120, entries, serial=5),
        history=(Record(5, f"helper-a{text}", NOW - 200_000, entries), Record(6, "helper-a", NOW - 50, {})),
    )


def _label(text: str) -> str:
    """Return ``text`` as names show it: a dot and some others have a backslash (RFC 1035 §5.1)."""
    return text.replace("(", "\\(").replace(")", "\\)").replace(" ", "\\032")


def bad_canary(text: str = "") -> CanaryView:
    """Return a trial that is under way, and one that was rolled back."""
    running = Trial(("100.118.28.44",), None, {"100.118.28.44": NOW - 120})
    ended = Trial(("10.94.205.199",), None, {"10.94.205.199": NOW - 900})
    detail = f"10.94.205.199 failed 3 times in a row{text}"
    return CanaryView(
        CanaryPolicy(0.05, 600.0, 3, f"idc-dns-1{text}"),
        {STORAGE: running, REGISTRY: rolled_back(ended, TrialOutcome.FAILED, detail, NOW - 300)},
        {STORAGE: ("100.118.28.43",), REGISTRY: ("10.94.205.198",)},
        leading=frozenset({STORAGE}),
        outcomes={TrialOutcome.HELD: 2, TrialOutcome.FAILED: 1},
    )
