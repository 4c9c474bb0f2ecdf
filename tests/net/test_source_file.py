from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncinotify
import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import FetchError
from dnsproxy.net import fetch as module
from dnsproxy.net.fetch import Fetched, Fetcher, Request
from dnsproxy.settings.sources import SourceSettings
from tests.fakes.kubelet import AtomicWriter

PLAIN = Request()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    await fetcher.close()


def source(url: str) -> SourceSettings:
    return SourceSettings(url=url)


async def failure(fetcher: Fetcher, settings: SourceSettings) -> str:
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(settings, PLAIN)
    return str(caught.value)


async def test_a_file(fetcher: Fetcher, tmp_path: Path) -> None:
    file = tmp_path / "a snapshot.jws"
    file.write_bytes(b" a.b.c\n")
    fetched = await fetcher.fetch(source(file.as_uri()), Request(serial=7, etag="x"))
    assert fetched == Fetched("a.b.c", fetched.etag)
    # The same content is nothing new, wherever it lies now.
    file.rename(file.with_name("moved"))
    file.with_name("moved").rename(file)
    again = await fetcher.fetch(source(file.as_uri()), Request(serial=7, etag=fetched.etag))
    assert again == Fetched(None, fetched.etag)


async def content(fetcher: Fetcher, settings: SourceSettings) -> str | None:
    return (await fetcher.fetch(settings, PLAIN)).token


async def told(fetcher: Fetcher, settings: SourceSettings) -> None:
    async with asyncio.timeout(20):
        await fetcher.changed(settings)


async def test_a_change_is_told_between_requests(fetcher: Fetcher, tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "volume")
    writer.write({"snapshot.jws": b"1"})
    mounted = source((tmp_path / "volume" / "snapshot.jws").as_uri())
    assert await content(fetcher, mounted) == "1"
    for number in (b"2", b"3"):
        writer.write({"snapshot.jws": number})
        await told(fetcher, mounted)
        assert await content(fetcher, mounted) == number.decode()


async def test_that_a_file_has_come_back_is_told(fetcher: Fetcher, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "snapshot"
    await failure(fetcher, source(file.as_uri()))
    file.parent.mkdir()
    await told(fetcher, source(file.as_uri()))
    await failure(fetcher, source(file.as_uri()))
    file.write_text("a.b.c")
    await told(fetcher, source(file.as_uri()))
    assert await content(fetcher, source(file.as_uri())) == "a.b.c"


async def test_without_inotify_a_file_is_read_all_the_same(
    fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> asyncinotify.Inotify:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    file = tmp_path / "snapshot"
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(asyncinotify, "Inotify", refuse)
        for number in ("1", "2"):
            file.write_text(number)
            assert await content(fetcher, source(file.as_uri())) == number
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await fetcher.changed(source(file.as_uri()))
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("learned.file_not_followed", "Too many open files")
    ]
    # The limit is over.
    await fetcher.fetch(source(file.as_uri()), PLAIN)
    file.write_text("3")
    await told(fetcher, source(file.as_uri()))


async def test_what_is_not_ascii_comes_back_as_no_token(fetcher: Fetcher, tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    file.write_bytes(b"\xff\x00")
    fetched = await fetcher.fetch(source(file.as_uri()), PLAIN)
    assert fetched.token is not None
    assert "\ufffd" in fetched.token


async def test_files_that_cannot_be_read(fetcher: Fetcher, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    missing = tmp_path / "missing"
    assert await failure(fetcher, source(missing.as_uri())) == f"file://{missing}: No such file or directory"
    # Opening a pipe waits for a writer; a pull must not.
    assert await failure(fetcher, source(pipe.as_uri())) == f"file://{pipe}: not a regular file"
    assert await failure(fetcher, source(tmp_path.as_uri())) == f"file://{tmp_path}: Is a directory"


@pytest.mark.parametrize(("size", "good"), [(1000, True), (1001, False)])
async def test_the_cap_counts_octets_exactly(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, *, good: bool
) -> None:
    monkeypatch.setattr(module, "MAX_OCTETS", 1000)
    file = tmp_path / "snapshot"
    file.write_text("x" * size)
    if good:
        assert (await fetcher.fetch(source(file.as_uri()), PLAIN)).token == "x" * size
    else:
        assert "larger than 1000 octets" in await failure(fetcher, source(file.as_uri()))
