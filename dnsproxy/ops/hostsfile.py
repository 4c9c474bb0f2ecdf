"""Read a hosts file (hosts(5)): plain text in, lines with addresses and names out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from dnsproxy.core import names
from dnsproxy.errors import DnsproxyError

HOSTS_FILE = Path("/etc/hosts")
# Octets. Ad-blocking lists of a million lines stay under it; a path that leads elsewhere is not read whole.
_MAX_OCTETS = 64 * 1024 * 1024
_NEWLINE = re.compile(r"\r\n|\n|\r")
# Of shells and templates: ${NAME}, $NAME, {{ name }}, %NAME%, <NAME>.
_VARIABLE = re.compile(r"\$|[{}<>]|%[A-Za-z_]+%")


class HostsFileError(DnsproxyError):
    """A hosts file cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class HostsLine:
    """One line that gives an address: ``number`` counts from 1, ``names`` are canonical."""

    number: int
    address: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnreadLine:
    """A line, or a name in it, that gives no address of a name; ``reason`` says why."""

    number: int
    text: str
    reason: str


def read_hosts(path: Path) -> list[HostsLine]:
    """Return the usable lines of the file at ``path``.

    Raises:
        HostsFileError: it cannot be read, or is not text of one byte per ASCII character nor marked UTF-16.
    """
    return list(parse_hosts(read_text(path)))


def read_text(path: Path) -> str:
    """Return the text of the file at ``path``, without a byte order mark; raises as `read_hosts`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_OCTETS + 1)
    except OSError as exc:
        raise HostsFileError(f"{path}: {exc.strerror or exc}") from exc
    if len(data) > _MAX_OCTETS:
        raise HostsFileError(f"{path}: longer than {_MAX_OCTETS >> 20} MiB")
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise HostsFileError(f"{path}:1: UTF-32; save it as UTF-8")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as exc:
            line = data[: exc.start].decode("utf-16", errors="replace").count("\n") + 1
            raise HostsFileError(
                f"{path}:{line}: not UTF-16, which the file begins as: {exc.reason}"
            ) from exc
    if b"\x00" in data:
        line = data.count(b"\n", 0, data.index(b"\x00")) + 1
        raise HostsFileError(f"{path}:{line}: a NUL byte; UTF-16 without byte order mark? save it as UTF-8")
    return data.decode("utf-8-sig", errors="replace")


def parse_hosts(text: str) -> Iterator[HostsLine]:
    """Yield each line with an address and a name; resolvers pass over all others, and so does this."""
    return (line for line in split_hosts(text) if isinstance(line, HostsLine))


def split_hosts(text: str) -> Iterator[HostsLine | UnreadLine]:
    """Yield what each line gives and what of it cannot be used; blank lines and comments give nothing.

    Lines end in LF, CRLF or CR.
    """
    for number, line in enumerate(_NEWLINE.split(text), start=1):
        written = line.partition("#")[0].strip()
        words = written.split()
        if not words:
            continue
        # glibc takes a scope id on link-local addresses; it is no part of the address.
        try:
            address = str(ip_address(words[0].partition("%")[0]))
        except ValueError:
            yield UnreadLine(number, written, _variable(words[0]) or f"{words[0]} is not an IP address")
            continue
        if len(words) == 1:
            yield UnreadLine(number, written, "no name")
            continue
        found: list[str] = []
        for word in words[1:]:
            try:
                reason = _variable(word)
                if reason is None:
                    found.append(names.canonical(word))
                    continue
            except ValueError as exc:
                reason = str(exc)
            yield UnreadLine(number, f"{words[0]} {word}", reason)
        if found:
            yield HostsLine(number, address, tuple(found))


def _variable(word: str) -> str | None:
    return f"{word} has a variable, which is replaced elsewhere" if _VARIABLE.search(word) else None
