r"""Domain names as wire bytes.

A *wire name* is the uncompressed form of RFC 1035 §3.1, with its root label:
``b"\x03www\x07example\x00"``. A *key* is a wire name in lower case; names
are compared only as keys, so a dot inside a label can never be mistaken for a
separator (RFC 4343). ``bytes.lower`` is safe on wire names because a length
byte is at most 63 and ``A`` is 65.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

ROOT: Final = b"\x00"
MAX_LABEL: Final = 63
MAX_NAME: Final = 255
# One octet of a label in presentation form (RFC 1035 §5.1), for text that is ASCII.
_OCTET = re.compile(r"\\(?P<decimal>[0-9]{3})|\\(?P<quoted>[^0-9])|(?P<plain>[!-\[\]-~])", re.DOTALL)


# Names without escapes, which nearly all are: read as a whole, not byte by byte.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_*-]{1,63}\.)*[A-Za-z0-9_*-]{1,63}\.?")
_LENGTHS = [bytes((length,)) for length in range(MAX_LABEL + 1)]


def to_key(text: str) -> bytes:
    """Return the key of a presentation name; a trailing dot is optional.

    The inverse of `to_text`. ``*`` labels are ordinary labels here. IDNs must
    already be A-labels.

    Raises:
        ValueError: the name is empty, not ASCII, has a bare space or a broken
            escape, or breaks a length limit (label 63, name 255 octets;
            RFC 1035 §2.3.4).
    """
    if len(text) < MAX_NAME - 1 and _PLAIN.fullmatch(text):
        labels = text.lower().removesuffix(".").encode().split(b".")
        return b"".join([_LENGTHS[len(label)] + label for label in labels]) + b"\x00"
    if text == ".":
        return ROOT
    if not text:
        raise ValueError("empty name")
    if not text.isascii():
        raise ValueError(f"{text!r} is not ASCII; write the name in its xn-- form")
    wire = bytearray()
    for label in _labels(text):
        if not 1 <= len(label) <= MAX_LABEL:
            raise ValueError(f"{text!r} has a label that is empty or longer than {MAX_LABEL} octets")
        wire.append(len(label))
        wire += label.lower()
    wire.append(0)
    if len(wire) > MAX_NAME:
        raise ValueError(f"{text!r} is longer than {MAX_NAME} octets")
    return bytes(wire)


def _labels(text: str) -> Iterator[bytes]:
    label = bytearray()
    position = 0
    while position < len(text):
        if text[position] == ".":
            yield bytes(label)
            label.clear()
            position += 1
            continue
        match = _OCTET.match(text, position)
        octet = _octet(match) if match else None
        if match is None or octet is None:
            raise ValueError(f"{text!r} has white space, a control character or a broken escape")
        label.append(octet)
        position = match.end()
    if label:
        yield bytes(label)


def _octet(match: re.Match[str]) -> int | None:
    if match["decimal"]:
        value = int(match["decimal"])
        return value if value <= 255 else None
    return ord(match["quoted"] or match["plain"])


def to_text(wire: bytes) -> str:
    """Return the presentation form with a trailing dot (RFC 1035 §5.1 escapes).

    ``wire`` must be a whole uncompressed name.
    """
    if wire == ROOT:
        return "."
    labels = []
    position = 0
    while length := wire[position]:
        label = wire[position + 1 : position + 1 + length]
        labels.append("".join(_escape(octet) for octet in label))
        position += 1 + length
    return ".".join(labels) + "."


def _escape(octet: int) -> str:
    character = chr(octet)
    if character in '.\\"();@$':
        return "\\" + character
    return character if 0x21 <= octet <= 0x7E else f"\\{octet:03d}"


def canonical(text: str) -> str:
    """Return ``text`` in lower case with a trailing dot.

    Raises:
        ValueError: as `to_key`.
    """
    if len(text) < MAX_NAME - 1 and _PLAIN.fullmatch(text):
        return text.lower() if text.endswith(".") else f"{text.lower()}."
    return to_text(to_key(text))


def parents(key: bytes) -> Iterator[bytes]:
    """Yield the proper ancestors of ``key``, the nearest first, the root last."""
    position = 0
    while length := key[position]:
        position += 1 + length
        yield key[position:]


def parent(key: bytes) -> bytes:
    """Return the name above ``key``; the root for the root."""
    return key[key[0] + 1 :] or ROOT


def is_below(key: bytes, ancestor: bytes) -> bool:
    """Tell whether ``key`` equals ``ancestor`` or lies below it."""
    return key == ancestor or any(parent == ancestor for parent in parents(key))
