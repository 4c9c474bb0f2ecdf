"""Restore the spelling of a question that was sent in random case (draft-vixie-dnsext-dns0x20)."""

from __future__ import annotations

from dnsproxy.core import wire
from dnsproxy.core.names import MAX_LABEL
from dnsproxy.core.rebuild import NAMES_IN
from dnsproxy.core.records import read_records
from dnsproxy.errors import WireError


def restored(data: bytes, asked: bytes, spelled: bytes) -> bytes:
    """Return the message ``data``, a response to ``asked``, as one to ``spelled``: only letters differ.

    Where a name in it has a label just as it was asked, that becomes the one of ``spelled``: owners, and
    names in data of types that are known. Other data is left as it is.

    Raises:
        WireError: a record does not end inside the message, though a label is there that must be restored.
    """
    end = wire.HEADER + len(spelled)
    data = data[: wire.HEADER] + spelled + data[end:]
    labels = _changed_labels(asked, spelled)
    if not any(data.find(label, end) >= 0 for label in labels):
        return data
    made = bytearray(data)
    _, _, *counts = wire.COUNTS.unpack_from(data, 2)
    for record in read_records(data, end, sum(counts)):
        _restore_name(made, record.owner, len(data), labels)
        before, count = NAMES_IN.get(record.rtype, (0, 0))
        at = record.start + before
        for _ in range(count):
            at = _restore_name(made, at, record.end, labels)
    return bytes(made)


def _changed_labels(asked: bytes, spelled: bytes) -> dict[bytes, bytes]:
    """Return the labels of ``asked``, with their lengths, that ``spelled`` has in another case, and these."""
    labels = {}
    at = 0
    while length := asked[at]:
        end = at + 1 + length
        if asked[at:end] != spelled[at:end]:
            labels[asked[at:end]] = spelled[at:end]
        at = end
    return labels


def _restore_name(made: bytearray, at: int, end: int, labels: dict[bytes, bytes]) -> int:
    """Restore the labels of the name at ``at``, up to a pointer; return where the name ends."""
    while at < end:
        length = made[at]
        if not length:
            return at + 1
        if length > MAX_LABEL:
            return at + 2
        after = at + 1 + length
        if after > end:
            break
        label = labels.get(bytes(made[at:after]))
        if label is not None:
            made[at:after] = label
        at = after
    raise WireError("a name that does not end inside its record")
