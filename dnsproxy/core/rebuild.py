"""Put a response together again from some of its records, or behind aliases that another answer gave.

Names may point into what is left out, so those of the kept records are written out; an owner that has been
written already is a pointer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from dnsproxy.core import wire
from dnsproxy.core.cname import ALIAS, Link
from dnsproxy.core.records import Names, Record, read_records, skip_question
from dnsproxy.errors import WireError

# Records of a response that is put together again; one with more is not used.
MAX_REBUILT: Final = 1024
# Types whose data may have compressed names (RFC 1035 §3.3, RFC 3597 §4): bytes before the names, and names.
NAMES_IN: Final[dict[int, tuple[int, int]]] = {
    wire.NS: (0, 1),
    3: (0, 1),
    4: (0, 1),
    wire.CNAME: (0, 1),
    wire.SOA: (0, 2),
    7: (0, 1),
    8: (0, 1),
    9: (0, 1),
    12: (0, 1),
    14: (0, 2),
    15: (2, 1),
    17: (0, 2),
    18: (2, 1),
    21: (2, 1),
    24: (18, 1),
    26: (2, 2),
    30: (0, 1),
    33: (6, 1),
    36: (2, 1),
    39: (0, 1),
}
SERVICES: Final = frozenset({wire.SVCB, wire.HTTPS})
# Parameters of these (RFC 9460 §14.3.2): those that must be understood, and addresses of the target.
_MANDATORY: Final = 0
_HINTS: Final = frozenset({4, 6})
_LARGEST_OFFSET: Final = 0x3FFF
_PARAMETER: Final = struct.Struct(">HH")
# Type, class, TTL and length.
_FIXED: Final = 10


def rebuilt(data: bytes, question: bytes, links: list[Link], leaves_out: Callable[[bytes], bool]) -> bytes:
    """Return a message with ``question``, aliases for ``links`` and the records of ``data``, without its OPT.

    ``leaves_out`` is given the key of the owner of each record, and of the target of HTTPS and SVCB records,
    which lose the addresses of such a target. The AD flag is left out with them.

    Raises:
        WireError: there are more records than `MAX_REBUILT`, a name cannot be read, or it is too large.
    """
    flags, _, *counts = wire.COUNTS.unpack_from(data, 2)
    if sum(counts) > MAX_REBUILT:
        raise WireError(f"more than {MAX_REBUILT} records")
    names = Names(data)
    records = read_records(data, skip_question(data), sum(counts))
    made = bytearray(question)
    owners = {question[:-4]: wire.HEADER}
    name = question[:-4]
    for ttl, target in links:
        made += _owner(owners, name, len(made)) + ALIAS + ttl + len(target).to_bytes(2, "big")
        owners.setdefault(target, wire.HEADER + len(made))
        made += target
        name = target
    left_out: dict[bytes, bool] = {}
    kept = [len(links), 0, 0]
    index = 0
    for section, count in enumerate(counts):
        for record in records[index : index + count]:
            owner = names.read(record.owner)
            is_left_out = left_out.get(owner)
            if is_left_out is None:
                is_left_out = left_out[owner] = leaves_out(owner.lower())
            if is_left_out or record.rtype == wire.OPT:
                continue
            kept[section] += 1
            made += _owner(owners, owner, len(made))
            if record.rtype in SERVICES:
                rdata = _without_hints(data, names, record, leaves_out)
                made += wire.RECORD.pack(record.rtype, record.rclass, record.ttl, len(rdata)) + rdata
            elif record.rtype in NAMES_IN:
                rdata = _data_of(data, names, record)
                made += wire.RECORD.pack(record.rtype, record.rclass, record.ttl, len(rdata)) + rdata
            else:
                made += data[record.start - _FIXED : record.end]
        index += count
    if wire.HEADER + len(made) > wire.TCP_LIMIT:
        raise WireError("too large with its names written out")
    return data[:2] + wire.COUNTS.pack(flags & ~wire.AD, 1, *kept) + bytes(made)


def _owner(owners: dict[bytes, int], name: bytes, at: int) -> bytes:
    """Return ``name`` for a record ``at`` bytes behind the header, as a pointer if it has been written."""
    held = owners.get(name)
    if held is not None and held <= _LARGEST_OFFSET:
        return (0xC000 | held).to_bytes(2, "big")
    owners[name] = wire.HEADER + at
    return name


def _data_of(data: bytes, names: Names, record: Record) -> bytes:
    before, count = NAMES_IN[record.rtype]
    at = record.start + before
    made = data[record.start : at]
    for _ in range(count):
        if at >= record.end:
            raise WireError("a name that does not end inside its record")
        made += names.read(at)
        at = wire.skip_name(data, at)
    if at > record.end:
        raise WireError("a name that does not end inside its record")
    return made + data[at : record.end]


def _without_hints(data: bytes, names: Names, record: Record, leaves_out: Callable[[bytes], bool]) -> bytes:
    """Return the data of an HTTPS or SVCB record, without addresses of a target that is left out."""
    target = names.read(record.start + 2)
    at = wire.skip_name(data, record.start + 2)
    made = [data[record.start : record.start + 2], target]
    if not leaves_out(target.lower()):
        made.append(data[at : record.end])
        at = record.end
    while at < record.end:
        key, length = _PARAMETER.unpack(data[at : min(at + 4, record.end)].ljust(4, b"\xff"))
        value = data[at + 4 : at + 4 + length]
        at += 4 + length
        if key == _MANDATORY:
            keys = [value[place : place + 2] for place in range(0, length, 2)]
            value = b"".join([each for each in keys if int.from_bytes(each, "big") not in _HINTS])
        if key not in _HINTS and (value or key != _MANDATORY):
            made.append(_PARAMETER.pack(key, len(value)) + value)
    if at != record.end:
        raise WireError("a parameter that does not end inside its record")
    return b"".join(made)
