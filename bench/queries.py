"""What the load asks: dnsperf's text files, and messages built here where text cannot say it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.names import OWNED, cached, unique

A, AAAA, OPT = 1, 28, 41
COOKIE = 10
_FLAGS_LIKE_DIG = 0x0120  # RD and AD
_HUNDRED = 100
MIX_OWNED = 10  # in a hundred
MIX_MISSES = 1


class Question(NamedTuple):
    """A name and a type."""

    name: str
    qtype: int = A


def shuffled(names: Iterable[str]) -> list[str]:
    """Return the names in an order without pattern that is the same in every run."""
    return sorted(names, key=lambda name: zlib.crc32(name.encode()))


def write_text(path: Path, names: Iterable[str]) -> Path:
    """Write dnsperf's text format: each name, type A."""
    path.write_text("".join(f"{name} A\n" for name in names))
    return path


def owned_names() -> list[str]:
    """Return the owned names often enough that dnsperf need not rewind its file all the time."""
    return [entry.name for entry in OWNED] * 100


def mix(count: int, run: str) -> Iterator[Question]:
    """Yield ``count`` questions: of 100, 1 miss of this ``run``, 10 owned, 89 cached; a quarter AAAA."""
    hosts = shuffled(cached())
    misses = iter(unique(count // _HUNDRED + 1, run))
    for number in range(count):
        place = number % _HUNDRED
        if place < MIX_MISSES:
            name = next(misses)
        elif place < MIX_MISSES + MIX_OWNED:
            name = OWNED[number % len(OWNED)].name
        else:
            name = hosts[zlib.crc32(number.to_bytes(8)) % len(hosts)]
        yield Question(name, AAAA if number % 4 == 3 else A)


def warm_mix() -> Iterator[Question]:
    """Yield every question of `mix` that a cache should know before."""
    for qtype in (A, AAAA):
        for name in shuffled(cached()):
            yield Question(name, qtype)


def encode_name(name: str) -> bytes:
    """Return the wire form of a name (RFC 1035 section 3.1)."""
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"


def message(question: Question, cookie: bytes | None, ident: int = 0) -> bytes:
    """Return a query as `dig` sends it; with ``cookie`` (8 bytes) it has an OPT record with that option."""
    header = struct.pack("!6H", ident, _FLAGS_LIKE_DIG, 1, 0, 0, cookie is not None)
    text = header + encode_name(question.name) + struct.pack("!2H", question.qtype, 1)
    if cookie is None:
        return text
    option = struct.pack("!2H", COOKIE, len(cookie)) + cookie
    return text + b"\0" + struct.pack("!2HIH", OPT, 1232, 0, len(option)) + option


def write_wire(path: Path, questions: Iterable[Question]) -> Path:
    """Write messages in TCP framing, as `dnsperf -B` reads them, each with a client cookie of its own."""
    with path.open("wb") as out:
        for question in questions:
            query = message(question, os.urandom(8))
            out.write(struct.pack("!H", len(query)) + query)
    return path
