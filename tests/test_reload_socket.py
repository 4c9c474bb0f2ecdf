from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dnsproxy import reload_socket
from dnsproxy.core.totals import Outcome
from dnsproxy.reload_socket import ReloadSocketError, ask, name_of, serve


@asynccontextmanager
async def serving(file: Path, outcome: Outcome) -> AsyncIterator[list[int]]:
    """Answer with ``outcome``; gives a list that grows with each reload."""
    reloads: list[int] = []

    async def reload() -> Outcome:
        reloads.append(1)
        return outcome

    task = asyncio.create_task(serve(file, reload))
    async with asyncio.timeout(10):
        while not is_open(file):
            await asyncio.sleep(0.001)
    yield reloads
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def is_open(file: Path) -> bool:
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as listed:  # noqa: PTH123 - not a file
        return name_of(file).replace("\0", "@") in listed.read()


async def test_a_reload_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    async with serving(file, Outcome(("helper.interval",), ("helper.listen",), files=("token",))) as reloads:
        monkeypatch.chdir(tmp_path)
        for path in (file, Path("config.yaml")):
            assert await asyncio.to_thread(ask, path) == {
                "changed": ["helper.interval"],
                "changed_files": ["token"],
                "need_restart": ["helper.listen"],
                "problems": [],
            }
    assert len(reloads) == 2


async def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    monkeypatch.setattr(reload_socket, "_user", lambda _peer: os.geteuid() + 1)
    async with serving(file, Outcome()) as reloads:
        document = await asyncio.to_thread(ask, file)
    assert document == {
        "problems": [
            f"user {os.geteuid() + 1} may not reload this helper; ask as root or as user {os.geteuid()}"
        ]
    }
    assert reloads == []


async def test_the_kernel_reports_the_user(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert reload_socket._user(ours) == os.geteuid()


async def test_a_second_helper_of_one_file_fails(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with serving(file, Outcome()):
        with pytest.raises(OSError, match="in use"):
            await serve(file, lambda: asyncio.sleep(0, Outcome()))


def test_no_helper_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        ReloadSocketError, match=r"no helper answers \(connection refused\); does `dnsproxy helper`"
    ):
        ask(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("answer", "text"), [(b"", "not an answer"), (b"[1]", "not an answer"), (None, "within")]
)
async def test_something_else_that_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, text: str
) -> None:
    monkeypatch.setattr(reload_socket, "TIMEOUT", 0.2)
    file = tmp_path / "config.yaml"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name_of(file))
        listener.listen()
        asking = asyncio.create_task(asyncio.to_thread(ask, file))
        peer, _ = await asyncio.to_thread(listener.accept)
        if answer is not None:
            peer.sendall(answer)
            peer.close()
        with pytest.raises(ReloadSocketError, match=text):
            await asking
        peer.close()
