"""Inputs that are expensive by construction, for messages of up to a given number of bytes."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

from dnsproxy.core.response import MAX_CNAMES, MAX_RECORDS

QUESTION = b"\3www\7example\0\0\1\0\1"
START = 12 + len(QUESTION)
SHORTEST = b"\0"
TO_QUESTION = b"\xc0\x0c"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0"
# As many labels as a name has.
LABELS = b"\1a" * 127 + b"\0"


def record(owner: bytes, rtype: int, data: bytes = b"", ttl: int = 1) -> bytes:
    return owner + struct.pack(">HHIH", rtype, 1, ttl, len(data)) + data


def records(room: int, owner: bytes, data: bytes = b"", ttl: int = 1, rtype: int = 65) -> tuple[int, bytes]:
    """As many records as there is room for, each with another TTL, and their number.

    HTTPS may have data of any length, and its owner is compared with those of learned names.
    """
    count = min(room // (len(owner) + 10 + len(data)), MAX_RECORDS)
    return count, b"".join(record(owner, rtype, data, ttl + n) for n in range(count))


def message(flags: int, counts: tuple[int, int, int], body: bytes, question: bytes = QUESTION) -> bytes:
    return struct.pack(">HHHHHH", 7, flags, 1, *counts) + question + body


def options(room: int, code: bytes = b"\0\x0b", most: int = 65_535) -> bytes:
    count = min((room - 11) // 4, most)
    return OPT + struct.pack(">H", 4 * count) + (code + b"\0\0") * count


def pointer(to: int) -> bytes:
    return struct.pack(">H", 0xC000 | to & 0x3FFF)


def queries(limit: int) -> Iterator[bytes]:
    room = limit - START
    count, body = records(room, SHORTEST)
    yield message(0x100, (0, 0, count), body)
    yield message(0x100, (0, 0, 1), options(room))
    yield message(0x100, (0, 0, 1), options(room, most=100))
    yield message(0x100, (0, 0, 1), options(room, b"\0\x0c", 100))
    count, body = records(room - 11 - 400, SHORTEST)
    yield message(0x100, (0, 0, count + 1), options(411, most=100) + body)
    count, body = records(room, LABELS)
    yield message(0x100, (0, count, 0), body)
    yield message(0x100, (0, 0, 0), b"", LABELS[2:] + b"\0\1\0\1")
    yield message(0x100, (0, 0, 0), b"", b"\1a" * (room // 2))
    for name in (b"\5fresh", b"\5stale", b"\3own"):
        for opt in (b"", OPT + b"\0\0", options(60)):
            yield message(0x100, (0, 0, 1 if opt else 0), opt, name + QUESTION[4:])
    below = (b"\1a" * 120 + b"\3own\7example\0")[-255:]
    yield message(0x100, (0, 0, 0), b"", below + b"\0\1\0\1")
    for flags in (0x0800, 0x2800, 0x0000):
        yield message(flags, (0, 0, count), body)


def replies(limit: int) -> Iterator[bytes]:
    room = limit - START
    for owner, data in ((SHORTEST, b""), (TO_QUESTION, b""), (TO_QUESTION, b"\1\2\3\4"), (LABELS, b"")):
        for ttl in (1, 80_000, 0x7FFF0000):
            count, body = records(room, owner, data, ttl)
            yield message(0x8180, (count, 0, 0), body)
        yield message(0x8180, (0, count, 0), body)
        yield message(0x8182, (0, 0, count), body)
        count, body = records(room - 11, owner, data)
        yield message(0x8180, (1, 0, count), body + OPT + b"\0\0")
        yield message(0x8180, (0, 0, count + 1), OPT + b"\0\0" + body)
        yield message(0x8182, (0, 0, count + 1), OPT + b"\0\0" + body)
    for code in (b"\0\x0f", b"\0\x0b"):
        yield message(0x8182, (0, 0, 1), options(room, code))
        yield message(0x8180, (0, 0, 1), options(room, code))
    soa = record(SHORTEST, 6, b"\0\0" + bytes(20))
    yield message(0x8183, (0, 40, 0), soa * 40)
    # Addresses whose owners each start at another label of one name.
    holder = record(SHORTEST, 16, LABELS)
    count = (room - len(holder)) // 16
    addresses = [record(pointer(START + 11 + 2 * (n % 127)), 1, b"\1\2\3\4", n) for n in range(count)]
    yield message(0x8180, (count + 1, 0, 0), holder + b"".join(addresses))
    yield from chains(limit)


def chains(limit: int) -> Iterator[bytes]:
    room = limit - START
    for owner, data in ((TO_QUESTION, TO_QUESTION), (SHORTEST, SHORTEST), (LABELS, LABELS)):
        count, body = records(room, owner, data, rtype=5)
        yield message(0x8180, (count, 0, 0), body)
        count = min(MAX_CNAMES, count)
        yield message(0x8180, (count, 0, 0), record(owner, 5, data) * count)
    yield _linked(limit, b"\3own\7example\0", written_out=True)
    yield _linked(limit, b"\3own\7example\0", written_out=False)
    yield _pointing(limit)
    yield _staggered(limit)


def _linked(limit: int, end: bytes, *, written_out: bool) -> bytes:
    """A chain of 16 CNAMEs between long names that leads to an owned name."""
    body, owner = b"", TO_QUESTION
    count = min(MAX_CNAMES, (limit - START) // (2 * 255 + 10 if written_out else 267))
    for link in range(count):
        target = (b"\1%c" % (97 + link) + b"\1a" * 119)[:240] + end if link < count - 1 else end
        at = START + len(body) + len(owner) + 10
        body += record(owner, 5, target)
        owner = target if written_out else pointer(at)
    return message(0x8180, (count, 0, 0), body)


def _pointing(limit: int) -> bytes:
    """A chain of pointers, and CNAMEs that start at its end."""
    count = min((limit - START - 16 * 14 - 12) // 2, 127 if limit < 4_000 else 8_000)
    start = START + 11
    hops = b"\0" + b"".join(pointer(start if n == 0 else start + 1 + 2 * (n - 1)) for n in range(count))
    last = start + 1 + 2 * (count - 1)
    links = [record(TO_QUESTION, 5, pointer(last - 2 * n)) for n in range(16)]
    return message(0x8180, (17, 0, 0), record(SHORTEST, 16, hops) + b"".join(links))


def _staggered(limit: int) -> bytes:
    """CNAMEs whose owners and targets each start at another label of one name."""
    holder = record(SHORTEST, 16, LABELS)
    count = min(16, (limit - START - len(holder)) // 14)
    links = [record(TO_QUESTION, 5, pointer(START + 11))]
    links += [
        record(pointer(START + 11 + 2 * n), 5, pointer(START + 11 + 2 * (n + 1))) for n in range(count - 1)
    ]
    return message(0x8180, (1 + len(links), 0, 0), holder + b"".join(links))


def https(limit: int) -> Iterator[bytes]:
    for asked in queries(min(limit - 60, 65_535)):
        yield b"POST\0/dns-query\0application/dns-message\0" + asked
    for asked in queries(5_900):
        yield b"GET\0/dns-query?dns=" + base64.urlsafe_b64encode(asked).rstrip(b"=") + b"\0\0"
    yield b"GET\0/dns-query?" + b"&".join([b"dns=%41"] * 16) + b"\0\0"
    yield b"GET\0/dns-query?dns=" + b"%41" * 2_700 + b"\0\0"
    for reply in replies(limit - 12):
        yield b"R60\0" + reply


def challenges(limit: int) -> Iterator[bytes]:
    bearer = (
        b'Bearer realm="https://dockerauth.cn-hangzhou.aliyuncs.com/auth",service="registry.aliyuncs.com:cn"'
    )
    yield bearer
    for start, piece, end in (
        (b"", b"a, ", b""),
        (b"a ", b'b="c",', b'd="e"'),
        (b"a ", b"b=", b""),
        (b"", b"a=b,", b""),
        (b"", b", ", b"a"),
        (b"", b"a ", b""),
        (b'Bearer realm="', b"\\a", b'"'),
        (b'Bearer realm="', b"a", b""),
        (b'Bearer realm="https://', b"a.", b'aliyuncs.com/"'),
        (b'Bearer realm="https://', b"xn--a.", b'aliyuncs.com/"'),
        (b"a ", b"b", b"="),
        (b"a", b" ", b"b"),
        (b"a b", b" ", b"= c"),
        (b"Bearer service=", b"registry.aliyuncs.com:", b""),
    ):
        yield start + piece * ((limit - len(start) - len(end)) // len(piece)) + end
    names = b",".join(b"p%d=v" % n for n in range(1_000))
    yield (b"Bearer " + names)[:limit].rpartition(b",")[0]


def tokens(limit: int) -> Iterator[bytes]:
    def encoded(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    room = limit * 3 // 4 - 100
    for header in (
        b"[" * 3_000,
        b"[" * room,
        b'{"kid":"' + b"a" * room + b'"}',
        b'{"kid":"' + b"\\u0061" * (room // 6) + b'"}',
        b'{"kid":' + b"9" * room + b"}",
        b"{" + b",".join(b'"%d":1' % n for n in range(room // 12)) + b"}",
    ):
        yield encoded(header) + b".e30." + b"A" * 86
    yield b"." * limit
    yield b"e30.e30." + b"A" * (limit - 8)
