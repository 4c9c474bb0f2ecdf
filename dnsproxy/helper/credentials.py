"""User and password for a registry, from a docker ``config.json`` or a line ``user:password``."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from dnsproxy.errors import DiscoverError, Doubt

# Octets. A config.json of a hundred registries has some 20,000.
MAX_FILE = 262_144
_HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Credentials:
    """``exposed`` tells that everybody on this host can read the file."""

    user: str
    password: str = field(repr=False)
    exposed: bool = False

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


def read_credentials(path: Path, host: str, port: int = _HTTPS_PORT) -> Credentials:
    """Return what ``path`` holds for the registry at ``host`` (canonical or not) and ``port``.

    Raises:
        DiscoverError: ``CREDENTIALS``: it cannot be read or has nothing for that registry.
            The message names the file, never what is in it.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for its writer, for ever perhaps.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise _unusable(path, exc.strerror or str(exc)) from exc
    if not stat.S_ISREG(mode) or len(content) > MAX_FILE:
        raise _unusable(path, f"not a regular file of at most {MAX_FILE} octets")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        # The exception holds the content; it goes no further.
        raise _unusable(path, "not UTF-8 text") from None
    names = {host.rstrip(".").lower()}
    names = {f"{name}:{port}" for name in names} | (names if port == _HTTPS_PORT else set())
    pair = _from_docker(path, text, names) if text.startswith("{") else text
    user, colon, password = pair.partition(":")
    if not (colon and user and password and pair.isprintable()):
        raise _unusable(path, "not user:password in one line")
    return Credentials(user, password, exposed=bool(mode & stat.S_IROTH))


def _unusable(path: Path, reason: str) -> DiscoverError:
    return DiscoverError(Doubt.CREDENTIALS, f"credentials_file {path}: {reason}")


def _from_docker(path: Path, text: str, names: set[str]) -> str:
    """Return ``user:password`` out of a docker ``config.json``; ``names`` are ways to write the registry."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _unusable(path, "not JSON") from None
    auths = document.get("auths")
    entries = auths.items() if isinstance(auths, dict) else ()
    entry = next((held for key, held in entries if _host_of(key) in names), None)
    if not isinstance(entry, dict):
        hint = "; credential helpers are not asked" if {"credsStore", "credHelpers"} & set(document) else ""
        raise _unusable(path, f"auths has no entry for {min(names)}{hint}")
    encoded, user, password = entry.get("auth"), entry.get("username"), entry.get("password")
    if isinstance(user, str) and isinstance(password, str):
        return f"{user}:{password}"
    try:
        # Docker once padded the pair with NULs.
        return base64.b64decode(str(encoded or ""), validate=True).decode("utf-8").rstrip("\x00")
    except (binascii.Error, ValueError):
        raise _unusable(path, f"the entry for {min(names)} is not base64 of user:password") from None


def _host_of(key: str) -> str:
    return key.rpartition("://")[2].partition("/")[0].lower()
