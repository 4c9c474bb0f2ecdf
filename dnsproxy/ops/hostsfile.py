"""Read a hosts file (hosts(5)): plain text in, lines with addresses and names out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from dnsproxy.core import names
from dnsproxy.errors import DnsproxyError

HOSTS_FILE = Path("/etc/hosts")
# Octets. Ad-blocking lists of a million lines stay under it; a path that leads elsewhere is not read whole.
_MAX_OCTETS = 64 * 1024 * 1024


class HostsFileError(DnsproxyError):
    """A hosts file cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class HostsLine:
    """One line that gives an address: ``number`` counts from 1, ``names`` are canonical."""

    number: int
    address: str
    names: tuple[str, ...]


def read_hosts(path: Path) -> list[HostsLine]:
    """Return the usable lines of the file at ``path``.

    Raises:
        HostsFileError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(parse_hosts(file.read(_MAX_OCTETS)))
    except OSError as exc:
        raise HostsFileError(f"{path}: {exc.strerror or exc}") from exc


def parse_hosts(text: str) -> Iterator[HostsLine]:
    """Yield each line with an address and a name; resolvers pass over all others, and so does this."""
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        # glibc takes a scope id on link-local addresses; it is no part of the address.
        try:
            address = str(ip_address(words[0].partition("%")[0]))
        except ValueError:
            continue
        found = tuple(name for word in words[1:] if (name := _canonical(word)) is not None)
        if found:
            yield HostsLine(number, address, found)


def _canonical(word: str) -> str | None:
    try:
        return names.canonical(word)
    except ValueError:
        return None
