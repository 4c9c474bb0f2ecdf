"""The recipes of docs/host-dns.md, word for word, on a host where their addresses are true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.digging import Reply, parse
from tests.e2e.nameservers import Unbound
from tests.e2e.processes import ROOT, dnsproxy_argv, find_program, run_command
from tests.interop.resolved import add_resolved
from tests.netns.network import Network
from tests.netns.spaces import Spaces

pytestmark = [pytest.mark.netns]

# Where scripts/setup.sh unpacks it: installed, it would take the machine's interfaces over.
NETWORK_MANAGER = ROOT / "build" / "network-manager"
PAGE = ROOT / "docs" / "host-dns.md"
# Of the page.
PROXY, SPARE, OTHER = "10.0.0.10", "10.0.0.11", "10.0.0.53"
RESOLVER = "127.0.0.1"
REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com"
BUCKET = "any-bucket.oss-cn-hangzhou-internal.aliyuncs.com"
OWNED = {REGISTRY: "10.94.205.198", AUTH: "100.103.7.181", BUCKET: "100.118.28.43"}
# What only the resolver for everything else knows, and what the proxy alone forwards to.
# RFC 2544's range: dnsmasq takes the ranges of RFC 5737 for private.
INTRANET, INTRANET_ADDRESS = "wiki.example", "198.18.0.80"


def recipe(heading: str) -> str:
    """Return the first configuration below a heading of the page."""
    found = re.search(
        rf"^## {re.escape(heading)}$.*?^```conf\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, heading
    return found[1]


class Kind(NamedTuple):
    """A resolver: its own configuration, with ``{recipe}`` for the recipe's file, and its command."""

    heading: str
    program: str
    base: str
    command: tuple[str, ...]


KINDS = [
    Kind(
        "dnsmasq",
        "dnsmasq",
        # A host that takes care: it drops private addresses out of answers.
        f"""no-resolv
no-hosts
bind-interfaces
listen-address={RESOLVER}
user=root
pid-file=
keep-in-foreground
log-facility=-
stop-dns-rebind
server={OTHER}
conf-file={{recipe}}
""",
        ("dnsmasq", "--conf-file={base}"),
    ),
    Kind(
        "unbound",
        "unbound",
        f"""server:
  interface: {RESOLVER}
  username: ""
  chroot: ""
  directory: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  private-address: 10.0.0.0/8
  private-address: 100.64.0.0/10
remote-control:
  control-enable: no
include: "{{recipe}}"
forward-zone:
  name: "."
  forward-addr: {OTHER}
""",
        ("unbound", "-d", "-c", "{base}"),
    ),
    Kind(
        "BIND",
        "named",
        f"""options {{{{
  directory "{{folder}}";
  listen-on {{{{ {RESOLVER}; }}}};
  listen-on-v6 {{{{ none; }}}};
  pid-file none;
  session-keyfile none;
  dnssec-validation no;
  forward only;
  forwarders {{{{ {OTHER}; }}}};
}}}};
controls {{{{ }}}};
include "{{recipe}}";
""",
        ("named", "-f", "-g", "-n", "1", "-c", "{base}"),
    ),
    Kind(
        "PowerDNS Recursor",
        "pdns_recursor",
        f"""local-address={RESOLVER}
threads=1
daemon=no
disable-syslog=yes
write-pid=no
socket-dir={{folder}}
security-poll-suffix=
allow-from=127.0.0.0/8
dnssec=off
forward-zones-recurse=.={OTHER}
forward-zones-file={{recipe}}
""",
        ("pdns_recursor", "--config-dir={folder}"),
    ),
]


class Host(Network):
    """A namespace that has the page's addresses: of the proxy, of the other resolver, and of one to try."""

    def _lay_out(self, spaces: Spaces) -> None:
        self.space = spaces.add("host")
        # resolved asks nobody on a host without an address besides its loopback.
        spaces.join(self.space, spaces.add("lan"))
        self.space.set_address("lan", "10.0.0.20/24")
        self.space.set_address("lo", f"{PROXY}/32", f"{SPARE}/32", f"{OTHER}/32")
        records = [f"{INTRANET} 60 IN A {INTRANET_ADDRESS}"]
        other = Unbound(
            self.folder, "other", 53, ["example"], records, host=OTHER, within=self.space.within()
        )
        self.processes.append(other.process)
        self.proxy = self.add_process(
            self.space, "proxy", *dnsproxy_argv("serve", "--config", self._configure())
        )
        other.start()
        self.proxy.start(lambda: bool(self.proxy.events("proxy.started")))

    def _configure(self) -> Path:
        names = [
            {"name": name if name != BUCKET else f"*.{BUCKET.partition('.')[2]}", "addresses": [address]}
            for name, address in OWNED.items()
        ]
        document = {
            "registries": [{"name": "hangzhou", "provider": "generic", "names": names}],
            "learn": {"sources": [], "state_file": str(self.folder / "learned.jws")},
            "serve": {"listen": [f"{PROXY}:53", f"{SPARE}:53"]},
            "forward": {"upstreams": [OTHER]},
            "log": {"format": "json"},
        }
        file = self.folder / "config.yaml"
        file.write_text(json.dumps(document))
        return file

    def dig(self, server: str, *words: str) -> Reply:
        argv = self.space.within("dig", "-r", f"@{server}", "+time=5", "+tries=1", *words)
        return parse(run_command(*argv).stdout)

    def check(self, server: str) -> None:
        """Whoever asks ``server`` gets the owned names from the proxy, and all else as before."""
        seen: Mapping[str, list[str]] = {name: self.dig(server, name).data for name in OWNED}
        assert seen == {name: [address] for name, address in OWNED.items()}
        empty = self.dig(server, REGISTRY, "AAAA")
        assert (empty.rcode, empty.answer) == ("NOERROR", ())
        assert self.dig(server, INTRANET).data == [INTRANET_ADDRESS]
        assert self.dig(server, f"none.{INTRANET}").rcode == "NXDOMAIN"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("h")) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.heading)
def test_a_resolver_of_a_host(host: Host, kind: Kind, tmp_path: Path) -> None:
    assert find_program(kind.program), f"{kind.program} is missing: run scripts/setup.sh packages"
    for path, text in (("recipe", recipe(kind.heading)), ("recursor.conf", kind.base)):
        (tmp_path / path).write_text(text)
    places = {"recipe": tmp_path / "recipe", "folder": tmp_path, "base": tmp_path / "recursor.conf"}
    places["base"].write_text(kind.base.format(**places))
    server = host.add_process(
        host.space, kind.heading.split()[-1], *(word.format(**places) for word in kind.command)
    )
    server.start(lambda: host.dig(RESOLVER, INTRANET).rcode == "NOERROR")
    try:
        host.check(RESOLVER)
    finally:
        server.kill()


def test_the_exceptions_of_the_recipes_are_needed(host: Host, tmp_path: Path) -> None:
    """Without its last line dnsmasq drops what the proxy answers: the recipe's remark is true."""
    kind = KINDS[0]
    lines = [line for line in recipe(kind.heading).splitlines() if not line.startswith("rebind-domain-ok")]
    (tmp_path / "recipe").write_text("\n".join(lines) + "\n")
    (tmp_path / "base").write_text(kind.base.format(recipe=tmp_path / "recipe"))
    server = host.add_process(host.space, "careful", "dnsmasq", f"--conf-file={tmp_path / 'base'}")
    server.start(lambda: host.dig(RESOLVER, INTRANET).rcode == "NOERROR")
    try:
        assert host.dig(RESOLVER, REGISTRY).data == []
    finally:
        server.kill()


def test_resolv_conf(host: Host) -> None:
    host.space.write("resolv.conf", *recipe("resolv.conf").splitlines())
    for name, address in {**OWNED, INTRANET: INTRANET_ADDRESS}.items():
        said = run_command(*host.space.within("getent", "ahostsv4", name)).stdout
        assert {line.split()[0] for line in said.splitlines()} == {address}


def test_systemd_resolved(host: Host) -> None:
    resolved = add_resolved(host, host.space, recipe("systemd-resolved"))
    resolved.start(lambda: host.dig("127.0.0.53", INTRANET).rcode == "NOERROR")
    try:
        host.check("127.0.0.53")
    finally:
        resolved.kill()


def test_network_manager_reads_its_recipe(host: Host, tmp_path: Path) -> None:
    found = find_program("NetworkManager")
    program = Path(found) if found else NETWORK_MANAGER / "usr/sbin/NetworkManager"
    assert program.is_file(), "NetworkManager is missing: run scripts/setup.sh packages"
    folder, nothing = tmp_path / "conf.d", tmp_path / "nothing"
    folder.mkdir()
    (folder / "dnsproxy.conf").write_text(recipe("NetworkManager"))
    (tmp_path / "main.conf").write_text("[main]\nplugins=keyfile\n")
    libraries = ":".join(sorted({str(path.parent) for path in NETWORK_MANAGER.rglob("lib*.so.*")}))
    done = run_command(
        *host.space.within("env", f"LD_LIBRARY_PATH={libraries}", program, "--print-config"),
        *("--config", tmp_path / "main.conf", "--config-dir", folder),
        *("--system-config-dir", nothing, "--intern-config", nothing),
    )
    assert f"[global-dns-domain-*]\nservers={PROXY},{SPARE}\n" in done.stdout
