"""What an examination by `doctor` stands on: the names to follow, and the findings so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dnsproxy.ops.doctor_findings import Expected, Finding
from dnsproxy.ops.hostsfile import HOSTS_FILE
from dnsproxy.ops.known import Known, KnownName
from dnsproxy.ops.proxy_settings import ProxySettings
from dnsproxy.settings.values import Endpoint
from dnsproxy.system import RESOLV_CONF

NSSWITCH = Path("/etc/nsswitch.conf")
# Roles whose names are HTTPS servers; nobody knows what `other` names listen on.
WEB_ROLES = frozenset({"registry", "chart", "auth", "storage"})
# Put in front of the parent of a wildcard, which cannot be asked for.
LABEL = "dnsproxy-doctor"


@dataclass(frozen=True, slots=True)
class Site:
    """Where to look: the files of the host, the servers of ``--resolver``, seconds for each attempt."""

    resolvers: tuple[Endpoint, ...] = ()
    seconds: float = 2.0
    resolv_conf: Path = RESOLV_CONF
    nsswitch: Path = NSSWITCH
    hosts: Path = HOSTS_FILE


@dataclass(slots=True)
class Target:
    """A name to follow; ``name`` can be asked for, ``answered`` are the addresses that it has from here."""

    name: str
    entry: KnownName
    answered: tuple[str, ...] = ()
    broken: str | None = field(default=None)

    @property
    def wild(self) -> bool:
        """Whether it stands for a wildcard."""
        return self.entry.name.startswith("*.")


class Ground:
    """The names to follow, the servers that are the proxy, and the findings so far.

    ``known`` is None when nothing could be read, for ``reason``; the names are then
    those of the configuration, and their answers cannot be compared.
    """

    def __init__(self, settings: ProxySettings, known: Known | None, reason: str, site: Site) -> None:
        self.settings = settings
        self.known = known
        self.reason = reason
        self.site = site
        self.names = known or settings.names
        self.targets = [Target(_askable(entry), entry) for entry in self.names.names]
        self.servers: list[Endpoint] = []
        self.findings: list[Finding] = []

    def expected(self, target: Target) -> Expected:
        """Return what a server should answer about ``target``."""
        if self.known is None:
            return Expected(None, exact=False)
        entry = target.entry
        # A state file does not tell which of them the proxy holds back at this time.
        return Expected(entry.addresses if self.known.exact else entry.learned, self.known.exact)

    def add(self, *findings: Finding) -> None:
        """Keep findings."""
        self.findings += findings

    def note(self, target: Target, finding: Finding, reason: str) -> None:
        """Keep a finding; when it is a failure, what comes after is skipped for ``reason``."""
        self.add(finding)
        if finding.failed:
            target.broken = reason

    def sort(self, hop: str) -> None:
        """Put the findings of ``hop`` into the order of the names: replies come in any order."""
        places = {target.name.removesuffix("."): place for place, target in enumerate(self.targets)}
        mine = sorted((f for f in self.findings if f.hop == hop), key=lambda f: places[f.subject])
        self.findings = [f for f in self.findings if f.hop != hop] + mine

    def distinct(self) -> list[Target]:
        """Return the names to connect to: a wildcard with the addresses of its parent adds nothing."""
        answered = {target.name: target.answered for target in self.targets}
        return [t for t in self.targets if not t.wild or t.answered != answered.get(t.entry.name[2:])]

    def web(self) -> list[Target]:
        """Return those of them that are HTTPS servers."""
        return [target for target in self.distinct() if target.entry.role in WEB_ROLES]


def _askable(entry: KnownName) -> str:
    return f"{LABEL}.{entry.name[2:]}" if entry.name.startswith("*.") else entry.name
