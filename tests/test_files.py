from __future__ import annotations

import os
from pathlib import Path

import pytest

from dnsproxy.files import LEFTOVER_AGE, read_text, remove_leftovers, write_atomically


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_content_and_permissions_are_replaced(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_atomically(path, b"new", mode)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot.jws"
    write_atomically(path, b"old", 0o644)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new", 0o644)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_what_may_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert read_text(path) is None
    assert read_text(tmp_path) is None
    path.write_bytes(b"options caf\xe9\n")
    assert read_text(path) == "options caf\ufffd\n"


def test_leftovers_are_removed_once_nobody_can_be_writing_them(tmp_path: Path) -> None:
    path = tmp_path / "learned.jws"
    kept = [
        *(path.name, f"{path.name}.bad-12", f".{path.name}.abcd1234x", f".{path.name}.ABCD1234"),
        *(".other.jws.abcd1234", f".{path.name}.", f"{path.name}.abcd1234"),
    ]
    left = [f".{path.name}.abcd1234", f".{path.name}.orders.a_cd1234", f".{path.name}.key.abcd1234"]
    for name in (*kept, *left):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    assert remove_leftovers(path, 1000 + LEFTOVER_AGE - 1) == 0
    # Also when the clock was set back: nothing is written in the future.
    assert remove_leftovers(path, 1000 - LEFTOVER_AGE) == len(left)
    assert {entry.name for entry in tmp_path.iterdir()} == set(kept)
    assert remove_leftovers(tmp_path / "none" / "file", 2000) == 0
