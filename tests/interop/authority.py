"""The nameserver behind everything: BIND with plain zones and with signed ones, made for the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.e2e.processes import Process, run_command

PLAIN, SIGNED, BOGUS = "interop.example", "signed.example", "bogus.example"
# Where the search list of a pod leads to; nothing is there.
CLUSTER = "cluster.local"
# The longest RRset: 20 strings of 200 octets, over 4 kB.
BIG = [f"{number:02}" * 100 for number in range(20)]
MANY = [f"198.51.100.{number}" for number in range(40)]

_EMPTY = """$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
"""
_HEAD = f"""{_EMPTY}www A 192.0.2.1
www AAAA 2001:db8::1
v4 A 192.0.2.4
alias CNAME www
chain CNAME alias
*.wild A 192.0.2.7
"""
# A record of each kind that a client may come across, names inside included.
_KINDS = r"""a\.dot A 192.0.2.5
\255\000x A 192.0.2.6
mx MX 10 www
mx MX 20 mail.elsewhere.example.
srv SRV 1 2 443 www
caa CAA 0 issue "ca.example"
naptr NAPTR 100 50 "s" "SIP+D2U" "" _sip._udp
https HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1
svcb SVCB 1 www alpn=dot port=853
loc LOC 30 15 0.000 N 120 9 0.000 E 10m
sshfp SSHFP 4 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
tlsa TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
uri URI 10 1 "https://www.interop.example/"
rp RP hostmaster www
hinfo HINFO "RFC8482" ""
unknown TYPE65280 \# 5 0001fffe00
empty TYPE65281 \# 0
octets TXT "\000\255\"\\" ""
down DNAME wild
into CNAME registry.owned.example.
"""
_TYPES = {
    "www": ("A", "AAAA", "ANY", "HTTPS"),
    "v4": ("A", "AAAA"),
    "alias": ("A", "CNAME", "MX"),
    "chain": ("A", "AAAA"),
    "x.wild": ("A", "TXT"),
    r"a\.dot": ("A",),
    r"\255\000x": ("A",),
    **{kind: (kind.upper(),) for kind in ("mx", "srv", "caa", "naptr", "https", "svcb", "loc")},
    **{kind: (kind.upper(),) for kind in ("sshfp", "tlsa", "uri", "rp", "hinfo")},
    "unknown": ("TYPE65280",),
    "empty": ("TYPE65281",),
    "octets": ("TXT",),
    "x.down": ("A", "AAAA"),
    "into": ("A", "AAAA"),
    "big": ("TXT",),
    "many": ("A",),
    "none": ("A", "AAAA", "DS"),
    "@": ("SOA", "NS", "DNSKEY"),
}


def questions() -> list[tuple[str, str]]:
    """Return (name, type) of questions for every kind of answer that the authority gives."""
    plain = [
        (PLAIN if name == "@" else f"{name}.{PLAIN}", qtype)
        for name, qtypes in _TYPES.items()
        for qtype in qtypes
    ]
    signed = [
        (f"{name}.{SIGNED}", qtype) for name in ("www", "chain", "v4", "none") for qtype in ("A", "AAAA")
    ]
    return [*plain, *signed, (SIGNED, "DNSKEY"), (SIGNED, "SOA"), ("www.elsewhere.example", "A")]


class Anchor(NamedTuple):
    """The key of a signed zone, as each program wants it told."""

    zone: str
    dnskey: str
    ds: str

    @property
    def bind(self) -> str:
        """For ``trust-anchors`` of named.conf and of delv."""
        flags, protocol, algorithm, *key = self.dnskey.split()
        return f'{self.zone}. static-key {flags} {protocol} {algorithm} "{"".join(key)}";'


class Authority:
    """`PLAIN`, `SIGNED` and `BOGUS`, whose address of ``www`` was changed after it had been signed."""

    def __init__(
        self, folder: Path, port: int, host: str = "127.0.0.1", within: tuple[str, ...] = ()
    ) -> None:
        self.host, self.port = host, port
        self._folder = folder / "authority"
        self._folder.mkdir()
        records = [f"big TXT {text}" for text in BIG] + [f"many A {address}" for address in MANY]
        self._body = _HEAD + "".join(f"{record}\n" for record in records)
        (self._folder / PLAIN).write_text(self._body + _KINDS)
        (self._folder / CLUSTER).write_text(_EMPTY)
        self.anchors = [self._sign(SIGNED), self._sign(BOGUS)]
        self._falsify()
        config = self._folder / "named.conf"
        config.write_text(self._config())
        argv = [*within, "named", "-f", "-g", "-n", "1", "-c", str(config)]
        self.process = Process("authority", argv, folder / "authority.log")

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        self.process.start(lambda: "all zones loaded" in self.process.text())

    def _sign(self, zone: str) -> Anchor:
        (self._folder / f"{zone}.plain").write_text(self._body)
        key = self._run("dnssec-keygen", "-q", "-K", self._folder, "-a", "ECDSAP256SHA256", "-f", "KSK", zone)
        signed = self._folder / zone
        self._run(
            *("dnssec-signzone", "-S", "-z", "-K", self._folder, "-d", self._folder, "-o", zone),
            *("-f", signed, f"{signed}.plain"),
        )
        public = (self._folder / f"{key.strip()}.key").read_text()
        found = re.search(r"^\S+ IN DNSKEY (.*)$", public, re.MULTILINE)
        assert found is not None, public
        ds = self._run("dnssec-dsfromkey", "-2", self._folder / f"{key.strip()}.key")
        return Anchor(zone, found[1], ds.split("DS", 1)[1].strip())

    def _falsify(self) -> None:
        zone = self._folder / BOGUS
        text = zone.read_text()
        assert "192.0.2.1\n" in text
        zone.write_text(text.replace("192.0.2.1\n", "192.0.2.66\n"))

    def _run(self, *argv: str | Path) -> str:
        done = run_command(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _config(self) -> str:
        zones = "".join(
            f'zone "{zone}" {{ type primary; file "{zone}"; }};\n' for zone in (PLAIN, SIGNED, BOGUS, CLUSTER)
        )
        return f"""options {{
  directory "{self._folder}";
  listen-on port {self.port} {{ {self.host}; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  session-keyfile none;
  recursion no;
  notify no;
  check-names primary ignore;
  dnssec-validation no;
  minimal-responses yes;
}};
controls {{ }};
{zones}"""
