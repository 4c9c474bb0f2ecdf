"""Read the records and names of a message from outside, without recursion and within bounds.

What a decision needs of an upstream's or a resolver's message is read here. dnslib only makes
messages: it follows every chain of compression pointers again for each name. Here the names of a
message share what is known of their ends, and reading all of them takes `MAX_STEPS` steps at most.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final, NamedTuple

from dnsproxy.core.names import MAX_LABEL, MAX_NAME, ROOT
from dnsproxy.core.wire import AAAA, COUNTS, HEADER, RECORD, SOA, A, MalformedError, skip_name
from dnsproxy.errors import WireError

# Compression pointers in one name: a name has 127 labels at most, and each may be followed by one.
MAX_POINTERS: Final = 127
# Labels and pointers followed in one message. A chain of 16 CNAMEs between names of 30 labels needs fewer,
# and so do 4 kB of addresses, each of another name that is written out.
MAX_STEPS: Final = 640
# Addresses that are read from one answer.
MAX_ADDRESSES: Final = 256
# Records of a denial; with DNSSEC there are ten.
_MAX_DENIAL: Final = 64
# Bytes of the data of an address record.
ADDRESS_LENGTHS: Final = {A: 4, AAAA: 16}
# Serial, refresh, retry, expire and minimum (RFC 1035 §3.3.13).
_SOA_NUMBERS: Final = 20


class Names:
    """The names of one message; ``steps`` counts the labels and pointers that were followed."""

    __slots__ = ("_data", "_known", "steps")

    def __init__(self, data: bytes) -> None:
        self._data = data
        # By offset: the name that starts there, and the pointers in it.
        self._known: dict[int, tuple[bytes, int]] = {}
        self.steps = 0

    def read(self, position: int) -> bytes:
        """Return the name at ``position``, written out and spelled as in the message.

        Raises:
            WireError: the name is too long, leaves the message, has a pointer that does not lead
                back or too many of them; or the names of the message need too many steps.
        """
        found = self._known.get(position)
        return (self._follow(position) if found is None else found)[0]

    def _follow(self, position: int) -> tuple[bytes, int]:
        known = self._known
        name = b""
        # Where the name starts and where its pointers lead, each with the length of what is before.
        parts = [(position, 0)]
        tail: tuple[bytes, int] | None = None
        try:
            while tail is None:
                labels, led = self._read_labels(position)
                name += labels
                if len(name) >= MAX_NAME or self.steps > MAX_STEPS:
                    raise _too_long()
                if led < 0:
                    tail = ROOT, 0
                elif len(parts) > MAX_POINTERS:
                    raise _too_long()
                else:
                    parts.append((led, len(name)))
                    tail = known.get(led)
                    position = led
        except IndexError as exc:
            raise WireError("a name that does not end inside the message") from exc
        name += tail[0]
        pointers = tail[1] + len(parts) - 1
        if len(name) > MAX_NAME or pointers > MAX_POINTERS:
            raise _too_long()
        for index, (start, before) in enumerate(parts):
            known[start] = name[before:], pointers - index
        return name, pointers

    def _read_labels(self, start: int) -> tuple[bytes, int]:
        """Return the labels from ``start`` on, and where the pointer behind them leads; -1 without one."""
        data = self._data
        position, steps = start, self.steps
        while 0 < (length := data[position]) <= MAX_LABEL and position - start < MAX_NAME:
            position += length + 1
            steps += 1
        self.steps = steps
        if not length:
            return data[start:position], -1
        if length < 0xC0:
            raise _too_long()
        led = (length & 0x3F) << 8 | data[position + 1]
        self.steps += 1
        # Each part starts before the last one, so the walk ends.
        if led >= start:
            raise WireError("a pointer that does not lead back")
        return data[start:position], led


def _too_long() -> WireError:
    return WireError("a label or name that is too long, or names with too many labels or pointers")


class Record(NamedTuple):
    """A record of a message: offsets of its owner and of its data, and what is between them."""

    owner: int
    rtype: int
    rclass: int
    ttl: int
    start: int
    end: int


def read_records(data: bytes, position: int, count: int) -> list[Record]:
    """Return ``count`` records from ``position`` on.

    Raises:
        WireError: one of them does not end inside the message.
    """
    found = []
    try:
        for _ in range(count):
            owner = position
            position = skip_name(data, position)
            rtype, rclass, ttl, length = RECORD.unpack_from(data, position)
            start = position + 10
            position = start + length
            # RFC 2181 §8
            found.append(Record(owner, rtype, rclass, 0 if ttl & 0x80000000 else ttl, start, position))
    except (IndexError, struct.error, MalformedError) as exc:
        raise WireError("a record that does not end inside the message") from exc
    if position > len(data):
        raise WireError("a record that does not end inside the message")
    return found


def negative_soa(data: bytes) -> bytes | None:
    """Return the SOA record of a response without answers, its names written out; None without one.

    Raises:
        WireError: it cannot be read.
    """
    _, questions, answers, authorities, additionals = COUNTS.unpack_from(data, 2)
    if questions != 1 or answers or authorities + additionals > _MAX_DENIAL:
        raise WireError("not a response without answers, or one of too many records")
    records = read_records(data, skip_question(data), authorities + additionals)
    soa = next((record for record in records[:authorities] if record.rtype == SOA), None)
    if soa is None:
        return None
    names = Names(data)
    names_end = soa.end - _SOA_NUMBERS
    try:
        responsible = skip_name(data, soa.start)
        is_whole = skip_name(data, responsible) == names_end
    except (IndexError, MalformedError):  # a name that leads out of the message, or is none
        is_whole = False
    if not is_whole:
        raise WireError("an SOA that is not as long as it says")
    rdata = names.read(soa.start) + names.read(responsible) + data[names_end : soa.end]
    return names.read(soa.owner) + RECORD.pack(SOA, soa.rclass, soa.ttl, len(rdata)) + rdata


def addresses_in(data: bytes) -> tuple[list[str], int]:
    """Return the addresses in the answer section, whatever their owners, and their shortest TTL.

    Raises:
        WireError: it cannot be read, or has more than `MAX_ADDRESSES`.
    """
    answers = COUNTS.unpack_from(data, 2)[2]
    found = [
        record
        for record in read_records(data, skip_question(data), answers)
        if ADDRESS_LENGTHS.get(record.rtype) == record.end - record.start
    ]
    if len(found) > MAX_ADDRESSES:
        raise WireError(f"more than {MAX_ADDRESSES} addresses")
    texts = [str(ip_address(data[record.start : record.end])) for record in found]
    return texts, min((record.ttl for record in found), default=0)


def skip_question(data: bytes) -> int:
    """Return the offset after the one question of a message.

    Raises:
        WireError: it does not end inside the message.
    """
    try:
        return skip_name(data, HEADER) + 4
    except (IndexError, MalformedError) as exc:
        raise WireError("a question that does not end inside the message") from exc
