"""c-ares as a program: a line for each name, with its addresses or, behind a ``!``, the number of the error.

Usage: python cares_lookup.py any|4|6 NAME...
"""
# ruff: noqa: T201

from __future__ import annotations

import socket
import sys

import pycares

FAMILIES = {"any": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}


def look(channel: pycares.Channel, family: str, name: str) -> str:
    """Return the line of one name."""
    told: list[tuple[pycares.AddrInfoResult | None, int | None]] = []
    channel.getaddrinfo(
        name,
        None,
        family=FAMILIES[family],
        type=socket.SOCK_STREAM,
        callback=lambda result, error: told.append((result, error)),
    )
    channel.wait()
    ((result, error),) = told
    if result is None or error is not None:
        return f"{name} !{error}"
    hosts = [node.addr[0] for node in result.nodes]
    return " ".join([name, *(host.decode() if isinstance(host, bytes) else host for host in hosts)])


def main() -> None:
    """Look every name of the command line up, one after the other."""
    channel = pycares.Channel()
    for name in sys.argv[2:]:
        print(look(channel, sys.argv[1], name))


if __name__ == "__main__":
    main()
