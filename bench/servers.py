"""How each server is configured for the same work, and started in the foreground.

Every configuration answers the owned names itself, forwards the rest to the
backend and caches it, uses one thread for the queries where the server lets
one choose, keeps an access list, and neither logs queries nor validates DNSSEC.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.names import OWNED, OWNED_TTL

ALLOWED = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
CACHE_ENTRIES = 100_000


@dataclass(frozen=True)
class Site:
    """Where a server listens, whom it asks, and the folder of its files."""

    directory: Path
    port: int
    backend_port: int
    admin_port: int
    cache_entries: int = CACHE_ENTRIES


@dataclass(frozen=True)
class Server:
    """One kind of server: its files by name, and the commands to start it and to tell its version."""

    name: str
    program: str
    files: Callable[[Site], Mapping[str, str]]
    command: Callable[[Site], list[str]]
    version: tuple[str, ...]
    note: str


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def unbound(site: Site) -> dict[str, str]:
    """Return unbound.conf."""
    owned = [
        line
        for name, address in OWNED
        for line in (
            f'  local-zone: "{name}." static',
            f'  local-data: "{name}. {OWNED_TTL} IN A {address}"',
        )
    ]
    return {
        "unbound.conf": _lines(
            "server:",
            f"  interface: 127.0.0.1@{site.port}",
            f'  directory: "{site.directory}"',
            '  username: ""',
            '  chroot: ""',
            '  pidfile: ""',
            "  do-daemonize: no",
            "  use-syslog: no",
            "  verbosity: 0",
            "  num-threads: 1",
            "  do-ip6: no",
            "  so-reuseport: yes",
            "  so-rcvbuf: 4m",
            "  so-sndbuf: 4m",
            '  module-config: "iterator"',
            "  do-not-query-localhost: no",
            "  outgoing-range: 8192",
            "  num-queries-per-thread: 4096",
            "  incoming-num-tcp: 100",
            "  msg-cache-slabs: 1",
            "  rrset-cache-slabs: 1",
            "  infra-cache-slabs: 1",
            "  key-cache-slabs: 1",
            "  msg-cache-size: 64m",
            "  rrset-cache-size: 128m",
            *(f"  access-control: {network} allow" for network in ALLOWED),
            *owned,
            "remote-control:",
            "  control-enable: no",
            "forward-zone:",
            '  name: "."',
            f"  forward-addr: 127.0.0.1@{site.backend_port}",
        )
    }


def dnsmasq(site: Site) -> dict[str, str]:
    """Return dnsmasq.conf; dnsmasq has no access list by range, `local-service` is its nearest."""
    owned = [
        line
        for name, address in OWNED
        for line in (f"host-record={name},{address},{OWNED_TTL}", f"local=/{name}/")
    ]
    return {
        "dnsmasq.conf": _lines(
            f"port={site.port}",
            "listen-address=127.0.0.1",
            "bind-interfaces",
            "no-resolv",
            "no-hosts",
            "no-poll",
            "user=root",
            "pid-file=",
            f"server=127.0.0.1#{site.backend_port}",
            # It warns above 10,000; but the mix alone has 10,000 entries, and evicting costs it more.
            f"cache-size={site.cache_entries}",
            "dns-forward-max=4096",
            *owned,
        )
    }


def bind(site: Site) -> dict[str, str]:
    """Return named.conf and the zones of the owned names."""
    allowed = " ".join(f"{network};" for network in ALLOWED)
    zones = [f'zone "{name}" {{ type primary; file "{name}.zone"; notify no; }};' for name, _address in OWNED]
    files = {
        f"{name}.zone": _lines(
            f"$TTL {OWNED_TTL}", "@ SOA ns.invalid. nobody.invalid. 1 3600 600 86400 30",
            "@ NS ns.invalid.", f"@ A {address}",
        )
        for name, address in OWNED
    }  # fmt: skip
    files["named.conf"] = _lines(
        "options {",
        f'  directory "{site.directory}";',
        f"  listen-on port {site.port} {{ 127.0.0.1; }};",
        "  listen-on-v6 { none; };",
        "  pid-file none;",
        "  session-keyfile none;",
        "  recursion yes;",
        f"  allow-query {{ {allowed} }};",
        f"  allow-recursion {{ {allowed} }};",
        f"  allow-query-cache {{ {allowed} }};",
        "  forward only;",
        f"  forwarders {{ 127.0.0.1 port {site.backend_port}; }};",
        "  dnssec-validation no;",
        "  minimal-responses yes;",
        "  answer-cookie no;",
        "  send-cookie no;",
        "  recursive-clients 10000;",
        "  max-cache-size 256m;",
        "  notify no;",
        "  empty-zones-enable no;",
        "};",
        "controls { };",
        "logging { category default { null; }; category unmatched { null; }; };",
        *zones,
    )
    return files


def dnsdist(site: Site) -> dict[str, str]:
    """Return dnsdist.conf: spoofed owned names, a packet cache, one backend."""
    allowed = ", ".join(f'"{network}"' for network in ALLOWED)
    owned = [
        f'addAction(AndRule({{QNameRule("{name}."), QTypeRule(DNSQType.A)}}), '
        f'SpoofAction({{"{address}"}}, {{ttl={OWNED_TTL}, aa=true, ra=true}}))'
        for name, address in OWNED
    ]
    return {
        "dnsdist.conf": _lines(
            f'setLocal("127.0.0.1:{site.port}", {{reusePort=true}})',
            f"setACL({{{allowed}}})",
            'setSecurityPollSuffix("")',
            "setMaxUDPOutstanding(65535)",
            "setMaxTCPClientThreads(1)",
            f'newServer({{address="127.0.0.1:{site.backend_port}", checkName="health.bench.example."}})',
            f"cache = newPacketCache({site.cache_entries}, {{maxTTL=86400, numberOfShards=1}})",
            'getPool(""):setCache(cache)',
            *owned,
        )
    }


def recursor(site: Site) -> dict[str, str]:
    """Return recursor.conf and the zones of the owned names."""
    files = {
        f"{name}.zone": _lines(
            f"$ORIGIN {name}.", f"$TTL {OWNED_TTL}",
            "@ IN SOA ns.invalid. nobody.invalid. 1 3600 600 86400 30",
            "@ IN NS ns.invalid.", f"@ IN A {address}",
        )
        for name, address in OWNED
    }  # fmt: skip
    zones = ",".join(f"{name}={site.directory}/{name}.zone" for name, _address in OWNED)
    files["recursor.conf"] = _lines(
        "local-address=127.0.0.1",
        f"local-port={site.port}",
        "threads=1",
        "pdns-distributes-queries=no",
        "reuseport=yes",
        "daemon=no",
        "quiet=yes",
        "loglevel=1",
        "disable-syslog=yes",
        "write-pid=no",
        f"socket-dir={site.directory}",
        "dnssec=off",
        "security-poll-suffix=",
        "dont-query=",
        f"allow-from={','.join(ALLOWED)}",
        f"forward-zones-recurse=.=127.0.0.1:{site.backend_port}",
        f"auth-zones={zones}",
        f"max-cache-entries={site.cache_entries}",
        f"max-packetcache-entries={site.cache_entries}",
        "max-mthreads=4096",
    )
    return files


def coredns(site: Site) -> dict[str, str]:
    """Return the Corefile."""
    owned = [f"    {address} {name}" for name, address in OWNED]
    allowed = " ".join(ALLOWED)
    return {
        "Corefile": _lines(
            f".:{site.port} {{",
            "  bind 127.0.0.1",
            "  acl {",
            f"    allow net {allowed}",
            "    block",
            "  }",
            "  hosts {",
            *owned,
            f"    ttl {OWNED_TTL}",
            "    no_reverse",
            "    fallthrough",
            "  }",
            "  cache 3600 {",
            f"    success {site.cache_entries}",
            "  }",
            f"  forward . 127.0.0.1:{site.backend_port}",
            "}",
        )
    }


# -P: the installed program, which may be a compiled build, and not the source in the working folder.
_DNSPROXY = (sys.executable, "-P", "-m", "dnsproxy")


def dnsproxy(site: Site) -> dict[str, str]:
    """Return config.yaml: the allow list, the metrics and the cache as in the example."""
    owned = [f"      - {{name: {name}, role: other, addresses: [{address}]}}" for name, address in OWNED]
    return {
        "config.yaml": _lines(
            "registries:",
            "  - name: bench",
            "    provider: generic",
            "    names:",
            *owned,
            "learn:",
            f"  state_file: {site.directory}/learned.jws",
            f"  ttl: {OWNED_TTL}",
            "serve:",
            "  lameduck: 0",
            f'  listen: ["127.0.0.1:{site.port}"]',
            f'  allow: [{", ".join(ALLOWED)}, "::1/128", "fc00::/7", "fe80::/10"]',
            "forward:",
            f'  upstreams: ["127.0.0.1:{site.backend_port}"]',
            f"cache: {{size: {site.cache_entries}}}",
            f'admin: {{listen: "127.0.0.1:{site.admin_port}"}}',
        )
    }


SERVERS: tuple[Server, ...] = (
    Server(
        "dnsproxy", sys.executable, dnsproxy,
        lambda site: [*_DNSPROXY, "serve", "--config", f"{site.directory}/config.yaml"],
        (*_DNSPROXY, "--version"),
        "one worker, access list and metrics on",
    ),
    Server(
        "unbound", "unbound", unbound,
        lambda site: ["unbound", "-d", "-c", f"{site.directory}/unbound.conf"],
        ("unbound", "-V"),
        "one thread, iterator module only, local-zone static",
    ),
    Server(
        "dnsdist", "dnsdist", dnsdist,
        lambda site: [
            "dnsdist", "--supervised", "--disable-syslog", "-C", f"{site.directory}/dnsdist.conf",
        ],
        ("dnsdist", "--version"),
        "one listener, packet cache, SpoofAction",
    ),
    Server(
        "dnsmasq", "dnsmasq", dnsmasq,
        lambda site: ["dnsmasq", "--keep-in-foreground", f"--conf-file={site.directory}/dnsmasq.conf"],
        ("dnsmasq", "--version"),
        "host-record; no access list by range",
    ),
    Server(
        "bind9", "named", bind,
        lambda site: ["named", "-f", "-n", "1", "-c", f"{site.directory}/named.conf"],
        ("named", "-v"),
        "one worker, forward only, one primary zone per owned name",
    ),
    Server(
        "recursor", "pdns_recursor", recursor,
        lambda site: ["pdns_recursor", f"--config-dir={site.directory}"],
        ("pdns_recursor", "--version"),
        "one thread, packet cache, auth-zones",
    ),
    Server(
        "coredns", "coredns", coredns,
        lambda site: ["env", "GOMAXPROCS=1", "coredns", "-conf", f"{site.directory}/Corefile"],
        ("coredns", "-version"),
        "one processor, hosts, cache and forward plugins; only when on PATH",
    ),
)  # fmt: skip
