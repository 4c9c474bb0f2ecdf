from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dnsproxy.errors import FetchError
from dnsproxy.net import fetch as module
from dnsproxy.net.fetch import Fetched, Fetcher, Request
from dnsproxy.settings.sources import SourceSettings

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
    assert await fetcher.fetch(source(file.as_uri()), Request(serial=7, etag="x")) == Fetched("a.b.c")


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
