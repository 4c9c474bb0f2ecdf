"""How this host resolves names: resolv.conf(5) and nsswitch.conf(5), as text and as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from dnsproxy.settings.values import Endpoint

DNS_PORT = 53
# glibc and musl read no more than three nameserver lines.
MAX_NAMESERVERS = 3
_ACTION = re.compile(r"\[([^\]]*)\]")
_DNS_SERVICES = frozenset({"dns", "resolve"})
# What the C library does without the file, or without a `hosts:` line in it.
DEFAULT_SERVICES = ("dns", "files")


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """``nameservers`` in order; ``ignored`` are the lines after the third, or that are no address."""

    nameservers: tuple[Endpoint, ...]
    ignored: tuple[str, ...]
    rotate: bool


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read the text of resolv.conf. Without a nameserver line the library asks 127.0.0.1."""
    found: list[Endpoint] = []
    ignored: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "options":
            options += words[1:]
        if len(words) < 2 or words[0] != "nameserver":
            continue
        server = _server(words[1])
        if server is None or len(found) == MAX_NAMESERVERS:
            ignored.append(words[1])
        elif server not in found:
            found.append(server)
    servers = tuple(found) or (Endpoint("127.0.0.1", DNS_PORT),)
    return ResolvConf(servers, tuple(ignored), rotate="rotate" in options)


def _server(word: str) -> Endpoint | None:
    try:
        # With its scope id: `fe80::1%eth0` is usable on this very host.
        return Endpoint(str(ip_address(word)), DNS_PORT)
    except ValueError:
        return None


def parse_nsswitch(text: str) -> tuple[str, ...]:
    """Return the services and ``[actions]`` of the ``hosts:`` line, in order; the default without one."""
    for line in text.splitlines():
        database, colon, rest = line.partition("#")[0].partition(":")
        if colon and database.strip() == "hosts":
            spaced = _ACTION.sub(lambda match: f" [{','.join(match[1].split())}] ", rest)
            return tuple(spaced.split())
    return DEFAULT_SERVICES


def dns_is_reached(services: tuple[str, ...]) -> str | None:
    """Return why a lookup never comes to DNS with these services; None when it does."""
    before: list[str] = []
    for service in services:
        if service in _DNS_SERVICES:
            return None
        # mdns*_minimal is only authoritative for .local, so its NOTFOUND stops nothing else.
        if _stops(service) and before and not before[-1].endswith("_minimal"):
            return f"{before[-1]} {service} ends the lookup before dns"
        if not service.startswith("["):
            before.append(service)
    return "neither dns nor resolve is in the hosts line"


def _stops(action: str) -> bool:
    text = action.lower()
    return text.startswith("[") and "notfound=return" in text and "!notfound=return" not in text
