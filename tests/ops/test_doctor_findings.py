from __future__ import annotations

import pytest

from dnsproxy.ops.doctor_findings import (
    AnswerFacts,
    DnsReply,
    Expected,
    Result,
    ServerFacts,
    ViewFacts,
    judge_answer,
    judge_hosts,
    judge_nsswitch,
    judge_resolvers,
    judge_snapshot,
    judge_view,
)
from dnsproxy.ops.doctor_host import parse_resolv_conf
from dnsproxy.ops.hostsfile import parse_hosts
from dnsproxy.ops.known import Known, KnownName

OSS = "oss-cn-hangzhou-internal.aliyuncs.com."
NAME = "registry.example."
PROXY = DnsReply(mname="dnsproxy.invalid.")
SILENT = DnsReply(error="no reply within 2 s")
OTHER = DnsReply(rcode="NXDOMAIN")


def entry(name: str, *addresses: str) -> KnownName:
    return KnownName(name, "registry", "hz", addresses, "helper-a", 7, 3.0)


KNOWN = Known("the proxy", True, 7, (entry(NAME, "10.0.0.1"), entry(f"*.{OSS}", "100.118.28.43")))


def test_nsswitch() -> None:
    assert judge_nsswitch(("files", "dns"), "/x").result is Result.OK
    broken = judge_nsswitch(("files",), "/x")
    assert (broken.hop, broken.subject, broken.result) == ("nsswitch", "/x", Result.FAIL)


def test_lines_that_shadow_are_named_with_their_place() -> None:
    lines = parse_hosts(
        f"127.0.0.1 localhost\n10.9.9.9 {NAME} alias\n100.118.28.43 bucket.{OSS}\n10.1.1.1 {OSS}\n"
    )
    found = judge_hosts(lines, KNOWN, "/etc/hosts")
    assert [(f.subject, f.result) for f in found] == [
        ("/etc/hosts:2", Result.FAIL),
        ("/etc/hosts:3", Result.FAIL),
    ]
    assert "STALE, the proxy says 10.0.0.1" in found[0].seen
    assert "for now the same address" in found[1].seen
    clean = judge_hosts(parse_hosts("127.0.0.1 localhost"), KNOWN, "/etc/hosts")
    assert [f.result for f in clean] == [Result.OK]


def test_the_snapshot() -> None:
    assert [f.result for f in judge_snapshot(None, "nobody there", [])] == [Result.SKIP]
    assert [f.seen for f in judge_snapshot(KNOWN, "", KNOWN.names)] == ["2 names, serial 7"]
    found = judge_snapshot(KNOWN, "", [entry("a.example."), entry("b.example.", "10.0.0.1")])
    assert [(f.subject, f.result) for f in found] == [("a.example", Result.FAIL)]


TWO = "nameserver 10.0.0.1\nnameserver 10.0.0.2\n"


def test_the_proxy_alone_is_what_a_host_should_ask() -> None:
    conf = parse_resolv_conf("nameserver 10.0.0.1")
    (found,) = judge_resolvers([ServerFacts("10.0.0.1", PROXY, agrees=False)], conf)
    assert (found.result, found.seen) == (Result.OK, "is the proxy, or forwards to it")
    (found,) = judge_resolvers([ServerFacts("10.0.0.1", DnsReply(), agrees=True)], conf)
    assert (found.result, found.seen) == (Result.OK, "gives the proxy's answers")
    not_ready = DnsReply(rcode="SERVFAIL", extended_errors=(14,))
    assert ServerFacts("10.0.0.1", not_ready, agrees=False).is_proxy


@pytest.mark.parametrize("reply", [SILENT, OTHER])
@pytest.mark.parametrize(
    ("text", "first", "words"),
    [
        (TWO, True, "musl asks it too"),
        (TWO, False, "asked first"),
        (f"{TWO}options rotate\n", True, "`options rotate` sends every other query there"),
    ],
)
def test_another_server_beside_the_proxy(reply: DnsReply, text: str, words: str, *, first: bool) -> None:
    facts = [ServerFacts("10.0.0.1", PROXY, agrees=False), ServerFacts("10.0.0.2", reply, agrees=False)]
    found = judge_resolvers(facts if first else facts[::-1], parse_resolv_conf(text))
    assert sorted(f.result for f in found) == [Result.FAIL, Result.OK]
    (broken,) = (f for f in found if f.failed)
    assert broken.subject == "10.0.0.2"
    assert words in broken.seen
    if reply is OTHER:
        assert "10.0.0.1 only" in broken.advice


def test_a_silent_server_is_not_the_proxy_even_if_its_name_agrees() -> None:
    assert not ServerFacts("x", SILENT, agrees=True).is_proxy


def test_lines_that_no_library_reads_are_told() -> None:
    conf = parse_resolv_conf("".join(f"nameserver 10.0.0.{i}\n" for i in range(1, 5)))
    facts = [ServerFacts(server.host, PROXY, agrees=False) for server in conf.nameservers]
    assert [(f.subject, f.result) for f in judge_resolvers(facts, conf)][3:] == [("10.0.0.4", Result.SKIP)]


# -- answers


def answers(a: DnsReply, aaaa: DnsReply, tcp: DnsReply | None = None) -> list[AnswerFacts]:
    labels = ("A over UDP", "AAAA over UDP", "A over TCP", "AAAA over TCP")
    return [AnswerFacts("10.0.0.53", tuple(zip(labels, (a, aaaa, tcp or a, aaaa), strict=True)))]


RIGHT = DnsReply(("10.0.0.1",))
EXACT = Expected(("10.0.0.1",), exact=True)


def test_an_answer_as_the_snapshot_says() -> None:
    found = judge_answer(NAME, EXACT, answers(RIGHT, DnsReply()))
    assert (found.result, found.seen) == (Result.OK, "10.0.0.1 over UDP and TCP")
    found = judge_answer(NAME, Expected(None, exact=False), answers(RIGHT, DnsReply()))
    assert (found.result, "nothing to compare with" in found.seen) == (Result.OK, True)


@pytest.mark.parametrize(
    ("a", "aaaa", "tcp", "seen", "advice"),
    [
        (DnsReply(("10.9.9.9",)), DnsReply(), None, "A over UDP: 10.9.9.9, expected 10.0.0.1", "explain"),
        (RIGHT, DnsReply(), SILENT, "A over TCP: no reply within 2 s", "port 53"),
        (RIGHT, DnsReply(("fd00::1",)), None, "AAAA over UDP: fd00::1, expected no data", "explain"),
        (RIGHT, OTHER, None, "AAAA over UDP: NXDOMAIN", "explain"),
        (DnsReply(rcode="REFUSED"), DnsReply(), None, "A over UDP: REFUSED", "serve.allow"),
        (
            DnsReply(rcode="SERVFAIL", extended_errors=(14,)),
            DnsReply(),
            None,
            "A over UDP: SERVFAIL (EDE 14)",
            "has not learned it",
        ),
    ],
)
def test_what_can_be_wrong_with_an_answer(
    a: DnsReply, aaaa: DnsReply, tcp: DnsReply | None, seen: str, advice: str
) -> None:
    found = judge_answer(NAME, EXACT, answers(a, aaaa, tcp))
    assert (found.result, found.subject, found.seen) == (
        Result.FAIL,
        "registry.example",
        f"10.0.0.53, {seen}",
    )
    assert advice in found.advice


def test_a_name_without_any_address_is_broken_whatever_was_expected() -> None:
    found = judge_answer(NAME, Expected(None, exact=False), answers(DnsReply(), DnsReply()))
    assert (found.result, found.seen) == (Result.FAIL, "no address at all")


@pytest.mark.parametrize(
    ("given", "exact", "good"),
    [
        (("10.0.0.1",), False, True),
        (("10.0.0.1",), True, False),
        (("10.0.0.1", "10.0.0.2"), True, True),
        (("10.0.0.3",), False, False),
        ((), False, False),
    ],
)
def test_from_a_state_file_some_of_the_addresses_are_enough(
    given: tuple[str, ...], *, exact: bool, good: bool
) -> None:
    expected = Expected(("10.0.0.1", "10.0.0.2"), exact)
    assert (expected.of(4).wrong(DnsReply(given)) is None) is good


def test_a_truncated_reply_says_nothing_about_addresses() -> None:
    assert EXACT.wrong(DnsReply(truncated=True)) is None


# -- views


NODATA = DnsReply()


def view(kind: str, a: DnsReply = RIGHT, aaaa: DnsReply = NODATA) -> Result:
    return judge_view(kind, [ViewFacts(NAME, EXACT, a, aaaa)]).result


@pytest.mark.parametrize("kind", ["glibc", "musl", "Go", "over TCP"])
def test_clients_see_what_they_should(kind: str) -> None:
    assert view(kind) is Result.OK
    assert view(kind, aaaa=OTHER) is Result.FAIL
    assert view(kind, a=SILENT) is Result.FAIL
    assert view(kind, aaaa=SILENT) is Result.FAIL


def test_only_go_takes_bare_nodata_for_a_lame_referral() -> None:
    bare = DnsReply(recursive=False)
    assert view("glibc", aaaa=bare) is Result.OK
    assert view("Go", aaaa=bare) is Result.FAIL
    assert view("Go", aaaa=DnsReply(recursive=False, authoritative=True)) is Result.OK
    assert view("Go", aaaa=DnsReply(recursive=False, additional=True)) is Result.OK
