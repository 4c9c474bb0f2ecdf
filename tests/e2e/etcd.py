"""A real etcd cluster on loopback: one member or several, plain or with TLS and users."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from cryptography.x509.oid import NameOID

from tests.certificates import make_certificate
from tests.e2e.processes import Ports, Process, run_command, wait_for

KEY = "/dnsproxy/hangzhou"
ROOT_PASSWORD, HELPER_PASSWORD, PROXY_PASSWORD = "r00t", "h3lper", "pr0xy"


class Cluster:
    """Members on ports of their own, with ``options`` of etcd.

    With ``secure``: TLS with client certificates, and the users of docs/fleets.md.
    """

    def __init__(
        self, folder: Path, ports: Ports, size: int = 1, *options: str, secure: bool = False
    ) -> None:
        self.folder = folder / "etcd"
        self.folder.mkdir()
        self._secure = secure
        self._files = self._make_files() if secure else None
        self._clients = [ports.take() for _ in range(size)]
        peers = [ports.take() for _ in range(size)]
        scheme = "https" if secure else "http"
        self.endpoints = [f"{scheme}://127.0.0.1:{port}" for port in self._clients]
        initial = ",".join(f"m{at}={scheme}://127.0.0.1:{port}" for at, port in enumerate(peers))
        words: list[list[str | Path]] = [
            [
                *("--name", f"m{at}", "--data-dir", str(self.folder / f"m{at}")),
                *("--listen-client-urls", self.endpoints[at], "--advertise-client-urls", self.endpoints[at]),
                *("--listen-peer-urls", f"{scheme}://127.0.0.1:{peer}"),
                *("--initial-advertise-peer-urls", f"{scheme}://127.0.0.1:{peer}"),
                *("--initial-cluster", initial, "--initial-cluster-token", folder.name),
                *("--logger", "zap", "--log-level", "warn"),
                *self._tls_options(),
            ]
            for at, peer in enumerate(peers)
        ]
        self.members = [
            Process(f"etcd{at}", ["etcd", *mine, *options], self.folder / f"m{at}.log")
            for at, mine in enumerate(words)
        ]

    def _make_files(self) -> tuple[str, str]:
        """Make one certificate for all, which is its own authority; etcd wants its key in another file."""
        # etcd's gateway refuses a client whose certificate has a common name.
        both = make_certificate(self.folder, "127.0.0.1", called=NameOID.ORGANIZATION_NAME).read_text()
        found = []
        for name, begin in (("certificate", "-----BEGIN CERT"), ("key", "-----BEGIN PRIVATE")):
            path = self.folder / f"{name}.pem"
            path.write_text(begin + both.partition(begin)[2].partition("\n-----BEGIN")[0])
            found.append(str(path))
        return found[0], found[1]

    def _tls_options(self) -> list[str]:
        if self._files is None:
            return []
        path, key = self._files
        return [
            *("--cert-file", path, "--key-file", key, "--trusted-ca-file", path, "--client-cert-auth"),
            *("--peer-cert-file", path, "--peer-key-file", key, "--peer-trusted-ca-file", path),
            *("--peer-client-cert-auth", "--auth-token", "simple", "--auth-token-ttl", "5"),
        ]

    def start(self) -> None:
        """Start all members, wait for a leader, and make the users."""
        for member in self.members:
            # A member alone has no leader and is not well until another one is there.
            member.start(lambda: True)
        wait_for(lambda: self.control("endpoint", "health").returncode == 0, "etcd has a leader")
        if self._secure:
            self._make_users()

    def restart(self, at: int) -> None:
        """Start a member again that was killed, and wait until it takes part."""
        self.members[at].start(lambda: self.control("endpoint", "health", at=at).returncode == 0)

    def control(self, *arguments: str, at: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run etcdctl, as root where there are users."""
        chosen = self.endpoints if at is None else [self.endpoints[at]]
        options = ["--endpoints", ",".join(chosen), "--dial-timeout=1s", "--command-timeout=2s"]
        if self._files is not None:
            path, key = self._files
            options += ["--cacert", path, "--cert", path, "--key", key]
        if (self.folder / "users").exists():
            options += ["--user", f"root:{ROOT_PASSWORD}"]
        return run_command("etcdctl", *options, *arguments)

    def must(self, *arguments: str) -> str:
        """Run etcdctl, which must do it; return what it prints."""
        done = self.control(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _make_users(self) -> None:
        for role, permission in (("publish", "readwrite"), ("learn", "read")):
            self.must("role", "add", role)
            # The office of an election is below the key.
            self.must("role", "grant-permission", "--prefix", role, permission, KEY)
        for user, password, role in (
            ("helper", HELPER_PASSWORD, "publish"),
            ("proxy", PROXY_PASSWORD, "learn"),
            ("root", ROOT_PASSWORD, "root"),
        ):
            self.must("user", "add", f"{user}:{password}")
            self.must("user", "grant-role", user, role)
            (self.folder / user).write_text(f"{password}\n")
        self.must("auth", "enable")
        (self.folder / "users").touch()

    def settings(self, user: str = "proxy", **more: Any) -> dict[str, Any]:
        """Return a source or target of the configuration."""
        found: dict[str, Any] = {"type": "etcd", "endpoints": self.endpoints, "key": KEY, **more}
        if self._files is not None:
            path, key = self._files
            found["tls"] = {"ca_file": path, "cert_file": path, "key_file": key}
            found |= {"user": user, "password_file": str(self.folder / user)}
        return found

    def revision(self) -> int:
        """Return the cluster's revision."""
        return int(json.loads(self.must("get", KEY, "-w", "json"))["header"]["revision"])
