"""A host that `doctor` can be tried on: a configuration, files, a fake proxy and a fake registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord

from dnsproxy.config import parse
from dnsproxy.ops.doctor import Site
from dnsproxy.ops.doctor_findings import Finding
from dnsproxy.ops.known import Known, KnownName
from dnsproxy.ops.proxy_settings import ProxySettings, from_settings
from dnsproxy.settings.values import Endpoint
from tests.fakes.nameserver import Reply
from tests.fakes.registry import AUTH, REGISTRY, STORAGE, FakeRegistry

ROLES = {REGISTRY: "registry", AUTH: "auth", STORAGE: "storage"}
LOOPBACK = "127.0.0.1"


class Host:
    """Everything in order; tests break one thing. ``addresses`` are what the proxy answers."""

    def __init__(self, folder: Path, registry: FakeRegistry) -> None:
        self.registry = registry
        self.addresses = dict.fromkeys(ROLES, LOOPBACK)
        self.folder = folder
        self.routed = ["127.0.0.0/8"]
        self.known_addresses = dict(self.addresses)
        (folder / "nsswitch.conf").write_text("hosts: files dns\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")

    def answer(self, query: DNSRecord) -> Reply:
        """Answer as a dnsproxy does."""
        reply = query.reply()
        address = self.addresses.get(str(query.q.qname).removesuffix("."))
        if address is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif query.q.qtype == QTYPE.A:
            reply.add_answer(*RR.fromZone(f"{query.q.qname} 30 A {address}"))
        else:
            soa = f"{query.q.qname} 30 SOA dnsproxy.invalid. . 1 3600 600 86400 30"
            reply.add_auth(*RR.fromZone(soa))
        return reply

    def settings(self, **verify: Any) -> ProxySettings:
        names = [
            {"name": name, "role": role, "addresses": [LOOPBACK], "allowed": ["127.0.0.0/8"]}
            for name, role in ROLES.items()
        ]
        registry = {"name": "r", "provider": "generic", "names": names, "network": {"routed": self.routed}}
        return from_settings(
            parse(json.dumps({"registries": [registry], "learn": {"verify": self.verify() | verify}}))
        )

    def verify(self) -> dict[str, Any]:
        return {"ports": [self.registry.port], "ca_file": str(self.registry.authority.file)}

    def known(self) -> Known:
        entries = [
            KnownName(
                f"{name}.",
                role,
                "r",
                (self.known_addresses[name],) if name in self.known_addresses else (),
                "helper-a",
                7,
                3.0,
            )
            for name, role in ROLES.items()
        ]
        return Known("the test", True, 7, tuple(entries))

    def site(self, *resolvers: Endpoint) -> Site:
        folder = self.folder
        return Site(resolvers, 1.0, folder / "resolv.conf", folder / "nsswitch.conf", folder / "hosts")


def failures(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.hop, finding.subject) for finding in findings if finding.failed]
