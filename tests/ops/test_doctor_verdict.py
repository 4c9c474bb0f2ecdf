from __future__ import annotations

from dnsproxy.ops.doctor_findings import Finding, fail, ok, skip
from dnsproxy.ops.doctor_verdict import fold, verdict

GOOD = ok("nsswitch", "/etc/nsswitch.conf", "files dns")
WRONG = fail("answer", "a.example.", "10.0.0.9, expected 10.0.0.1", "see explain")
AFTER = [skip(hop, "a.example.", "its answer is wrong") for hop in ("route", "TCP 443", "TLS", "/v2/")]
OTHER = skip("TLS", "*.b.example", "a wildcard: no host of it is named")


def test_checks_that_depend_on_a_failed_hop_are_one_line_in_the_place_of_the_first() -> None:
    more = skip("route", "b.example", "its answer is wrong")
    assert fold([GOOD, WRONG, AFTER[0], more, *AFTER[1:], OTHER, GOOD]) == [
        GOOD,
        WRONG,
        skip("route, TCP 443, TLS and 1 more", "a.example, b.example", "its answer is wrong"),
        OTHER,
        GOOD,
    ]


def test_the_verdict_names_the_first_broken_hop() -> None:
    assert verdict([GOOD]) == "verdict: every hop works"
    assert verdict([GOOD, OTHER]) == "verdict: every hop works, but for those that are skipped"
    broken = "verdict: broken at answer, a.example: 10.0.0.9, expected 10.0.0.1"
    assert verdict([GOOD, WRONG, *AFTER]) == broken
    later: list[Finding] = [fail("TLS", "b.example", "expired", "")] * 2
    assert verdict([WRONG, *later[:1]]) == f"{broken}; 1 more hop is broken"
    assert verdict([WRONG, *later]) == f"{broken}; 2 more hops are broken"
