"""The names and addresses that every server is configured for, or asked about."""

from __future__ import annotations

from typing import NamedTuple

ZONE = "bench.example"  # not .test, which resolvers answer themselves (RFC 6761)
CACHED_NAMES = 5_000
OWNED_TTL = 30
BACKEND_TTL = 3_600
BACKEND_ADDRESS = "192.0.2.53"


class Owned(NamedTuple):
    """A name that a server answers itself, and its one IPv4 address."""

    name: str
    address: str


def _registry(number: int, region: str) -> list[Owned]:
    hosts = (
        f"team{number}-registry-vpc.{region}.cr.aliyuncs.com",
        f"team{number}-chart-vpc.{region}.cr.aliyuncs.com",
        f"dockerauth-vpc.{region}.aliyuncs.com",
        f"team{number}-images.oss-{region}-internal.aliyuncs.com",
    )
    return [Owned(host, f"100.103.{number}.{last}") for last, host in enumerate(hosts, start=1)]


# Three registries of four names each: what a company with three regions has.
OWNED: tuple[Owned, ...] = tuple(
    entry
    for number, region in enumerate(("cn-hangzhou", "cn-shanghai", "ap-southeast-1"), start=1)
    for entry in _registry(number, region)
)


def cached(count: int = CACHED_NAMES) -> list[str]:
    """Return the names that are in every cache before cache hits are measured."""
    return [f"host-{number:05d}.cached.{ZONE}" for number in range(count)]


def unique(count: int, run: str) -> list[str]:
    """Return ``count`` names that no other ``run`` has; ``run`` is one DNS label of up to 40 characters."""
    return [f"n{number:07d}.{run}.miss.{ZONE}" for number in range(count)]
