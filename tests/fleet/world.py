"""A source region whose addresses change, one helper, and hundreds of proxy engines that follow, on loopback.

unbound and the helper are the real programs. The engines are the proxies' own code, some hundred in each of a
few processes (`tests.fleet.engines`), each with its own connection to the source and its own state folder.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dnsproxy.keys import write_key_pair
from tests.e2e.etcd import Cluster
from tests.e2e.nameservers import Unbound
from tests.e2e.processes import ROOT, Ports, Process, dnsproxy_argv, environment, wait_for
from tests.e2e.world import ADDRESSES, REGISTRY

# Seconds. The proxies' default for `learn.refresh`, and more than a helper's smallest pause between looks.
REFRESH = 15.0
INTERVAL = 5.0
# Of the etcd cluster.
MEMBERS = 3
# A file is followed by inotify, of which a user may have 128 instances by default: for fewer engines.
SOURCES = ("http", "pull", "file", "etcd")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an address: when, and for each engine when it answered with it. Unix seconds.

    ``seen_at`` is when the helper first saw it.
    """

    changed_at: float
    seen_at: float
    answered_at: tuple[float, ...]

    @property
    def from_helper(self) -> list[float]:
        """Seconds from the helper's look to each engine's answer."""
        return [answered - self.seen_at for answered in self.answered_at]

    @property
    def from_source(self) -> list[float]:
        """Seconds from the change at the source to each engine's answer."""
        return [answered - self.changed_at for answered in self.answered_at]


@dataclass(slots=True)
class Run:
    """What was measured with one kind of source. ``seconds`` is how long the engines ran."""

    source: str
    engines: int
    processes: int
    seconds: float = 0.0
    changes: list[Change] = field(default_factory=list)
    requests: int = 0
    convergence: list[int] = field(default_factory=list)
    rss: int = 0
    helper_cpu: float = 0.0
    helper_rss: int = 0
    failures: list[str] = field(default_factory=list)


class Hosts:
    """The processes that hold the engines; what they tell is kept as it comes."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._told: list[dict[str, Any]] = []

    def start(self, spec: Path) -> None:
        with spec.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fleet.engines", str(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment(),
            )
        self._processes.append(process)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            with self._lock:
                self._told.append(told)

    def told(self, chosen: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return what was told so far, if ``chosen``."""
        with self._lock:
            return [told for told in self._told if chosen(told)]

    @property
    def alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def end(self) -> None:
        """Let all end, and read their last words."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(60)
        for reader in self._readers:
            reader.join(60)

    def kill(self) -> None:
        """End those that run without asking, and close what belongs to all."""
        for process in self._processes:
            process.kill()
            process.wait(30)
        for reader in self._readers:
            reader.join(30)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


class FleetWorld:
    """Everything in ``folder``, for one kind of source. Use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        source: str,
        engines: int,
        processes: int,
        interval: float = INTERVAL,
        spread: float = REFRESH,
    ) -> None:
        self.run = Run(source, engines, processes)
        self._folder = folder
        self._ports = Ports()
        self._hosts = Hosts()
        records = [f"{name}. 5 IN A {address}" for name, address in ADDRESSES.items()]
        self._unbound = Unbound(folder, "source", self._ports.take(), ["aliyuncs.com"], records)
        self._key, self._public = write_key_pair(folder / "keys")
        self._published = folder / "published.jws"
        self._etcd = Cluster(folder, self._ports, MEMBERS) if source == "etcd" else None
        self.port = self._ports.take()
        self._interval, self._spread = interval, spread
        self._helper = Process(
            "helper",
            dnsproxy_argv("helper", "--config", self._write("helper.yaml", self._helper_settings())),
            folder / "helper.log",
        )

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        path = self._folder / name
        path.write_text(json.dumps(content))
        return path

    def _registries(self) -> list[dict[str, Any]]:
        return [{"name": "hangzhou", "region": "cn-hangzhou", "instance": "xxxxxx", "auth": "regional"}]

    def _helper_settings(self) -> dict[str, Any]:
        return {
            "registries": self._registries(),
            "helper": {
                "id": "helper-fleet",
                "listen": f"127.0.0.1:{self.port}",
                "resolvers": [self._unbound.endpoint],
                "interval": f"{self._interval * 1000:.0f}ms",
                "signing_key_file": str(self._key),
                "publish_file": str(self._published),
                "publish": [self._etcd.settings()] if self._etcd else [],
            },
            "log": {"format": "json"},
        }

    def _source(self) -> dict[str, Any]:
        if self._etcd is not None:
            return self._etcd.settings()
        url = f"http://127.0.0.1:{self.port}/v1/snapshot"
        # A URL with a query is not waited on, as one of an object store: it is asked once in a refresh.
        return {
            "http": {"url": url},
            "pull": {"url": f"{url}?plain=1"},
            "file": {"url": f"file://{self._published}"},
        }[self.run.source]

    def _engine_settings(self) -> dict[str, Any]:
        return {
            "registries": self._registries(),
            "learn": {
                "sources": [self._source()],
                "trusted_keys": [str(self._public)],
                "state_file": "@STATE@",
                "refresh": f"{REFRESH:.0f}s",
                # Nothing is to leave this host for the source region's addresses.
                "verify": {"ports": []},
            },
            "forward": {"upstreams": ["127.0.0.1:9"]},
            "admin": {"listen": None},
        }

    @property
    def helper_rss(self) -> int:
        """Octets of memory that the helper holds."""
        return _rss_of(self._helper.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hosts.kill()
        self._helper.kill()
        for member in self._etcd.members if self._etcd else ():
            member.kill()
        self._unbound.process.kill()
        self._ports.release()
        if kind is not None:
            for path in sorted(self._folder.glob("*.log")):
                sys.stderr.write(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}\n")

    def start_region(self) -> None:
        """Start the source and the helper, and wait until it has looked."""
        if self._etcd is not None:
            self._etcd.start()
        self._unbound.start()
        self._helper.start(lambda: bool(self._helper.events("helper.resolved")))

    def start(self) -> None:
        """Start all, and wait until every engine has the first address."""
        self.start_region()
        run = self.run
        for place in range(run.processes):
            numbers = list(range(place, run.engines, run.processes))
            folder = self._folder / f"engines-{place}"
            folder.mkdir()
            spec = {
                "settings": self._engine_settings(),
                "name": f"{REGISTRY}.",
                "folder": str(folder),
                "numbers": numbers,
                "spread": self._spread,
            }
            self._hosts.start(self._write(f"engines-{place}.json", spec))
        self._wait_for(ADDRESSES[REGISTRY], 300)
        wait_for(
            lambda: len(self._hosts.told(lambda told: "started" in told)) == run.processes, "all run", 120
        )

    def _answered(self, address: str) -> dict[int, dict[str, Any]]:
        first: dict[int, dict[str, Any]] = {}
        for told in self._hosts.told(lambda told: told.get("addresses") == [address]):
            first.setdefault(told["engine"], told)
        return first

    def _wait_for(self, address: str, deadline: float) -> dict[int, dict[str, Any]]:
        def all_have_it() -> dict[int, dict[str, Any]] | None:
            assert self._hosts.alive, "a process of engines has ended"
            answered = self._answered(address)
            return answered if len(answered) == self.run.engines else None

        return wait_for(all_have_it, f"all answer with {address}", deadline)

    def change(self, address: str) -> float:
        """Give the registry another address at the source; return when, in Unix seconds."""
        changed_at = time.time()
        self._unbound.replace(f"{REGISTRY}.", f"A {address}")
        return changed_at

    def measure(self, changes: int, draw: random.Random, say: Callable[[str], None]) -> Run:
        """Change the address ``changes`` times, at random, and note when each engine answers with it."""
        started = time.monotonic()
        cpu_before = _cpu_of(self._helper.pid)
        for number in range(changes):
            # Any place in the helper's round and in the proxies' polls.
            time.sleep(draw.uniform(1.0, 1.0 + self._spread))
            address = f"10.94.{1 + number // 250}.{1 + number % 250}"
            changed_at = self.change(address)
            answered = self._wait_for(address, 300)
            change = Change(
                changed_at,
                next(iter(answered.values()))["changed_at"],
                tuple(answered[engine]["at"] for engine in sorted(answered)),
            )
            self.run.changes.append(change)
            say(
                f"{self.run.source}: change {number + 1} of {changes}: "
                f"last answer {max(change.from_helper):.3f} s after the helper"
            )
        self.run.seconds = time.monotonic() - started
        self.run.helper_cpu = _cpu_of(self._helper.pid) - cpu_before
        self.run.helper_rss = _rss_of(self._helper.pid)
        self._hosts.end()
        for told in self._hosts.told(lambda told: "requests" in told):
            self.run.requests += told["requests"]
            self.run.rss += told["rss"]
            self.run.failures += told["failures"]
            held = self.run.convergence or [0] * len(told["convergence"])
            self.run.convergence = [a + b for a, b in zip(held, told["convergence"], strict=True)]
        return self.run


def _cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def quantiles(values: Sequence[float], shares: Sequence[float] = (0.5, 0.9, 0.99, 1.0)) -> list[float]:
    """Return the values at or below which each share of ``values`` lies (nearest rank)."""
    ordered = sorted(values)
    # What multiplication leaves over must not count as one more.
    return [ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)] for share in shares]
