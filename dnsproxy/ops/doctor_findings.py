"""What `doctor` found: one `Finding` per hop and subject, and the rules that make findings of facts.

Pure: facts in, findings out. Asking and connecting is in `doctor_dns` and `doctor_net`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from dnsproxy.core.message import MNAME
from dnsproxy.core.text import printable
from dnsproxy.ops.doctor_host import ResolvConf, dns_is_reached
from dnsproxy.ops.hostsfile import HostsLine
from dnsproxy.ops.known import Known, KnownName

# Extended DNS error of a learned name that nothing is known of (RFC 8914 §4.15).
NOT_READY = 14


class Result(StrEnum):
    """How a hop is."""

    OK = "OK"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Finding:
    """``seen`` is the fact, ``advice`` what to do; ``subject`` the name (no last dot), server or file."""

    hop: str
    subject: str
    result: Result
    seen: str
    advice: str = ""

    def __post_init__(self) -> None:
        """Make what resolvers, registries and certificates say fit for a terminal."""
        for name in ("subject", "seen", "advice"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def failed(self) -> bool:
        """Whether this hop is broken."""
        return self.result is Result.FAIL


@dataclass(frozen=True, slots=True)
class DnsReply:
    """What came back for one query. With ``error`` nothing usable did, and the rest means nothing."""

    addresses: tuple[str, ...] = ()
    rcode: str = "NOERROR"
    truncated: bool = False
    authoritative: bool = False
    recursive: bool = True
    additional: bool = False
    mname: str | None = None
    extended_errors: tuple[int, ...] = ()
    error: str | None = None

    @property
    def seen(self) -> str:
        """The reply in a few words."""
        if self.error is not None:
            return self.error
        codes = "".join(f" (EDE {code})" for code in self.extended_errors)
        if self.rcode != "NOERROR":
            return f"{self.rcode}{codes}"
        return (", ".join(self.addresses) or "no data") + codes

    @property
    def is_proxy(self) -> bool:
        """Whether an answer about an owned name, of a type that it does not have, is a dnsproxy's."""
        return self.mname == MNAME or NOT_READY in self.extended_errors


def ok(hop: str, subject: str, seen: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(hop, subject.removesuffix("."), Result.OK, seen)


def fail(hop: str, subject: str, seen: str, advice: str) -> Finding:
    """Return a finding that a hop is broken."""
    return Finding(hop, subject.removesuffix("."), Result.FAIL, seen, advice)


def skip(hop: str, subject: str, reason: str) -> Finding:
    """Return a finding that a hop was not looked at."""
    return Finding(hop, subject.removesuffix("."), Result.SKIP, reason)


# -- the host ---------------------------------------------------------------------


def judge_nsswitch(services: tuple[str, ...], path: str) -> Finding:
    """Judge the ``hosts:`` line."""
    reason = dns_is_reached(services)
    shown = " ".join(services)
    if reason is not None:
        return fail("nsswitch", path, f"{shown}: {reason}", "write: hosts: files dns")
    return ok("nsswitch", path, shown)


def judge_hosts(lines: Iterable[HostsLine], known: Known, path: str) -> list[Finding]:
    """Judge a hosts file: it is read before DNS, so a line with an owned name beats the proxy."""
    shadows = []
    for line in lines:
        for name in line.names:
            entry = known.find(name)
            if entry is not None:
                shadows.append(_shadow(line, name, entry, path))
    return shadows or [ok("hosts file", path, "no line shadows an owned name")]


def _shadow(line: HostsLine, name: str, entry: KnownName, path: str) -> Finding:
    shown = f"{line.address} {name.removesuffix('.')}"
    state = "for now the same address" if line.address in entry.addresses else "STALE, the proxy says"
    held = "" if line.address in entry.addresses else f" {', '.join(entry.addresses) or 'nothing yet'}"
    return fail(
        "hosts file",
        f"{path}:{line.number}",
        f"{shown} is used in place of the proxy's answer ({state}{held})",
        "take the line out",
    )


# -- the snapshot -----------------------------------------------------------------


def judge_snapshot(known: Known | None, reason: str, entries: Sequence[KnownName]) -> list[Finding]:
    """Judge what is known before anything is asked; ``reason`` tells why nothing is."""
    if known is None:
        return [skip("snapshot", "-", f"answers cannot be compared: {reason}")]
    missing = [entry for entry in entries if not entry.addresses]
    if not missing:
        return [ok("snapshot", known.origin, f"{len(entries)} names, serial {known.serial}")]
    advice = "see `dnsproxy status`: does the helper resolve it, does the proxy pull?"
    return [fail("snapshot", entry.name, "no address is known", advice) for entry in missing]


# -- resolvers and answers --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One nameserver: its reply for a type that owned names do not have, and whether its addresses agree."""

    server: str
    probe: DnsReply
    agrees: bool

    @property
    def is_proxy(self) -> bool:
        """Whether it is the proxy, or something that forwards to it."""
        return self.probe.error is None and (self.probe.is_proxy or self.agrees)


def judge_resolvers(facts: Sequence[ServerFacts], conf: ResolvConf | None) -> list[Finding]:
    """Judge the nameservers of the host; ``conf`` is None when they were given on the command line."""
    findings = [_server(index, fact, facts, conf) for index, fact in enumerate(facts)]
    ignored = conf.ignored if conf else ()
    return findings + [
        skip("resolvers", text, "not used: after the third, or no address") for text in ignored
    ]


def _server(index: int, fact: ServerFacts, facts: Sequence[ServerFacts], conf: ResolvConf | None) -> Finding:
    if fact.is_proxy:
        how = "is the proxy, or forwards to it" if fact.probe.is_proxy else "gives the proxy's answers"
        return ok("resolvers", fact.server, how)
    if fact.probe.error is not None:
        advice = "start the proxy there, or take the nameserver out of resolv.conf"
        return fail("resolvers", fact.server, f"{fact.probe.error}{_use(index, conf)}", advice)
    others = [other.server for other in facts if other.is_proxy]
    advice = (
        f"let resolv.conf name {', '.join(others)} only" if others else "let resolv.conf name the proxy only"
    )
    return fail("resolvers", fact.server, f"is not the proxy ({fact.probe.seen}){_use(index, conf)}", advice)


def _use(index: int, conf: ResolvConf | None) -> str:
    if conf is None or len(conf.nameservers) == 1:
        return ""
    if conf.rotate:
        return "; `options rotate` sends every other query there"
    return "; asked first" if index == 0 else "; musl asks it too each time, others when the first is slow"


@dataclass(frozen=True, slots=True)
class Expected:
    """The addresses that a name should have; with ``exact`` all of them, else some. None: not known."""

    addresses: tuple[str, ...] | None
    exact: bool

    def of(self, version: int) -> Expected:
        """Return the part of one family."""
        if self.addresses is None:
            return self
        return Expected(tuple(a for a in self.addresses if ip_address(a).version == version), self.exact)

    def wrong(self, reply: DnsReply) -> str | None:
        """Return what is wrong with ``reply``, None when nothing is."""
        if reply.error is not None or reply.rcode != "NOERROR":
            return reply.seen
        if self.addresses is None or reply.truncated:
            return None
        given, wanted = set(reply.addresses), set(self.addresses)
        if given == wanted or (not self.exact and given and given <= wanted):
            return None
        return f"{reply.seen}, expected {', '.join(self.addresses) or 'no data'}"


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """The replies of one server about one name: A and AAAA, over UDP and TCP."""

    server: str
    replies: tuple[tuple[str, DnsReply], ...]


def judge_answer(name: str, expected: Expected, facts: Sequence[AnswerFacts]) -> Finding:
    """Judge what each server answers about ``name``; labels are like ``A over UDP``."""
    for fact in facts:
        for label, reply in fact.replies:
            wrong = expected.of(6 if label.startswith("AAAA") else 4).wrong(reply)
            if wrong is not None:
                return fail("answer", name, f"{fact.server}, {label}: {wrong}", _answer_advice(reply))
    addresses = dict.fromkeys(a for fact in facts for _, reply in fact.replies for a in reply.addresses)
    if not addresses:
        return fail("answer", name, "no address at all", "see `dnsproxy explain`")
    against = "" if expected.addresses is not None else " (nothing to compare with)"
    return ok("answer", name, f"{', '.join(addresses)} over UDP and TCP{against}")


def _answer_advice(reply: DnsReply) -> str:
    if NOT_READY in reply.extended_errors:
        return "the proxy has not learned it: see `dnsproxy status`"
    if reply.rcode == "REFUSED":
        return "let serve.allow hold this host's address"
    if reply.error is not None:
        return "is port 53 open over UDP and TCP?"
    return "see `dnsproxy explain` at the proxy; is a cache or another server between?"


@dataclass(frozen=True, slots=True)
class ViewFacts:
    """The same lookup as one kind of client makes it."""

    name: str
    expected: Expected
    a: DnsReply
    aaaa: DnsReply


def judge_view(view: str, facts: Sequence[ViewFacts]) -> Finding:
    """Judge how one kind of client sees the names."""
    for fact in facts:
        wrong = _view_fault(view, fact)
        if wrong is not None:
            return fail(
                "client views",
                view,
                f"{fact.name}: {wrong}",
                "is a middlebox or a cache between, or EDNS dropped?",
            )
    return ok("client views", view, f"{len(facts)} names as expected")


def _view_fault(view: str, fact: ViewFacts) -> str | None:
    for label, reply, version in (("A", fact.a, 4), ("AAAA", fact.aaaa, 6)):
        if reply.rcode == "NXDOMAIN":
            return f"{label}: NXDOMAIN" + (", which ends the A lookup too" if label == "AAAA" else "")
        wrong = fact.expected.of(version).wrong(reply)
        if wrong is not None:
            return f"{label}: {wrong}"
        if view == "Go" and _is_lame(reply):
            return f"{label}: Go takes this for a lame referral (no data, AA=0, RA=0)"
    return None


def _is_lame(reply: DnsReply) -> bool:
    # net/dnsclient_unix.go, checkHeader
    bare = not reply.authoritative and not reply.recursive and not reply.additional
    return bare and not reply.addresses and reply.rcode == "NOERROR"
