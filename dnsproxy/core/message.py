"""The only importer of dnslib: build record data, and decode where a decision needs the records.

dnslib is given nothing that `wire` has not scanned first, and its failures,
which can be any exception on hostile bytes, leave here as `WireError`.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from dnslib import AAAA, CLASS, CNAME, PTR, QTYPE, RD, RR, SOA, TXT, A, DNSLabel, DNSRecord

from dnsproxy.core import names
from dnsproxy.errors import WireError

# Owner "the question name": a pointer to offset 12, where the question always starts.
QUESTION_NAME = b"\xc0\x0c"
# Who the SOA of a NODATA response names. RFC 6761 keeps .invalid out of use. With the
# root as RNAME the two share no suffix that dnslib would compress by a false offset.
MNAME, _RNAME = "dnsproxy.invalid.", "."

# Octets that dnslib is given at most. It follows each chain of compression pointers anew, so a
# hostile message costs it 0.2 s at this size and 8 s at 64 kB. An honest chain of CNAMEs with
# two hundred addresses stays under it.
MAX_DECODED = 4096
# A CNAME that is asked for is itself the answer (RFC 1034 §3.6.2).
_NOT_FOLLOWED = frozenset({QTYPE.CNAME, QTYPE.ANY})

# dnslib encodes names by this codec, which Python loads from a file when it is first asked for: that must
# not be by a query, to a program that has no file descriptor left.
codecs.lookup("idna")

TYPE_NAMES = {code: str(name) for code, name in QTYPE.forward.items()}


_REQUESTS = {
    tcp: {code: (proto, name) for code, name in TYPE_NAMES.items()}
    for tcp, proto in ((False, "udp"), (True, "tcp"))
}


def request_label(qtype: int, *, tcp: bool) -> tuple[str, str]:
    """Return the key of `Stats.requests` for a query."""
    return _REQUESTS[tcp].get(qtype) or ("tcp" if tcp else "udp", "other")


def type_name(qtype: int) -> str:
    """Return ``A`` for 1; ``other`` for a type without a name, so that metric labels stay few."""
    return TYPE_NAMES.get(qtype, "other")


def address_records(owner: bytes, addresses: list[str], ttl: int) -> list[bytes]:
    """Return one A or AAAA record per address, its owner as the bytes given."""
    records = []
    for address in addresses:
        version = ip_address(address).version
        data = A(address) if version == 4 else AAAA(address)
        records.append(_record(owner, QTYPE.A if version == 4 else QTYPE.AAAA, data, ttl))
    return records


def cname_record(owner: bytes, target: str, ttl: int) -> bytes:
    """Return a CNAME record to ``target``."""
    return _record(owner, QTYPE.CNAME, CNAME(target), ttl)


def ptr_record(owner: bytes, target: str, ttl: int) -> bytes:
    """Return a PTR record to ``target``."""
    return _record(owner, QTYPE.PTR, PTR(target), ttl)


def chaos_record(owner: bytes, text: str) -> bytes:
    """Return a TXT record of class CH with ``text``, at most 255 octets, not to be cached (RFC 4892)."""
    return _record(owner, QTYPE.TXT, TXT(text.encode()), 0, CLASS.CH)


def any_record(owner: bytes, ttl: int) -> bytes:
    """Return the HINFO record that stands for all types (RFC 8482 §4.2)."""
    return _record(owner, QTYPE.HINFO, RD(b"\x07RFC8482\x00"), ttl)


def soa_record(owner: bytes, serial: int, ttl: int) -> bytes:
    """Return the SOA that lets a NODATA response be cached for ``ttl`` seconds (RFC 2308 §3)."""
    return _record(owner, QTYPE.SOA, _soa(DNSLabel(b""), serial, ttl).rdata, ttl)


def _soa(owner: DNSLabel, serial: int, ttl: int) -> RR:
    times = (serial & 0xFFFFFFFF, 3600, 600, 86400, ttl)
    return RR(owner, QTYPE.SOA, rdata=SOA(MNAME, _RNAME, times), ttl=ttl)


def _record(owner: bytes, rtype: int, data: object, ttl: int, rclass: int = CLASS.IN) -> bytes:
    # dnslib packs a whole message; with the root as owner and nothing before it
    # to compress against, the record stands after the header and the owner's one octet.
    packed = DNSRecord(rr=None)
    packed.add_answer(RR(DNSLabel(b""), rtype=rtype, rclass=rclass, rdata=data, ttl=ttl))
    return owner + bytes(packed.pack())[13:]


def negative_soa(data: bytes) -> bytes | None:
    """Return the SOA record of an NXDOMAIN response, its names written out; None without one.

    Raises:
        WireError: dnslib cannot decode it, or it is longer than `MAX_DECODED`.
    """
    found: list[bytes] = []

    def look(record: DNSRecord) -> bool:
        for rr in record.auth:
            if rr.rtype == QTYPE.SOA:
                times = (*rr.rdata.times,)
                found.append(_whole_soa(_spelled(rr.rname), rr.ttl, rr.rdata.mname, rr.rdata.rname, times))
                break
        return False

    _rewritten(data, look)
    return found[0] if found else None


def _whole_soa(owner: bytes, ttl: int, mname: DNSLabel, rname: DNSLabel, times: tuple[int, ...]) -> bytes:
    # Not by `_record`: dnslib would compress the second name against the first, by an offset that is false.
    data = _spelled(mname) + _spelled(rname) + struct.pack(">5I", *times)
    return owner + struct.pack(">HHIH", QTYPE.SOA, CLASS.IN, ttl, len(data)) + data


def without_opt(data: bytes) -> bytes:
    """Return the message encoded again without its OPT, for one that has records after it.

    Raises:
        WireError: dnslib cannot decode it, or it is longer than `MAX_DECODED`.
    """

    def drop(record: DNSRecord) -> bool:
        record.ar = [rr for rr in record.ar if rr.rtype != QTYPE.OPT]
        return True

    return _rewritten(data, drop)


class Target(Protocol):
    """What is known of an owned name: its addresses, and the TTL to give them, in seconds."""

    addresses: tuple[str, ...]
    ttl: int


def with_owned_targets(data: bytes, find: Callable[[bytes], Target | None]) -> bytes:
    """Return the message with learned addresses at the end of its CNAME chain.

    ``find`` is given the key of each CNAME target and returns the owned name, if it
    is one. The chain is kept up to the first owned target; what the upstream said
    about that target is left out, its RCODE and its AD flag with it. A type that the
    target does not have is NODATA. Without an owned target in the chain, or where the
    question is for the CNAME itself, ``data`` is returned as it is.

    Raises:
        WireError: dnslib cannot decode the message, or it is longer than `MAX_DECODED`.
    """

    def rewrite(record: DNSRecord) -> bool:
        if record.q.qtype in _NOT_FOLLOWED:
            return False
        aliases = {_key(rr.rname): rr for rr in record.rr if rr.rtype == QTYPE.CNAME}
        chain: list[RR] = []
        at = _key(record.q.qname)
        while (step := aliases.pop(at, None)) is not None:
            chain.append(step)
            at = _key(step.rdata.label)
            target = find(at)
            if target is not None:
                owner = step.rdata.label
                found = [_address_rr(owner, target.ttl, address) for address in target.addresses]
                found = [rr for rr in found if rr.rtype == record.q.qtype]
                record.rr, record.ar = chain + found, []
                record.auth = [] if found else [_soa(owner, 1, target.ttl)]
                record.header.rcode = record.header.ad = 0
                return True
        return False

    return _rewritten(data, rewrite)


def addresses_in(data: bytes) -> tuple[list[str], int]:
    """Return the addresses in the answer section, whoever they are said to belong to, and their shortest TTL.

    Raises:
        WireError: dnslib cannot decode the message, or it is longer than `MAX_DECODED`.
    """
    found: list[str] = []
    ttls: list[int] = []

    def read(record: DNSRecord) -> bool:
        for rr in record.rr:
            if rr.rtype in {QTYPE.A, QTYPE.AAAA}:
                found.append(str(rr.rdata))
                ttls.append(rr.ttl)
        return False

    _rewritten(data, read)
    return found, min(ttls, default=0)


def _address_rr(owner: DNSLabel, ttl: int, address: str) -> RR:
    version = ip_address(address).version
    if version == 4:
        return RR(owner, QTYPE.A, rdata=A(address), ttl=ttl)
    return RR(owner, QTYPE.AAAA, rdata=AAAA(address), ttl=ttl)


def _key(label: DNSLabel) -> bytes:
    return _spelled(label).lower()


def _spelled(label: DNSLabel) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in label.label) + names.ROOT


def _rewritten(data: bytes, change: Callable[[DNSRecord], bool]) -> bytes:
    """Return the message after ``change``, which tells whether it changed anything."""
    if len(data) > MAX_DECODED:
        raise WireError(f"cannot decode: longer than {MAX_DECODED} octets")
    try:
        record = DNSRecord.parse(data)
        return bytes(record.pack()) if change(record) else data
    except Exception as exc:  # dnslib documents DNSError and raises others too
        raise WireError(f"cannot decode: {type(exc).__name__}") from exc
