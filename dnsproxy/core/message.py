"""Build record data with dnslib, which only makes messages: it decodes none (see `records`)."""

from __future__ import annotations

import codecs
from ipaddress import ip_address

from dnslib import AAAA, CLASS, CNAME, PTR, QTYPE, RD, RR, SOA, TXT, A, DNSLabel, DNSRecord

# Owner "the question name": a pointer to offset 12, where the question always starts.
QUESTION_NAME = b"\xc0\x0c"
# Who the SOA of a NODATA response names. RFC 6761 keeps .invalid out of use. With the
# root as RNAME the two share no suffix that dnslib would compress by a false offset.
MNAME, _RNAME = "dnsproxy.invalid.", "."

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
