"""Foreign nameservers as processes: unbound and dnsmasq, each with data of the test's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.processes import Process, accepts, run_command

SOA = "ns.e2e.example. hostmaster.e2e.example. 1 3600 600 86400 60"


class Unbound:
    """Answers for ``zones`` from ``records`` (zone file lines), and recurses nowhere.

    ``options`` are further lines of its ``server:`` section; ``within`` are the
    words in front of the command that run it elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        port: int,
        zones: Sequence[str],
        records: Sequence[str],
        options: Sequence[str] = (),
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.host, self.port = host, port
        self._config = folder / f"{name}.conf"
        listen = [f"interface: {host}", f"port: {port}", f"access-control: {host} allow", *options]
        self._config.write_text(_unbound_config(folder, name, zones, records, listen))
        self.process = Process(name, [*within, "unbound", "-d", "-c", self._config], folder / f"{name}.log")

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        # It takes commands only once its sockets are open.
        self.process.start(lambda: self._control("status") == 0)

    def replace(self, name: str, *records: str, ttl: int = 5) -> None:
        """Give ``name`` these records (``A 192.0.2.1``) in place of all it had; ``ttl`` is in seconds."""
        assert self._control("local_data_remove", name) == 0
        for record in records:
            assert self._control("local_data", f"{name} {ttl} IN {record}") == 0

    def _control(self, *arguments: str) -> int:
        return run_command("unbound-control", "-c", self._config, *arguments).returncode


def _unbound_config(
    folder: Path, name: str, zones: Sequence[str], records: Sequence[str], options: Sequence[str]
) -> str:
    # What is in none of its zones is refused, so that it never asks a server of the real world.
    data = ['local-zone: "." refuse', *(f'local-zone: "{zone}" static' for zone in zones)]
    data += [f'local-data: "{zone} 60 IN SOA {SOA}"' for zone in zones]
    # Single quotes, for TXT records hold double ones.
    data += [f"local-data: '{record}'" for record in records]
    server = [
        *("do-daemonize: no", 'pidfile: ""', 'username: ""', 'chroot: ""', f'directory: "{folder}"'),
        *("use-syslog: no", 'logfile: ""', "num-threads: 1", 'module-config: "iterator"'),
        *options,
        *data,
    ]
    control = [
        *("control-enable: yes", "control-use-cert: no", f"control-interface: {folder / f'{name}.ctl'}"),
    ]
    sections = [("server", server), ("remote-control", control)]
    return "".join(f"{head}:\n" + "".join(f"  {line}\n" for line in body) for head, body in sections)


class Dnsmasq:
    """Answers for ``hosts`` (name to IPv4 address, TTL 60 s); asks who is at ``port_behind``, or nobody."""

    def __init__(
        self, folder: Path, name: str, port: int, hosts: Mapping[str, str], port_behind: int | None = None
    ) -> None:
        self.port = port
        config = folder / f"{name}.conf"
        lines = [
            *("no-resolv", "no-hosts", "no-daemon", "no-poll", "bind-interfaces", "user=root"),
            *("listen-address=127.0.0.1", f"port={self.port}", "pid-file=", "log-facility=-"),
            *(f"host-record={host},{address},60" for host, address in hosts.items()),
            *([] if port_behind is None else [f"server=127.0.0.1#{port_behind}"]),
        ]
        config.write_text("\n".join(lines) + "\n")
        self.process = Process(name, ["dnsmasq", "--conf-file=" + str(config)], folder / f"{name}.log")

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process.start(lambda: accepts(self.port))
