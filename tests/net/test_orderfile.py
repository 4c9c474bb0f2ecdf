from __future__ import annotations

import errno
from pathlib import Path

import pytest
from dnsproxy.core.orders import Orders, Pin
from dnsproxy.net.orderfile import OrderFile
from structlog.testing import capture_logs

from dnsproxy.net import orderfile

ORDERS = Orders(pins={"a.example.": Pin(("10.0.0.1",), 1000)})


def file_in(folder: Path) -> OrderFile:
    return OrderFile(folder / "learned.jws", lambda: 1000.0)


def test_without_a_file_nothing_is_ordered(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert file_in(tmp_path).load() == Orders()
    assert logs == []


async def test_what_is_offered_is_there_after_a_restart(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.offer(ORDERS)
    assert await file.flush() is None
    assert file.path == tmp_path / "learned.jws.orders"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file_in(tmp_path).load() == ORDERS


async def test_the_same_orders_are_not_written_again(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.offer(ORDERS)
    await file.flush()
    written = file.path.stat().st_ino
    for fresh in (file, again := file_in(tmp_path)):
        again.load()
        fresh.offer(ORDERS)
        assert await fresh.flush() is None
    assert file.path.stat().st_ino == written


@pytest.mark.parametrize("cut", [1, 40, -3])
async def test_a_torn_file_is_set_aside(cut: int, tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.offer(ORDERS)
    await file.flush()
    content = file.path.read_bytes()
    file.path.write_bytes(content[:cut])
    again = file_in(tmp_path)
    with capture_logs() as logs:
        assert again.load() == Orders()
    assert [line["event"] for line in logs] == ["learned.orders_rejected", "learned.state_set_aside"]
    assert (tmp_path / "learned.jws.orders.bad-1000").read_bytes() == content[:cut]
    again.offer(ORDERS)
    assert await again.flush() is None
    assert file_in(tmp_path).load() == ORDERS


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"version": 1e400}'])
def test_foreign_content_is_set_aside(content: bytes, tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.path.write_bytes(content)
    assert file.load() == Orders()
    assert (tmp_path / "learned.jws.orders.bad-1000").exists()


async def test_a_file_that_cannot_be_read_is_said_and_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = file_in(tmp_path)
    written.offer(ORDERS)
    await written.flush()
    content = written.path.read_bytes()

    def refuse(_: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(orderfile, "read_state", refuse)
    file = file_in(tmp_path)
    with capture_logs() as logs:
        assert file.load() == Orders()
    assert [line["event"] for line in logs] == ["learned.orders_unreadable", "learned.state_set_aside"]
    file.offer(Orders(pins={"b.example.": Pin(("10.0.0.2",), 2000)}))
    assert await file.flush() is None
    assert (tmp_path / "learned.jws.orders.bad-1000").read_bytes() == content


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = file_in(tmp_path / "file")
    file.offer(ORDERS)
    assert await file.flush() == "File exists"


async def test_a_folder_that_has_gone_is_made_again(tmp_path: Path) -> None:
    file = file_in(tmp_path / "missing")
    file.offer(ORDERS)
    assert await file.flush() is None
    assert file_in(tmp_path / "missing").load() == ORDERS
