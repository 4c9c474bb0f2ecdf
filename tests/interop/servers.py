"""Other resolvers as neighbours: between the proxy and the authority, or in front of the proxy.

All forward everything to ``target`` on 127.0.0.1 and ask nobody else. Those that validate have the
keys of the signed zones, and no others, as trust anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.e2e.digging import Server
from tests.e2e.processes import Process, accepts
from tests.interop.authority import PLAIN, Anchor


class Site(NamedTuple):
    """Where a neighbour keeps its files, where it listens on 127.0.0.1, and whom it asks there."""

    folder: Path
    port: int
    target: int
    anchors: Sequence[Anchor]


def _unbound(site: Site, *options: str) -> str:
    anchors = "\n".join(f'  trust-anchor: "{anchor.zone}. DS {anchor.ds}"' for anchor in site.anchors)
    more = "\n".join(f"  {option}" for option in options)
    return f"""server:
  interface: 127.0.0.1@{site.port}
  directory: "{site.folder}"
  username: ""
  chroot: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  num-threads: 1
  do-not-query-localhost: no
  module-config: "validator iterator"
{anchors}
{more}
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{site.target}
"""


def _dnsmasq(site: Site) -> str:
    anchors = "\n".join(
        f"trust-anchor={anchor.zone},{','.join(anchor.ds.split(None, 3)).replace(' ', '')}"
        for anchor in site.anchors
    )
    return f"""port={site.port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
no-poll
keep-in-foreground
user=root
pid-file=
log-facility=-
server=127.0.0.1#{site.target}
# It asks for the DS records of what is above unsigned names, unless they have servers of their own.
server=/{PLAIN}/owned.example/127.0.0.1#{site.target}
dnssec
dnssec-check-unsigned=no
# It insists on a key of the root; nothing here is signed by it.
trust-anchor=.,1,13,2,{"00" * 32}
{anchors}
"""


def _bind(site: Site) -> str:
    anchors = " ".join(anchor.bind for anchor in site.anchors)
    return f"""options {{
  directory "{site.folder}";
  listen-on port {site.port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  session-keyfile none;
  recursion yes;
  forward only;
  forwarders {{ 127.0.0.1 port {site.target}; }};
  dnssec-validation yes;
  empty-zones-enable no;
  notify no;
}};
controls {{ }};
trust-anchors {{ {anchors} }};
"""


def _dnsdist(site: Site) -> str:
    return f"""setLocal("127.0.0.1:{site.port}")
setACL({{"127.0.0.0/8"}})
setSecurityPollSuffix("")
newServer({{address="127.0.0.1:{site.target}", checkName="www.{PLAIN}."}})
"""


def _recursor(site: Site) -> str:
    anchors = "".join(f'addTA("{anchor.zone}.", "{anchor.ds}")\n' for anchor in site.anchors)
    (site.folder / "anchors.lua").write_text(f"clearTA()\n{anchors}")
    return f"""local-address=127.0.0.1
local-port={site.port}
threads=1
daemon=no
disable-syslog=yes
write-pid=no
socket-dir={site.folder}
security-poll-suffix=
dont-query=
hint-file=no
allow-from=127.0.0.0/8
forward-zones-recurse=.=127.0.0.1:{site.target}
dnssec=process
lua-config-file={site.folder}/anchors.lua
"""


class Kind(NamedTuple):
    """A program, the text of its configuration, and the command to run it with that in ``file``."""

    name: str
    file: str
    configuration: Callable[[Site], str]
    command: Callable[[Path], list[str]]
    validates: bool = True


def _run_unbound(file: Path) -> list[str]:
    return ["unbound", "-d", "-c", str(file)]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("unbound", "unbound.conf", _unbound, _run_unbound),
        # It asks in random case (0x20), and believes no answer in another.
        Kind(
            "unbound-caps", "unbound.conf", lambda site: _unbound(site, "use-caps-for-id: yes"), _run_unbound
        ),
        # Every query over TCP, several on a connection.
        Kind("unbound-tcp", "unbound.conf", lambda site: _unbound(site, "tcp-upstream: yes"), _run_unbound),
        Kind("dnsmasq", "dnsmasq.conf", _dnsmasq, lambda file: ["dnsmasq", f"--conf-file={file}"]),
        Kind("bind", "named.conf", _bind, lambda file: ["named", "-f", "-g", "-n", "1", "-c", str(file)]),
        Kind(
            "dnsdist",
            "dnsdist.conf",
            _dnsdist,
            lambda file: ["dnsdist", "--supervised", "--disable-syslog", "-C", str(file)],
            validates=False,
        ),
        Kind(
            "recursor",
            "recursor.conf",
            _recursor,
            lambda file: ["pdns_recursor", f"--config-dir={file.parent}"],
        ),
    )
}


class Neighbour:
    """One of `KINDS`, as a process."""

    def __init__(self, kind: Kind, site: Site) -> None:
        site.folder.mkdir()
        file = site.folder / kind.file
        file.write_text(kind.configuration(site))
        self.kind = kind
        self.server = Server(site.port)
        self.endpoint = f"127.0.0.1:{site.port}"
        self.process = Process(kind.name, kind.command(file), site.folder / "log")

    def start(self) -> None:
        # dnsdist listens before it has found its backend alive.
        self.process.start(
            lambda: accepts(self.server.port) and self.server.dig(f"www.{PLAIN}").rcode == "NOERROR"
        )
