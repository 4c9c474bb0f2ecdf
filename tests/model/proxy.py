"""One real proxy of a process sequence: its configuration, its process, and everything that it tells."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from tests.e2e.processes import DEADLINE, ROOT, Ports, environment, wait_for
from tests.model.child import CLOCK
from tests.model.world import FOUND, NAMES, REGISTRIES, ROLE, Configuration

TYPES = ("A", "AAAA")
INTERVAL = 0.2
# A name that each registry must have: pinned by the configuration, never probed.
FIXED = {registry: f"fixed.{registry}.example" for registry in REGISTRIES}


def question(name: str) -> str:
    """Return a name that a client asks for."""
    return f"below{name[1:]}" if name.startswith("*") else name


class Reply(NamedTuple):
    """One answer."""

    rcode: str
    addresses: frozenset[str]
    cname: str | None
    error: int | None


@dataclass
class Told:
    """What a proxy reports about its state, at one time. Documents of later questions are empty at first."""

    replies: dict[tuple[str, str], Reply]
    status: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    explain: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    canary: dict[str, Any] | None = None


class Starter:
    """Starts processes of the program: forks of one that has imported it (`tests.model.child`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        self._started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ended: dict[int, int] = {}
        threading.Thread(target=self._read, name="starter", daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if words[0] == "started":
                self._started.put(int(words[1]))
            else:
                self._ended[int(words[1])] = int(words[2])

    def start(self, **order: Any) -> int:
        """Start one; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._started.get(timeout=DEADLINE)

    def exit_code(self, pid: int) -> int | None:
        """Return it; None while the process runs."""
        return self._ended.get(pid)


class Proxy:
    """A proxy whose process may end at any time. Addresses are those of the namespace."""

    def __init__(self, folder: Path, workers: int, starter: Starter) -> None:
        self.folder = folder
        self._starter = starter
        self._pid = 0
        self.workers = workers
        self._ports = Ports()
        self.dns_port, self._admin_port = self._ports.take(), self._ports.take()
        self._config, self._clock, self._plan = (folder / each for each in ("config", "clock", "plan"))
        self._log = folder / "proxy.log"
        self._clock.write_bytes(CLOCK.pack(0.0))
        self._plans = 0
        self.disarm()
        self._connection: http.client.HTTPConnection | None = None
        self.variant: dict[str, Any] = {"moved": 0, "ttl": 30, "attempt": "500ms", "identity": "proxy"}

    def close(self) -> None:
        if self.is_running:
            self.send_kill()
            self.wait()
        self._drop_connection()
        self._ports.release()

    # --- configuration and clock

    def set_clock(self, wall: float) -> None:
        """Set the wall clock, also for a program that runs: in place, for it has mapped the file."""
        with self._clock.open("r+b") as file:
            file.write(CLOCK.pack(wall))

    def arm(self, write: int, step: str) -> None:
        """End the process at a step of the write that comes after ``write - 1`` others."""
        self._plans += 1
        new = self._plan.with_suffix(".new")
        new.write_text(f"{self._plans} {write} {step}")
        new.replace(self._plan)

    def disarm(self) -> None:
        self.arm(0, "none")

    def configure(
        self, wanted: Configuration, sources: list[dict[str, Any]], keys: Mapping[str, Path], upstream: str
    ) -> None:
        """Write the configuration file."""
        canary = wanted.canary and {
            "share": "100%" if wanted.group else "0%",
            "hold": wanted.canary[0],
            "fall": wanted.canary[1],
        }
        document = {
            "registries": [self._registry(wanted, registry) for registry in REGISTRIES],
            "learn": {
                "sources": sources,
                "trusted_keys": [
                    str(keys[key]) if scope is None else {"file": str(keys[key]), "registries": list(scope)}
                    for key, scope in wanted.keys.items()
                ],
                "state_file": str(self.state_file),
                "refresh": "200ms",
                "ttl": self.variant["ttl"],
                "max_stale": "forever" if wanted.max_stale is None else wanted.max_stale,
                "verify": {
                    "ports": [443] if wanted.ports else [],
                    "tls": False,
                    "timeout": "2s",
                    "interval": INTERVAL,
                    "on_failure": "accept" if wanted.accept else "keep",
                },
                "canary": canary,
                "history": wanted.history,
            },
            "serve": {"listen": [f"127.0.0.1:{self.dns_port}"], "lameduck": 0, "workers": self.workers},
            "forward": {"upstreams": [upstream], "timeout": {"attempt": self.variant["attempt"]}},
            "admin": {
                "listen": f"127.0.0.1:{self._admin_port}",
                "identity": self.variant["identity"],
            },
            "log": {"format": "json"},
        }
        new = self._config.with_suffix(".new")
        new.write_text(json.dumps(document))
        new.replace(self._config)

    @staticmethod
    def _registry(wanted: Configuration, registry: str) -> dict[str, Any]:
        fixed = {"name": FIXED[registry], "addresses": ["10.66.255.1"], "ports": []}
        names = [{"name": name} for name in wanted.names if name in REGISTRIES[registry]]
        found: dict[str, Any] = {
            "name": registry,
            "provider": "generic",
            "names": [fixed, *names],
            "network": {"conflicts": [f"{a}/{128 if ':' in a else 32}" for a in wanted.refused]},
        }
        if wanted.discover and FOUND in REGISTRIES[registry]:
            discover = {"host": FIXED[registry], "storage_suffixes": ["example"], "repository": "a/b"}
            found |= {ROLE: "discover", "discover": discover}
        return found

    @property
    def state_file(self) -> Path:
        """What ``learn.state_file`` says."""
        return self.folder / f"state{self.variant['moved']}" / "learned"

    def move_admin(self) -> None:
        """Have the next configuration name another port of the admin endpoint."""
        self._admin_port = self._ports.take()

    # --- process

    def start(self) -> None:
        assert not self.is_running
        self._drop_connection()
        arguments = ["serve", "--config", str(self._config)]
        files = {"clock": self._clock, "plan": self._plan, "log": self._log}
        self._pid = self._starter.start(
            **{key: str(file) for key, file in files.items()}, arguments=arguments
        )

    @property
    def is_running(self) -> bool:
        return self._pid != 0 and self._starter.exit_code(self._pid) is None

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGTERM)
        self.wait()
        code = self._starter.exit_code(self._pid)
        assert code == 0, f"SIGTERM: exit code {code}: {self.text()[-2000:]}"

    def send_kill(self) -> None:
        if self.is_running:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        wait_for(lambda: not self.is_running, "the process has ended")

    def text(self) -> str:
        """Return what it has logged."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def reload(self) -> bool:
        """Send SIGHUP and wait for the end of the reload; False when the process ended instead."""
        before = self._reloads()
        os.kill(self._pid, signal.SIGHUP)
        wait_for(lambda: self._reloads() > before or not self.is_running, "the configuration is reloaded")
        self._drop_connection()
        text = self.text()
        assert '"config.not_taken"' not in text, text[-2000:]
        return self.is_running

    def _reloads(self) -> int:
        text = self.text()
        return sum(text.count(f'"config.{outcome}"') for outcome in ("reloaded", "unchanged", "not_taken"))

    # --- questions

    def ask(self, name: str, kind: str, timeout: float = 2.0) -> Reply | None:
        """Ask from a port of its own, so that any of the workers may be asked; None without an answer."""
        query = dns.message.make_query(question(name), kind, use_edns=0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            try:
                sock.connect(("127.0.0.1", self.dns_port))
                sock.send(query.to_wire())
                response = dns.message.from_wire(sock.recv(4096))
            except OSError:
                return None
        return read_reply(response, kind)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes] | None:
        """Send a request to the admin endpoint; None when no response came."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=DEADLINE)
        try:
            headers = {"Content-Type": "application/json"}
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._drop_connection()
            return None

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def get(self, path: str) -> Any:
        """Return a JSON document of the admin endpoint; None when the process is gone."""
        found = self.request("GET", path)
        return None if found is None or found[0] != 200 else json.loads(found[1])

    def status(self) -> Told | None:
        """Return answers and status; None when the process is gone."""
        replies = {(name, kind): self.ask(name, kind) for name in NAMES for kind in TYPES}
        status = self.get("/api/v1/status")
        if status is None or None in replies.values():
            return None
        return Told({key: reply for key, reply in replies.items() if reply is not None}, status)

    def complete(self, told: Told) -> bool:
        """Add everything else; False when the process is gone."""
        metrics = self.request("GET", "/metrics")
        found = {name: self.get(f"/api/v1/explain?name={question(name)}&type=A") for name in NAMES}
        history, canary = self.get("/api/v1/history"), self.get("/api/v1/canary")
        if metrics is None or history is None or canary is None or None in found.values():
            return False
        samples = (line.rpartition(" ") for line in metrics[1].decode().splitlines() if line[0] != "#")
        told.metrics = {sample: float(value) for sample, _, value in samples}
        told.explain, told.history, told.canary = found, history, canary["canary"]
        return True


def read_reply(response: dns.message.Message, kind: str) -> Reply:
    """Return what a response says."""
    wanted = dns.rdatatype.from_text(kind)
    addresses, cname = set(), None
    for rrset in response.answer:
        if rrset.rdtype == dns.rdatatype.CNAME:
            cname = rrset[0].target.to_text(omit_final_dot=True)
        elif rrset.rdtype == wanted:
            addresses |= {record.to_text() for record in rrset}
    errors = [int(option.code) for option in response.options if isinstance(option, dns.edns.EDEOption)]
    rcode = dns.rcode.to_text(response.rcode())
    return Reply(rcode, frozenset(addresses), cname, errors[0] if errors else None)
