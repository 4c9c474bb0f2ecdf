"""The host: the resolvers that ``system`` means in the configuration, its addresses, its limits."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from dnsproxy.errors import StartError
from dnsproxy.settings.values import Endpoint

RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53


# Seconds between two reads of resolv.conf where the configuration says ``system``.
FOLLOW_SECONDS = 2.0


def system_resolvers(path: Path | None = None) -> list[Endpoint]:
    """Return the ``nameserver`` lines of ``path`` (resolv.conf(5)) in order, each address once.

    Addresses with a scope id (``fe80::1%eth0``) are passed over: they mean
    nothing without their interface. So is what is not an address.

    Raises:
        StartError: the file cannot be read, or names no usable resolver.
    """
    path = path or RESOLV_CONF
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror or exc}") from exc
    found = dict.fromkeys(filter(None, map(_nameserver, text.splitlines())))
    if not found:
        raise StartError(f"{path}: no usable nameserver line; name the resolvers in place of 'system'")
    return list(found)


def _nameserver(line: str) -> Endpoint | None:
    words = line.split()
    # resolv.conf(5): the keyword starts the line; what follows the address is not read.
    if len(words) < 2 or words[0] != "nameserver" or "%" in words[1]:
        return None
    try:
        return Endpoint(str(ip_address(words[1])), DNS_PORT)
    except ValueError:
        return None


class ResolvConf:
    """Follows resolv.conf: reports other nameservers once two reads in a row have found the same ones.

    A file that cannot be read, or names no server, changes nothing; ``failure`` is the reason of the last
    read then, else None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = RESOLV_CONF if path is None else path
        self.failure: str | None = None
        self._in_force = self._seen = self._read()

    def poll(self) -> list[Endpoint] | None:
        """Read the file; return its nameservers if they are not in force and no longer change."""
        before, self._seen = self._seen, self._read()
        is_settled = self._seen is not None and self._seen == before
        return self._seen if is_settled and self._seen != self._in_force else None

    def differs(self) -> bool:
        """Return whether the file names other servers than those in force; False if it cannot be read."""
        found = self._read()
        return found is not None and found != self._in_force

    def take(self) -> None:
        """Record that the nameservers that are in the file now are in force."""
        self._in_force = self._seen = self._read()

    def _read(self) -> list[Endpoint] | None:
        try:
            found = system_resolvers(self.path)
        except StartError as exc:
            self.failure = str(exc)
            return None
        self.failure = None
        return found


def expand_resolvers(
    resolvers: Sequence[Endpoint | Literal["system"]], path: Path | None = None
) -> list[Endpoint]:
    """Return ``resolvers`` with ``system`` replaced by the host's own, each endpoint once.

    Raises:
        StartError: as `system_resolvers`, and only when ``system`` is asked for.
    """
    expanded: list[Endpoint] = []
    for resolver in resolvers:
        expanded += [resolver] if isinstance(resolver, Endpoint) else system_resolvers(path)
    return list(dict.fromkeys(expanded))


def is_own(endpoint: Endpoint, listens: Iterable[Endpoint]) -> bool:
    """Tell whether what is sent to ``endpoint`` comes to one of ``listens``, addresses of this program."""
    return any(
        endpoint.port == listen.port
        and (endpoint.host == listen.host or (_is_any(listen.host) and _is_local(endpoint.host)))
        for listen in listens
    )


def _is_any(host: str) -> bool:
    return ip_address(host).is_unspecified


def _is_local(host: str) -> bool:
    """Tell whether ``host`` is an address of this host: its packets to there would come from there."""
    try:
        address = ip_address(host)
    except ValueError:
        return False  # a name; nothing is resolved for this
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # Nothing is sent; the kernel only chooses a source.
            sock.connect((host, DNS_PORT))
            return bool(ip_address(sock.getsockname()[0]) == address)
    except OSError:
        return False


def raise_file_limit() -> int:
    """Let this process open as many files as it may, the hard limit of getrlimit(2); return how many.

    The usual soft limit is 1024, for programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a kernel that grants less than it says (fs.nr_open)
            return soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard
