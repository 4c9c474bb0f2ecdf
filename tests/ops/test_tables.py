from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console, RenderableType

from dnsproxy.ops.doctor_findings import fail, ok, skip
from dnsproxy.ops.routes import plan_routes
from dnsproxy.ops.tables import (
    age_text,
    findings_table,
    names_table,
    open_console,
    routes_table,
    sources_table,
    workers_table,
)
from tests.ops.test_routes import EXAMPLE, known, ranges

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"


def text_of(renderable: RenderableType, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "name": f"{REGISTRY}.",
        "role": "registry",
        "registry": "hangzhou",
        "addresses": ["10.94.205.198"],
        "cname": None,
        "source": "helper-a",
        "serial": 1764000000123,
        "age": 8.4,
        "observed_at": 1764000000,
        "status": "ok",
        **changes,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3.0, "0s"),
        (0.0, "0s"),
        (8.4, "8s"),
        (59.6, "59s"),
        (60.0, "1m"),
        (119.0, "1m"),
        (3_599.9, "59m"),
        (3_600.0, "1h"),
        (86_399.0, "23h"),
        (200_000.0, "2d"),
    ],
)
def test_an_age_is_one_short_word(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


def test_a_name_stands_on_one_line_with_all_that_is_known_of_it() -> None:
    shown = text_of(names_table({"names": [entry()]}))
    line = next(line for line in shown.splitlines() if REGISTRY in line)
    for word in ("registry", "10.94.205.198", "8s", "helper-a", "ok"):
        assert word in line
    assert f"{REGISTRY}." not in line


def test_a_name_without_address_or_source_shows_dashes() -> None:
    shown = text_of(names_table({"names": [entry(addresses=[], source=None, age=None, status="missing")]}))
    line = next(line for line in shown.splitlines() if REGISTRY in line)
    assert line.split(REGISTRY)[1].split() == ["registry", "-", "-", "-", "missing"]


def test_several_addresses_and_a_cname_are_shown() -> None:
    shown = text_of(
        names_table(
            {"names": [entry(name="b.example.", cname="t.example.", addresses=["10.0.0.1", "fd00::1"])]}
        )
    )
    assert "t.example → 10.0.0.1, fd00::1" in shown


@pytest.mark.parametrize("width", [60, 72, 80, 90])
def test_on_a_narrow_terminal_no_name_is_folded(width: int) -> None:
    lines = text_of(names_table({"names": [entry(), entry(name="b.example.", addresses=[])]}), width)
    assert max(len(line) for line in lines.splitlines()) <= width
    assert [line.strip() for line in lines.splitlines() if line.strip()] == [
        REGISTRY,
        "registry, ok, confirmed 8s ago by helper-a",
        "10.94.205.198  probe -, routed -",
        "b.example",
        "registry, ok, confirmed 8s ago by helper-a",
        "-  probe -, routed -",
    ]


def test_a_source_shows_when_it_last_worked_and_what_is_wrong() -> None:
    source = {
        "url": "http://127.0.0.1:8953/v1/snapshot",
        "issuer": "helper-a",
        "serial": 17,
        "age": 130.0,
        "last_error": "connection refused",
    }
    never = {"url": "file:///x", "issuer": None, "serial": None, "age": None, "last_error": None}
    lines = text_of(sources_table({"sources": [source, never]})).splitlines()
    line = next(line for line in lines if "8953" in line)
    for word in ("helper-a", "17", "2m", "connection refused"):
        assert word in line
    line = next(line for line in lines if "file:///x" in line)
    assert line.split("file:///x")[1].split() == ["-", "-", "-"]


DETAILS: list[dict[str, Any]] = [
    {"address": "10.94.205.198", "state": "serving", "reason": None, "routed": True, "probe": {"443": "ok"}},
    {
        "address": "10.94.205.199",
        "state": "held_back",
        "reason": "no answer",
        "routed": False,
        "probe": {"443": "timeout", "80": "ok"},
    },
    {
        "address": "192.0.2.7",
        "state": "refused",
        "reason": "public: 192.0.2.7 is",
        "routed": None,
        "probe": {},
    },
    {"address": "10.94.205.200", "state": "held_back", "reason": "fresh", "routed": True, "probe": {}},
]


def test_each_address_has_its_probe_and_its_route_beside_it() -> None:
    addresses = ["10.94.205.198", "10.94.205.201"]
    names = [entry(details=DETAILS, addresses=addresses, frozen=True), entry(name="b.example.", addresses=[])]
    lines = text_of(names_table({"names": names}, wide=True), 150).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows[REGISTRY] == [
        *("registry", "10.94.205.198", "ok", "yes", "8s", "1764000000123", "helper-a", "frozen")
    ]
    assert rows["10.94.205.199"] == ["held:", "443", "timeout", "NO"]
    assert rows["192.0.2.7"] == ["refused:", "public", "-"]
    assert rows["10.94.205.200"] == ["held:", "not", "probed", "yes"]
    assert rows["10.94.205.201"] == ["-", "-"]
    assert rows["b.example"] == ["registry", "-", "-", "-", "8s", "1764000000123", "helper-a", "ok"]


def test_an_alias_stands_above_its_addresses() -> None:
    shown = text_of(names_table({"names": [entry(cname="t.example.", details=DETAILS[:2])]}), 140)
    lines = [line.strip() for line in shown.splitlines()]
    place = next(number for number, line in enumerate(lines) if "t.example →" in line)
    assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["10.94.205.198", "10.94.205.199"]


def test_a_long_reason_leaves_the_name_its_room() -> None:
    long: dict[str, Any] = {**DETAILS[1], "probe": {"443": "certificate is not for this name: " + "x" * 50}}
    shown = text_of(names_table({"names": [entry(details=[long])]}, wide=True), 150)
    assert any(REGISTRY in line and "held: 443 certificate…" in line for line in shown.splitlines())


def test_output_to_a_pipe_keeps_a_name_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(names_table({"names": [entry()]}))
    assert any(REGISTRY in line and "helper-a" in line for line in capsys.readouterr().out.splitlines())


def test_routes_and_what_they_are_for() -> None:
    shown = text_of(routes_table(plan_routes(known(*EXAMPLE), {"hz": ranges("10.0.0.0/8")})), 160)
    lines = {line.split()[0]: line for line in shown.splitlines() if "/" in line}
    assert lines["10.94.205.198/32"].split()[1:] == ["registry", REGISTRY, "10.94.205.198", "yes"]
    assert lines["100.98.170.0/24"].split()[-2:] == ["-", "MISSING"]


def test_narrow_lists_say_what_the_tables_say() -> None:
    shown = text_of(names_table({"names": [entry(cname="t.example.", details=DETAILS[:3], age=None)]}), 80)
    assert [line.strip() for line in shown.splitlines() if line.strip()] == [
        REGISTRY,
        "registry, ok",
        "t.example →",
        "10.94.205.198  probe ok, routed yes",
        "10.94.205.199  probe held: 443 timeout, routed NO",
        "192.0.2.7  probe refused: public, routed -",
    ]
    shown = text_of(routes_table(plan_routes(known(*EXAMPLE), {"hz": ranges("10.0.0.0/8")})), 80)
    assert f"10.94.205.198/32  routed  registry, 10.94.205.198\n    {REGISTRY}\n" in shown
    assert "100.98.170.0/24  MISSING  storage\n    oss-cn-" in shown
    shown = text_of(findings_table([ok("answer", REGISTRY, "fine"), fail("TLS", REGISTRY, "bad", "go")]), 80)
    assert f"OK  answer  {REGISTRY}\n    fine\nFAIL  TLS  {REGISTRY}\n    bad\n    → go\n" in shown


def test_findings_with_what_to_do() -> None:
    found = [
        ok("route", "a.example.", "fine"),
        fail("TLS", "b.example", "expired", "renew [it]"),
        skip("x", "-", "why"),
    ]
    lines = text_of(findings_table(found)).splitlines()
    assert next(line for line in lines if "route" in line).split() == ["route", "a.example", "OK", "fine"]
    place = next(number for number, line in enumerate(lines) if "TLS" in line)
    assert lines[place].split() == ["TLS", "b.example", "FAIL", "expired"]
    assert "→ renew [it]" in lines[place + 1]
    assert any("SKIP" in line for line in lines)


def test_workers() -> None:
    worker = {"worker": 1, "pid": 4711, "answers": True, "started_at": 1.0, "uptime": 61.0, "queries": 12}
    ended = {"worker": 2, "pid": None, "answers": False, "started_at": None, "uptime": None, "queries": 0}
    text = text_of(workers_table({"workers": [{**worker, "restarts": 0}, {**ended, "restarts": 3}]}))
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [["1", "4711", "1m", "12", "0", "yes"], ["2", "-", "-", "0", "3", "NO"]]
