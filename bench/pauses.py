"""Measure how long a reload, or a new snapshot, keeps an owned name waiting: `python -m bench.pauses`.

One proxy answers for 10,000 names from a file. A client asks for one of them without a break, while the
configuration and the snapshot change. The pause is the longest time that one answer took. On a machine with
other work, run it with `chrt -r 10`. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import dnslib
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import LearnedName, Snapshot

NAMES = 10_000
START_SECONDS = 60.0
PHASE_SECONDS = 6.0
# Seconds between an answer and the next question.
GAP = 0.0005


class Site:
    """A folder with what a proxy reads, and the proxy."""

    def __init__(self, folder: Path, names: int, workers: int) -> None:
        self._folder = folder
        self._names = [f"n{number}.registry.example." for number in range(names)]
        private, public = seal.generate_key()
        self._key: Ed25519PrivateKey = seal.load_private_key(private)
        (folder / "helper.pub").write_bytes(public)
        self.port = _free_port(socket.SOCK_DGRAM)
        wanted = [{"name": name.rstrip("."), "role": "other"} for name in self._names]
        self._config: dict[str, Any] = {
            "registries": [{"name": "large", "provider": "generic", "names": wanted}],
            "serve": {"listen": [f"127.0.0.1:{self.port}"], "workers": workers},
            "admin": {"listen": None},
            "forward": {"upstreams": [f"127.0.0.1:{_free_port(socket.SOCK_DGRAM)}"]},
            "learn": {
                "sources": [{"url": f"file://{folder}/snapshot.jws"}],
                "trusted_keys": [str(folder / "helper.pub")],
                "state_file": str(folder / "state.json"),
                "verify": {"ports": []},
            },
        }
        self.configure({})
        self.publish(1)

    def configure(self, sections: dict[str, dict[str, Any]]) -> None:
        """Write the configuration with the keys of ``sections`` changed."""
        config = copy.deepcopy(self._config)
        for section, keys in sections.items():
            config[section].update(keys)
        self._replace("config.yaml", json.dumps(config))

    def publish(self, number: int) -> None:
        """Publish a snapshot with the addresses of ``number``."""
        now = int(time.time())
        names = tuple(
            LearnedName(
                *(name, "other", "large", (f"10.{number}.{index >> 8}.{index & 255}",), None, 60, now),
                *((), "ok", float(now)),
            )
            for index, name in enumerate(self._names)
        )
        self._replace(
            "snapshot.jws", seal.sign(Snapshot("helper", number, now, now + 3600, names), self._key)
        )

    def start(self) -> subprocess.Popen[bytes]:
        """Start the proxy."""
        command = [sys.executable, "-m", "dnsproxy", "serve", "--config", str(self._folder / "config.yaml")]
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - a list of our own

    def _replace(self, name: str, text: str) -> None:
        new = self._folder / f"{name}.new"
        new.write_text(text)
        new.rename(self._folder / name)


class Client:
    """Asks for one owned name, one question at a time."""

    def __init__(self, port: int) -> None:
        self._query = dnslib.DNSRecord.question("n1.registry.example").pack()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(1.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self.seconds: list[float] = []

    def wait(self) -> None:
        """Return when the name has an address.

        Raises:
            TimeoutError: it has none in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self._socket.send(self._query)
                if dnslib.DNSRecord.parse(self._socket.recv(4096)).rr:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise TimeoutError("the proxy does not answer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _ask_on(self) -> None:
        while not self._stop.wait(GAP):
            asked = time.perf_counter()
            try:
                self._socket.send(self._query)
                self._socket.recv(4096)
            except OSError:
                pass  # as long as it took
            self.seconds.append(time.perf_counter() - asked)


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def measure(names: int, workers: int, seconds: float) -> dict[str, list[float]]:
    """Return the longest answers of each phase, in seconds, the longest first."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="dnsproxy-pauses-") as folder:
        site = Site(Path(folder), names, workers)
        proxy = site.start()
        try:
            client = Client(site.port)
            client.wait()
            time.sleep(seconds)

            def reload(**sections: dict[str, Any]) -> Callable[[], None]:
                def act() -> None:
                    site.configure(sections)
                    os.kill(proxy.pid, signal.SIGHUP)

                return act

            phases: dict[str, Callable[[], None]] = {
                "idle": lambda: None,
                "reload, nothing changed": reload(forward={"policy": "sequential"}),
                "reload, `forward` changed": reload(forward={"policy": "random"}),
                "reload, `learn` changed": reload(learn={"ttl": 31, "history": 5}),
                "snapshot that confirms": lambda: site.publish(1),
                "snapshot that changes every address": lambda: site.publish(2),
            }
            with client:
                for name, act in phases.items():
                    first = len(client.seconds)
                    act()
                    time.sleep(seconds)
                    found[name] = sorted(client.seconds[first:], reverse=True)[:5]
        finally:
            proxy.kill()
            proxy.wait()
    return found


def main() -> None:
    """Print the pauses."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pauses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--names", type=int, default=NAMES, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=PHASE_SECONDS, help="of each phase")
    options = parser.parse_args()
    for name, longest in measure(options.names, options.workers, options.seconds).items():
        figures = ", ".join(f"{value * 1000:.1f}" for value in longest)
        sys.stdout.write(f"{name:38} longest answers, ms: {figures}\n")


if __name__ == "__main__":
    main()
