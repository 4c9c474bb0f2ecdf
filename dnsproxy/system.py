"""The resolvers that the host itself uses: what ``system`` means in the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from dnsproxy.errors import StartError
from dnsproxy.settings.values import Endpoint

RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53


def system_resolvers(path: Path = RESOLV_CONF) -> list[Endpoint]:
    """Return the ``nameserver`` lines of ``path`` (resolv.conf(5)) in order, each address once.

    Addresses with a scope id (``fe80::1%eth0``) are passed over: they mean
    nothing without their interface. So is what is not an address.

    Raises:
        StartError: the file cannot be read, or names no usable resolver.
    """
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


def expand_resolvers(
    resolvers: Sequence[Endpoint | Literal["system"]], path: Path = RESOLV_CONF
) -> list[Endpoint]:
    """Return ``resolvers`` with ``system`` replaced by the host's own, each endpoint once.

    Raises:
        StartError: as `system_resolvers`, and only when ``system`` is asked for.
    """
    expanded: list[Endpoint] = []
    for resolver in resolvers:
        expanded += [resolver] if isinstance(resolver, Endpoint) else system_resolvers(path)
    return list(dict.fromkeys(expanded))
