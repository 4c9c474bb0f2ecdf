"""Reverse lookup: which owned names have an address, found by the name that a PTR query asks for.

An address is its family and its digits in hexadecimal, ``40a000001`` for 10.0.0.1, so that the names
above it (RFC 8020 §2: they exist too) are its prefixes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import islice
from typing import Final

_IN_ADDR: Final = [b"arpa", b"in-addr"]
_IP6: Final = [b"arpa", b"ip6"]
_V4_LABELS: Final = 4
_V6_LABELS: Final = 32
_NIBBLES: Final = frozenset(b"0123456789abcdef"[at : at + 1] for at in range(16))


def digits_of(address: str) -> str:
    """Return the digits of an address in canonical text."""
    if ":" in address:
        return "6" + ip_address(address).exploded.replace(":", "")
    first, second, third, fourth = map(int, address.split("."))
    return f"4{first:02x}{second:02x}{third:02x}{fourth:02x}"


def digits_of_key(key: bytes) -> str | None:
    """Return the digits that a name below ``in-addr.arpa`` or ``ip6.arpa`` has; None for another name."""
    labels: list[bytes] = []
    position = 0
    while length := key[position]:
        labels.append(key[position + 1 : position + 1 + length])
        position += length + 1
    labels.reverse()
    head, rest = labels[:2], labels[2:]
    if head == _IN_ADDR and len(rest) <= _V4_LABELS:
        found = [
            int(label) for label in rest if label.isdigit() and len(label) <= 3 and not _is_padded(label)
        ]
        if len(found) == len(rest) and all(number <= 255 for number in found):
            return "4" + "".join([f"{number:02x}" for number in found])
    elif head == _IP6 and len(rest) <= _V6_LABELS and _NIBBLES.issuperset(rest):
        return "6" + b"".join(rest).decode("ascii")
    return None


def _is_padded(label: bytes) -> bool:
    return len(label) > 1 and label[0] == 0x30


class ReverseIndex:
    """The names that have each address."""

    __slots__ = ("_addresses", "_names")

    def __init__(self) -> None:
        # Nearly every address has one name.
        self._names: dict[str, str | dict[str, None]] = {}
        self._addresses: list[str] = []

    def copy(self) -> ReverseIndex:
        """Return one with the same content, also while another thread changes this one."""
        other = ReverseIndex()
        held = dict(self._names)
        other._names = {key: name if isinstance(name, str) else dict(name) for key, name in held.items()}
        other._addresses = sorted(other._names)
        return other

    def replace(self, name: str, before: Iterable[str], after: Iterable[str]) -> None:
        """Let ``name`` have the addresses ``after`` in place of those ``before``."""
        gone, come = set(before), set(after)
        for address in gone - come:
            self._remove(name, digits_of(address))
        for address in come - gone:
            self._add(name, digits_of(address))

    def _add(self, name: str, digits: str) -> None:
        held = self._names.get(digits)
        if held is None:
            insort(self._addresses, digits)
            self._names[digits] = name
        elif isinstance(held, dict):
            held[name] = None
        elif held != name:
            self._names[digits] = {held: None, name: None}

    def _remove(self, name: str, digits: str) -> None:
        held = self._names.get(digits)
        if isinstance(held, dict):
            held.pop(name, None)
        if held in (name, {}):
            del self._names[digits]
            del self._addresses[bisect_left(self._addresses, digits)]

    def find(self, digits: str, most: int) -> list[str]:
        """Return the names that have the address, at most ``most``."""
        held = self._names.get(digits, {})
        return [held] if isinstance(held, str) else list(islice(held, most))

    def exists(self, digits: str) -> bool:
        """Tell whether an address has these digits, or begins with them."""
        at = bisect_left(self._addresses, digits)
        return at < len(self._addresses) and self._addresses[at].startswith(digits)
