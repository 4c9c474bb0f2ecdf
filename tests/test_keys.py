from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.errors import StartError
from dnsproxy.keys import ensure_private_key, read_private_key, read_trusted_keys, write_key_pair

Reader = Callable[[Path], object]


def read_one_trusted(path: Path) -> object:
    return read_trusted_keys([path])


READERS = pytest.mark.parametrize("read", [read_private_key, read_one_trusted])


def test_a_pair_that_was_written_can_be_read_and_belongs_together(tmp_path: Path) -> None:
    private_path, public_path = write_key_pair(tmp_path / "new" / "folder")
    private = read_private_key(private_path)
    trusted = read_trusted_keys([public_path])
    assert list(trusted) == [seal.key_id(private.public_key())]
    assert (private_path.name, public_path.name) == ("helper.key", "helper.pub")


def test_only_the_owner_can_read_the_private_key_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_path, _ = write_key_pair(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(private_path.stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["helper.key", "helper.pub"])
def test_nothing_is_overwritten_and_no_half_pair_is_left(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_bytes(b"precious")
    with pytest.raises(StartError, match="exists already"):
        write_key_pair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_bytes() == b"precious"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "helper.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="exists already"):
        write_key_pair(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match="file"):
        write_key_pair(tmp_path / "file" / "below")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_private_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    private_path, _ = write_key_pair(tmp_path)
    private_path.chmod(mode)
    with pytest.raises(StartError, match="chmod 600") as caught:
        read_private_key(private_path)
    assert str(private_path) in str(caught.value)


@READERS
@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff" * 64])
def test_what_is_not_a_key_gives_one_line_with_the_file(tmp_path: Path, read: Reader, content: bytes) -> None:
    path = tmp_path / "some.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StartError, match="not a usable") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@READERS
def test_missing_files_and_folders_give_the_reason(tmp_path: Path, read: Reader) -> None:
    with pytest.raises(StartError, match=r"absent: No such file"):
        read(tmp_path / "absent")
    with pytest.raises(StartError, match=r"Is a directory"):
        read(tmp_path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    private = X25519PrivateKey.generate()
    key, pub = tmp_path / "x.key", tmp_path / "x.pub"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    pub.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(StartError, match="not an Ed25519 key"):
        read_private_key(key)
    with pytest.raises(StartError, match="not an Ed25519 key"):
        read_trusted_keys([pub])


def test_an_encrypted_private_key_is_refused(tmp_path: Path) -> None:
    private_path, _ = write_key_pair(tmp_path)
    locked = read_private_key(private_path).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    private_path.write_bytes(locked)
    with pytest.raises(StartError, match="encrypted"):
        read_private_key(private_path)


def test_several_trusted_keys_are_found_by_their_ids(tmp_path: Path) -> None:
    paths = [write_key_pair(tmp_path / name)[1] for name in ("a", "b")]
    trusted = read_trusted_keys(paths)
    assert len(trusted) == 2
    assert all(seal.key_id(key) == kid for kid, key in trusted.items())


def test_a_key_of_this_host_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "state.key"
    before = os.umask(0)
    try:
        made = ensure_private_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = ensure_private_key(path)
    assert seal.key_id(again.public_key()) == seal.key_id(made.public_key())


def test_a_key_of_this_host_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.key"
    ensure_private_key(path)
    path.chmod(0o640)
    with pytest.raises(StartError, match="chmod 600"):
        ensure_private_key(path)


def test_a_key_of_this_host_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file or directory"):
        ensure_private_key(tmp_path / "none" / "state.key")
