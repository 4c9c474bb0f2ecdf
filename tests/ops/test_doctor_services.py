from __future__ import annotations

import pytest

from dnsproxy.ops.doctor_findings import DnsReply, Result
from dnsproxy.ops.doctor_services import (
    HttpReply,
    Reached,
    RouteFacts,
    judge_port,
    judge_realm,
    judge_route,
    judge_storage,
    judge_tls,
    judge_token,
    judge_v2,
)

NAME = "registry.example."
BEARER = 'Bearer realm="https://dockerauth.example/auth",service="registry.aliyuncs.com:cn-hangzhou:26842"'


def test_routes() -> None:
    good = RouteFacts("10.0.0.1", True, None, "10.9.0.1")
    assert judge_route(NAME, [good]).seen == "10.0.0.1 from 10.9.0.1"
    unstated = judge_route(NAME, [RouteFacts("10.0.0.1", None, None, "10.9.0.1")])
    assert unstated.result is Result.OK
    assert "network.routed states nothing" in unstated.seen
    uncovered = judge_route(NAME, [good, RouteFacts("10.0.0.2", False, None, "10.9.0.1")])
    assert (uncovered.result, uncovered.seen) == (Result.FAIL, "10.0.0.2 is not in network.routed")
    unreachable = judge_route(NAME, [RouteFacts("10.0.0.2", True, "network is unreachable", None)])
    assert (unreachable.result, "the kernel has no route" in unreachable.seen) == (Result.FAIL, True)


def test_ports() -> None:
    open_, closed = Reached("10.0.0.1"), Reached("10.0.0.2", "connection refused")
    assert judge_port(NAME, 443, [open_], required=True).result is Result.OK
    broken = judge_port(NAME, 443, [open_, closed], required=True)
    assert (broken.hop, broken.result, broken.seen) == (
        "TCP 443",
        Result.FAIL,
        "10.0.0.2: connection refused",
    )
    assert judge_port(NAME, 80, [closed], required=False).result is Result.SKIP


def test_certificates() -> None:
    assert "until May" in judge_tls(NAME, [Reached("10.0.0.1", None, "valid until May")]).seen
    assert judge_tls(NAME, [Reached("10.0.0.1", "Hostname mismatch")]).result is Result.FAIL


@pytest.mark.parametrize(
    ("reply", "result", "words"),
    [
        (HttpReply(401, (BEARER,)), Result.OK, "401 with bearer"),
        (HttpReply(401, ('Basic realm="x"',)), Result.OK, "401 with basic"),
        (HttpReply(200), Result.OK, "no token is asked for"),
        (HttpReply(404), Result.FAIL, "status 404 in place of 401"),
        (HttpReply(401), Result.FAIL, "401 without a challenge"),
        (HttpReply(401, ('Bearer realm="x',)), Result.FAIL, "cannot be read"),
        (HttpReply(error="no answer within 2 s"), Result.FAIL, "no answer"),
    ],
)
def test_v2(reply: HttpReply, result: Result, words: str) -> None:
    registry = judge_v2(NAME, 443, reply)
    assert registry.finding.result is result
    assert words in registry.finding.seen


RESOLVED = DnsReply(("100.103.7.181",))


def test_a_realm_that_is_owned_and_resolves() -> None:
    registry = judge_v2(NAME, 443, HttpReply(401, (BEARER,)))
    assert registry.bearer is not None
    found = judge_realm(NAME, registry, True, RESOLVED)
    assert (found.result, found.seen) == (Result.OK, "dockerauth.example → 100.103.7.181")


@pytest.mark.parametrize(
    ("challenge", "owned", "reply", "result"),
    [
        (BEARER, False, None, Result.FAIL),
        (BEARER, True, DnsReply(rcode="SERVFAIL"), Result.FAIL),
        (BEARER, True, DnsReply(), Result.FAIL),
        (BEARER.replace("https", "http"), True, RESOLVED, Result.FAIL),
        ("Bearer service=x", True, RESOLVED, Result.FAIL),
        (BEARER.replace("dockerauth.example", "registry.example"), False, None, Result.OK),
        ('Basic realm="x"', False, None, Result.SKIP),
    ],
)
def test_realms(challenge: str, owned: bool, reply: DnsReply | None, result: Result) -> None:
    registry = judge_v2(NAME, 443, HttpReply(401, (challenge,)))
    assert judge_realm(NAME, registry, owned, reply).result is result


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (HttpReply(200, body=b'{"token": "x"}'), Result.OK),
        (HttpReply(200, body=b'{"access_token": "x"}'), Result.OK),
        (HttpReply(200, body=b"<html>"), Result.FAIL),
        (HttpReply(200, body=b"[1]"), Result.FAIL),
        (HttpReply(200, body=b"[" * 100_000), Result.FAIL),
        (HttpReply(401), Result.OK),
        (HttpReply(403), Result.OK),
        (HttpReply(404), Result.FAIL),
        (HttpReply(502), Result.FAIL),
        (HttpReply(error="connection reset"), Result.FAIL),
    ],
)
def test_token_services(reply: HttpReply, result: Result) -> None:
    assert judge_token("auth.example.", reply).result is result


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (HttpReply(403), Result.OK),
        (HttpReply(200), Result.OK),
        (HttpReply(404), Result.OK),
        (HttpReply(503), Result.FAIL),
        (HttpReply(error="connection reset"), Result.FAIL),
    ],
)
def test_storage(reply: HttpReply, result: Result) -> None:
    assert judge_storage(NAME, reply).result is result
