r"""Domain names as wire bytes.

A *wire name* is the uncompressed form of RFC 1035 §3.1, with its root label:
``b"\x03www\x07example\x00"``. A *key* is a wire name in lower case; names
are compared only as keys, so a dot inside a label can never be mistaken for a
separator (RFC 4343). ``bytes.lower`` is safe on wire names because a length
byte is at most 63 and ``A`` is 65.
"""

from __future__ import annotations

from collections.abc import Iterator

ROOT = b"\x00"
MAX_LABEL = 63
MAX_NAME = 255


def to_key(text: str) -> bytes:
    """Return the key of a presentation name; a trailing dot is optional.

    ``*`` labels are ordinary labels here. IDNs must already be A-labels.

    Raises:
        ValueError: the name is empty, not ASCII, or breaks a length limit
            (label 63, name 255 octets; RFC 1035 §2.3.4).
    """
    if text == ".":
        return ROOT
    trimmed = text.removesuffix(".")
    if not trimmed:
        raise ValueError("empty name")
    if not trimmed.isascii():
        raise ValueError(f"{text!r} is not ASCII; write the name in its xn-- form")
    wire = bytearray()
    for label in trimmed.split("."):
        if not 1 <= len(label) <= MAX_LABEL:
            raise ValueError(f"{text!r} has a label that is empty or longer than {MAX_LABEL} octets")
        if any(character <= " " or character == "\x7f" for character in label):
            raise ValueError(f"{text!r} has white space or a control character")
        wire.append(len(label))
        wire += label.lower().encode("ascii")
    wire.append(0)
    if len(wire) > MAX_NAME:
        raise ValueError(f"{text!r} is longer than {MAX_NAME} octets")
    return bytes(wire)


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
    return to_text(to_key(text))


def parents(key: bytes) -> Iterator[bytes]:
    """Yield the proper ancestors of ``key``, the nearest first, the root last."""
    position = 0
    while length := key[position]:
        position += 1 + length
        yield key[position:]


def is_below(key: bytes, ancestor: bytes) -> bool:
    """Tell whether ``key`` equals ``ancestor`` or lies below it."""
    return key == ancestor or any(parent == ancestor for parent in parents(key))
