"""Rotate the addresses of a cached answer, without decoding it.

Records of one address RRset have the same length when each owner is a compression pointer, so another order
of them leaves every other byte of the message where it is, the TTLs included.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dnsproxy.core.cache import Entry
from dnsproxy.core.wire import AAAA, A

# Records that take part, from the last one back: a longer set is not worth more.
MAX_ROTATED: Final = 64
# Bytes behind the records that are searched for pointers to them; more, and the order stays.
_MAX_BEHIND: Final = 512
# Pointer, type and class before the TTL of a record; TTL and length after them.
_BEFORE_TTL: Final = 6
_TO_LENGTH: Final = 4
_FIXED: Final = 12


class Rotation(NamedTuple):
    """``records`` records of ``size`` bytes from ``start`` on."""

    start: int
    size: int
    records: int

    def moved(self, by: int) -> Rotation:
        """Return this rotation for a message in which everything is ``by`` bytes later."""
        return Rotation(self.start + by, self.size, self.records)


def find_rotation(entry: Entry, question_end: int) -> Rotation | None:
    """Return the address records of ``entry`` whose order may change, by offsets in its sections.

    None where there is one record only, or something behind them may point to them.
    """
    sections, offsets = entry.sections, entry.ttl_offsets
    last = entry.counts[0] - 1
    while last > 0 and not _is_address(sections, offsets[last]):
        last -= 1
    if last <= 0:
        return None
    first_at = at = offsets[last]
    size = _FIXED + (sections[at + _TO_LENGTH] << 8 | sections[at + _TO_LENGTH + 1])
    head = sections[at - _BEFORE_TTL : at]
    count = 1
    while count < MAX_ROTATED and count <= last:
        at = offsets[last - count]
        if at != first_at - size or sections[at - _BEFORE_TTL : at] != head:
            break
        first_at = at
        count += 1
    start = first_at - _BEFORE_TTL
    end = start + size * count
    if count < 2 or _is_pointed_to(sections, end, question_end + start, question_end + end):
        return None
    return Rotation(start, size, count)


def _is_address(sections: bytes, at: int) -> bool:
    """Return whether the record with its TTL at ``at`` is an address and its owner a pointer."""
    if at < _BEFORE_TTL or sections[at - _BEFORE_TTL] < 0xC0:
        return False
    rtype = sections[at - 4] << 8 | sections[at - 3]
    return rtype == A or rtype == AAAA  # noqa: PLR1714 - a set is made for each `in`


def _is_pointed_to(sections: bytes, behind: int, low: int, high: int) -> bool:
    """Return whether two bytes from ``behind`` on look like a pointer to ``low`` up to ``high``."""
    end = len(sections)
    if end - behind > _MAX_BEHIND:
        return True
    for at in range(behind, end - 1):
        if sections[at] >= 0xC0 and low <= ((sections[at] & 0x3F) << 8 | sections[at + 1]) < high:
            return True
    return False


def rotated(data: bytes, rotation: Rotation, by: int) -> bytes:
    """Return ``data`` with the records of ``rotation`` in an order that starts with number ``by``."""
    start, size, count = rotation
    cut = start + size * (by % count)
    end = start + size * count
    return data[:start] + data[cut:end] + data[start:cut] + data[end:]
