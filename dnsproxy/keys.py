"""Key files: the helper signs with ``helper.key``, proxies trust ``helper.pub``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dnsproxy.core import seal
from dnsproxy.errors import StartError
from dnsproxy.files import write_atomically

PRIVATE_NAME = "helper.key"
PUBLIC_NAME = "helper.pub"
# What a proxy that looks itself signs with, beside what it has signed.
_LOCAL_SUFFIX = ".key"
# A PEM Ed25519 key takes about 120 octets; a path that leads elsewhere is not read whole.
_MAX_PEM = 16_384


def write_key_pair(folder: Path) -> tuple[Path, Path]:
    """Write a new key pair into ``folder``, which is made when missing; return both paths.

    The private key gets mode 0600. Files that exist are never overwritten: a
    lost private key means a round of all proxies.

    Raises:
        StartError: either file exists, or the folder cannot be written.
    """
    private, public = seal.generate_key()
    private_path, public_path = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StartError(f"{folder}: {exc.strerror or exc}") from exc
    _create(private_path, private, 0o600)
    try:
        _create(public_path, public, 0o644)
    except StartError:
        with suppress(OSError):
            private_path.unlink()
        raise
    return private_path, public_path


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as exc:
        raise StartError(f"{path}: exists already and is not overwritten") from exc
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror or exc}") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as exc:
        with suppress(OSError):
            path.unlink()
        raise StartError(f"{path}: {exc.strerror or exc}") from exc


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the signing key in ``path``.

    Raises:
        StartError: it cannot be read, is not an unencrypted Ed25519 key, or
            others than its owner may use the file.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(_MAX_PEM)
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror or exc}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StartError(f"{path}: mode {mode:04o} lets others use this private key; run: chmod 600 {path}")
    try:
        return seal.load_private_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise StartError(f"{path}: not a usable private key: {_one_line(exc)}") from exc


def local_key_path(state_file: Path) -> Path:
    """Return where the key is that a proxy signs with what it has seen itself."""
    return state_file.with_name(f"{state_file.name}{_LOCAL_SUFFIX}")


def ensure_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the key in ``path``, which is made, with mode 0600, when there is none.

    For a key that signs for this host alone: when it is lost, a new one will do.

    Raises:
        StartError: as `read_private_key`, or the folder cannot be written.
    """
    if not path.exists():
        private, _ = seal.generate_key()
        try:
            write_atomically(path, private, 0o600)
        except OSError as exc:
            raise StartError(f"{path}: {exc.strerror or exc}") from exc
    return read_private_key(path)


def read_trusted_keys(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Return the public keys in ``paths`` by key id.

    Raises:
        StartError: one of them cannot be read or is not an Ed25519 public key.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                key = seal.load_public_key(file.read(_MAX_PEM))
        except OSError as exc:
            raise StartError(f"{path}: {exc.strerror or exc}") from exc
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise StartError(f"{path}: not a usable public key: {_one_line(exc)}") from exc
        keys[seal.key_id(key)] = key
    return keys


def _one_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
