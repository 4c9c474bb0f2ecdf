from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.state_file import encode
from dnsproxy.core.learned import Scope, Snapshot
from dnsproxy.core.registry import Wanted
from dnsproxy.core.trust import Trust
from dnsproxy.errors import Rejection, SnapshotError, StartError
from dnsproxy.files import write_atomically
from dnsproxy.net import statefile
from dnsproxy.net.statefile import (
    DISK_FAULTS,
    KEEP_ASIDE,
    StateFile,
    check_writable,
    load_state,
    open_snapshot,
    overrides_path,
    set_aside,
)
from tests.strategies import learned, snapshot

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
A, B = "a.example.", "b.example."
SCOPE = Scope(frozenset(map(names.to_key, (A, B))))
TRUST = Trust({seal.key_id(KEY.public_key()): KEY.public_key()}, SCOPE)
FIRST = snapshot(learned(A, ("10.0.0.1",)), issuer="helper-a", serial=1)
SECOND = snapshot(learned(B, ("10.0.0.2",)), issuer="helper-b", serial=7)
BOTH = {A: ("10.0.0.1",), B: ("10.0.0.2",)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "learned.jws"


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write(path: Path, *lines: str) -> None:
    """Replace the file: one that was set aside keeps its content."""
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode(), 0o600)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def signed(content: Snapshot, key: Ed25519PrivateKey = KEY) -> OpenedSnapshot:
    return OpenedSnapshot(content, seal.key_id(key.public_key()), seal.sign(content, key))


def empty() -> AddressLifecycle:
    managed = tuple(Wanted(name, "other", "hangzhou") for name in (A, B))
    return AddressLifecycle(AddressPolicy(managed=managed, keys=dict.fromkeys(TRUST.keys), ports=()))


def answers(state: AddressLifecycle) -> dict[str, tuple[str, ...]]:
    while not state.settle(100, 0.0, 1010.0):
        pass
    return {name: held.learned.addresses for name, held in state.table().sets.items()}


def state_of(*taken: Snapshot) -> AddressLifecycle:
    state = empty()
    for content in taken:
        state.accept(signed(content))
        answers(state)
    return state


def loaded(path: Path) -> tuple[dict[str, tuple[str, ...]], list[str] | None]:
    """Return what is answered after a start with the file at ``path``, and the problems."""
    state = empty()
    problems = load_state(path, state, TRUST)
    return answers(state), problems


# -- reading -------------------------------------------------------------------------


def test_what_is_written_is_read_again(path: Path) -> None:
    state = state_of(FIRST, SECOND)
    state.pin(A, ["10.7.7.7"], 1005.0)
    write(path, *encode(state))
    assert loaded(path) == ({A: ("10.7.7.7",), B: ("10.0.0.2",)}, [])


def test_without_a_file_there_is_nothing(path: Path) -> None:
    assert loaded(path) == ({}, None)


def test_a_file_that_cannot_be_read_raises(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        loaded(path)


def test_a_state_file_cut_anywhere_keeps_the_snapshots_that_are_whole(path: Path) -> None:
    content = "\n".join(encode(state_of(FIRST, SECOND))).encode()
    ends = [
        content.index(token.encode()) + len(token) for token in (signed(FIRST).token, signed(SECOND).token)
    ]
    for size in range(len(content)):
        path.write_bytes(content[:size])
        held, problems = loaded(path)
        expected = {name: BOTH[name] for name, end in zip(BOTH, ends, strict=True) if size >= end}
        assert held == expected, size
        assert bool(problems) is (size > 0), size


def test_a_changed_byte_costs_no_more_than_its_snapshot(path: Path) -> None:
    content = "\n".join(encode(state_of(FIRST, SECOND))).encode()
    tokens = [signed(content).token.encode() for content in (FIRST, SECOND)]
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        held, _ = loaded(path)
        for name, token in zip(BOTH, tokens, strict=True):
            start = content.index(token)
            if not start <= place < start + len(token):
                assert held.get(name) == BOTH[name], place


@pytest.mark.parametrize(
    "content",
    [
        *(b"\x00" * 100, b"\xff\xfe\n\n", b"{}\n", b"..\n", b"a.b.c\n" * 50, b"[" * 100_000, b"{" * 100_000),
        *(b'{"version": 2, "snapshots": 5}', b'{"version": 99, "snapshots": []}', b'{"version": 1e400}'),
    ],
)
def test_foreign_content_is_a_problem_and_nothing_else(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    held, problems = loaded(path)
    assert held == {}
    assert problems


def test_a_file_without_end_is_not_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statefile, "MAX_STATE", 8)
    path.write_bytes(b"a.b.c\n" + b"x" * 100)
    assert statefile._read(path) == "a.b.c\nxx"


def test_a_snapshot_is_verified_again_and_reduced_to_its_scope(path: Path) -> None:
    wide = snapshot(learned(A), learned("foreign.example.", ("10.6.6.6",)))
    assert [entry.name for entry in open_snapshot(signed(wide).token, TRUST).snapshot.names] == [A]
    with pytest.raises(SnapshotError) as caught:
        open_snapshot(signed(FIRST, OTHER_KEY).token, TRUST)
    assert caught.value.reason is Rejection.UNKNOWN_KEY
    # It is kept: its names may be configured again.
    assert open_snapshot(signed(snapshot(learned("foreign.example."))).token, TRUST).snapshot.names == ()
    write(path, *encode(state_of(FIRST)))
    assert load_state(path, empty(), Trust({}, SCOPE))


def test_an_expired_snapshot_is_better_than_none(path: Path) -> None:
    expired = Snapshot("helper-a", 1, 10, 20, (learned(A, ("10.0.0.1",), observed_at=10),))
    write(path, *encode(state_of(expired)))
    assert loaded(path) == ({A: ("10.0.0.1",)}, [])


# -- the files of the version before ---------------------------------------------------


def earlier_overrides(**sections: object) -> str:
    lists: dict[str, object] = {key: [] for key in ("pins", "history", "in_service", "held_back", "trials")}
    return json.dumps({"version": 1, "freeze": None, **lists, **sections})


def test_a_snapshot_a_line_with_overrides_beside(path: Path) -> None:
    path.write_bytes(f"\n {signed(FIRST).token}\r\n\n\t{signed(SECOND).token}".encode())
    assert loaded(path) == (BOTH, [])
    pin = {"name": A, "addresses": ["10.7.7.7"], "since": 1000}
    overrides_path(path).write_text(earlier_overrides(pins=[pin]))
    assert loaded(path) == ({A: ("10.7.7.7",), B: ("10.0.0.2",)}, [])
    path.unlink()
    assert loaded(path) == ({A: ("10.7.7.7",)}, [])


def test_names_of_an_older_snapshot_of_the_same_helper_are_read(path: Path) -> None:
    later = snapshot(learned(B, ("10.0.0.2",)), issuer="helper-a", serial=2)
    write(path, signed(FIRST).token, signed(later).token)
    assert loaded(path) == (BOTH, [])


def test_a_snapshot_file_of_the_version_before_cut_anywhere(path: Path) -> None:
    tokens = [signed(FIRST).token, signed(SECOND).token]
    content = "".join(f"{token}\n" for token in tokens).encode()
    first_end, second_end = len(tokens[0]), len(content) - 1
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        held, problems = loaded(path)
        assert held == {name: BOTH[name] for name, end in ((A, first_end), (B, second_end)) if size >= end}
        is_whole = size in {0, first_end, first_end + 1, second_end, second_end + 1}
        assert bool(problems) is not is_whole, size


@pytest.mark.parametrize("content", ["torn", "[]", "{}", '{"version": 3}', "[" * 100_000])
def test_overrides_that_make_no_sense_hide_no_snapshot(path: Path, content: str) -> None:
    write(path, signed(FIRST).token)
    overrides_path(path).write_text(content)
    held, problems = loaded(path)
    assert held == {A: ("10.0.0.1",)}
    assert problems


# -- setting aside ---------------------------------------------------------------


def test_set_aside_keeps_the_content_until_it_is_replaced(path: Path) -> None:
    write(path, *["bad"])
    with capture_logs() as logs:
        aside = set_aside(path, 1000.9)
    assert aside == path.with_name("learned.jws.bad-1000")
    assert read(path) == ["bad"]
    write(path, *["good"])
    assert (read(aside), read(path)) == (["bad"], ["good"])
    assert [event["event"] for event in logs] == ["learned.state_set_aside"]


def test_the_newest_three_are_kept_also_within_one_second(path: Path) -> None:
    other = path.with_name("learned.jws.bad-old")
    other.touch()
    for number in range(5):
        write(path, *[str(number)])
        set_aside(path, 999)
    kept = sorted(path.parent.glob("*.bad-[0-9]*"), key=lambda entry: int(entry.name.rpartition("-")[2]))
    assert [read(entry) for entry in kept] == [["2"], ["3"], ["4"]]
    assert len(kept) == KEEP_ASIDE
    assert other.exists()


def test_without_hard_links_it_is_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write(path, *["bad"])
    aside = set_aside(path, 1000)
    assert aside is not None
    assert read(aside) == ["bad"]
    assert not path.exists()


def test_what_cannot_be_set_aside_is_logged(path: Path) -> None:
    with capture_logs() as logs:
        assert set_aside(path, 1000) is None
    assert logs[0]["event"] == "learned.state_set_aside_failed"
    assert logs[0]["reason"] == "No such file or directory"


# -- the check at start ------------------------------------------------------------


def test_the_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "learned.jws"
    check_writable(path)
    assert names_in(path.parent) == []


def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "learned.jws", tmp_path / "file" / "below" / "learned.jws", tmp_path):
        with pytest.raises(StartError) as caught:
            check_writable(path)
        assert str(caught.value).startswith(f"learn.state_file: {path}: cannot be written: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", sorted(DISK_FAULTS))
def test_a_disk_that_has_failed_since_keeps_nobody_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", fails)
    # With nothing to answer from it is a mistake of the configuration that somebody should hear of.
    with pytest.raises(StartError, match=re.escape(os.strerror(fault))):
        check_writable(path)
    path.write_text("a.b.c")
    with capture_logs() as logs:
        assert check_writable(path) == os.strerror(fault)
    assert [(event["event"], event["log_level"]) for event in logs] == [
        ("learned.state_write_failed", "error")
    ]


def test_what_a_killed_program_left_is_removed_at_start(path: Path) -> None:
    left = path.with_name(f".{path.name}.abcd1234")
    left.write_text("half")
    os.utime(left, (1000, 1000))
    assert check_writable(path) is None
    assert names_in(path.parent) == []


# -- writing ---------------------------------------------------------------------------


class Disk:
    """Stands between a `StateFile` and the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.written: list[bytes] = []
        self.writing = self.most = 0
        monkeypatch.setattr(statefile, "write_atomically", self._write)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        self.entered.set()
        assert self.go.wait(20)
        write_atomically(path, content, mode)
        self.written.append(content)
        self.writing -= 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.go.set()


async def test_lines_are_on_disk_when_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        synced.append(f"{'folder' if stat.S_ISDIR(mode) else 'file'}, in place: {path.exists()}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await StateFile(path).write(["a", "b"])
    assert read(path) == ["a", "b"]
    assert synced == ["file, in place: False", "folder, in place: True"]
    assert names_in(path.parent) == [path.name]
    assert mode_of(path) == 0o600


async def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(path)
    await file.write(["old"])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "fsync", full)
        for _ in range(2):
            await file.write(["new"])
            assert file.failure == "No space left on device"
    assert read(path) == ["old"]
    assert names_in(path.parent) == [path.name]
    assert [(event["event"], event["reason"]) for event in logs] == [
        ("learned.state_write_failed", "No space left on device")
    ]
    with capture_logs() as logs:
        await file.write(["new"])
    assert (file.failure, read(path)) == (None, ["new"])
    assert [event["event"] for event in logs] == ["learned.state_written"]


async def test_a_folder_that_has_gone_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "learned.jws"
    file = StateFile(path, failure="Read-only file system")
    for lines in (["a"], ["b"]):
        await file.write(lines)
        assert (read(path), file.failure) == (lines, None)
        assert mode_of(path.parent) == 0o700
        shutil.rmtree(path.parent)


async def test_a_disk_that_hangs_is_waited_for_no_longer_than_patience(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "PATIENCE", 0.05)
    file = StateFile(path)
    with capture_logs() as logs:
        for line in ("a", "b", "c"):
            await file.write([line])
            assert file.failure == "the disk has not completed a write within 0.05 s"
        assert disk.most == 1
        monkeypatch.setattr(statefile, "PATIENCE", 20.0)
        disk.go.set()
        await file.write(["d"])
    assert (disk.most, disk.written) == (1, [b"a", b"d"])
    assert (read(path), file.failure) == (["d"], None)
    assert [event["event"] for event in logs] == ["learned.state_write_failed", "learned.state_written"]


async def test_a_write_that_was_cancelled_ends_before_the_next(path: Path, disk: Disk) -> None:
    file = StateFile(path)
    first = asyncio.ensure_future(file.write(["old"]))
    while not disk.entered.is_set():
        await asyncio.sleep(0.005)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.ensure_future(file.write(["new"]))
    await asyncio.sleep(0)
    disk.go.set()
    await second
    assert (disk.written, disk.most) == ([b"old", b"new"], 1)
    assert read(path) == ["new"]


async def test_without_a_thread_nothing_is_written_and_nothing_raised(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    file = StateFile(path)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        await file.write(["a"])
    assert (file.failure, names_in(path.parent)) == ("can't start new thread", [])
    await file.write(["a"])
    assert (file.failure, read(path)) == (None, ["a"])
