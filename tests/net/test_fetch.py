from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import FetchError, StartError
from dnsproxy.net import fetch as module
from dnsproxy.net.fetch import Fetched, Fetcher, Reader, Request, make_reader, public_url, text_of
from dnsproxy.settings.sources import Source, SourceSettings

HELPER = SourceSettings(url="http://me:hunter2@h.example/v1/snapshot?sig=s3cret")


class Stub:
    """A reader that does as it is told."""

    def __init__(self) -> None:
        self.outcome: Fetched | Exception = Fetched("a.b.c", "7")
        self.pause = 0.0
        self.requests: list[Request] = []
        self.closed = 0

    async def fetch(self, request: Request) -> Fetched:
        self.requests.append(request)
        await asyncio.sleep(self.pause)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()

    def make(_source: Source, _source_address: object) -> Reader:
        return stub

    monkeypatch.setattr(module, "make_reader", make)
    return stub


async def test_a_source_keeps_its_reader_until_the_end(stub: Stub) -> None:
    fetcher, request = Fetcher(), Request(7, "6", 3.0)
    for _ in range(2):
        assert await fetcher.fetch(HELPER, request) == Fetched("a.b.c", "7")
    assert stub.requests == [request, request]
    await fetcher.close()
    await fetcher.close()
    assert stub.closed == 1


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (FetchError("status 503"), "status 503"),
        (StartError("needs another package"), "needs another package"),
        (ConnectionRefusedError(111, "Connect call failed"), "Connection refused"),
        (ValueError("no sense"), "no sense"),
    ],
)
async def test_whatever_fails_names_the_source_without_its_secrets(
    stub: Stub, outcome: Exception, reason: str
) -> None:
    stub.outcome = outcome
    with pytest.raises(FetchError) as caught:
        await Fetcher().fetch(HELPER, Request())
    assert str(caught.value) == f"http://h.example/v1/snapshot: {reason}"


async def test_no_reader_is_waited_for_for_ever(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.pause = 60
    monkeypatch.setattr(module, "DEADLINE", 0.1)
    monkeypatch.setattr(module, "WAIT_MARGIN", 0.1)
    for request, deadline in ((Request(), "0.1"), (Request(wait=0.2), "0.3")):
        with pytest.raises(FetchError, match=f"no whole answer within {deadline} s"):
            await Fetcher().fetch(HELPER, request)


@pytest.mark.parametrize(
    ("source", "reader"),
    [
        (SourceSettings(url="file:///x"), "FileReader"),
        (SourceSettings(url="http://h.example/x"), "HttpReader"),
        (SourceSettings(url="https://h.example/x"), "HttpReader"),
    ],
)
def test_each_kind_of_source_has_its_reader(source: Source, reader: str) -> None:
    assert type(make_reader(source)).__name__ == reader


def test_what_is_not_ascii_is_no_token() -> None:
    assert text_of(b" a.b.c\n") == "a.b.c"
    assert "\ufffd" in text_of(b"\xff")


# -- urls ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h.example:8953/v1/snapshot", "https://h.example:8953/v1/snapshot"),
        ("https://u:p@h.example/x?token=1#f", "https://h.example/x"),
        ("https://u:p@ss@[::1]:1/x", "https://[::1]:1/x"),
        ("file:///var/lib/x", "file:///var/lib/x"),
        ("dns://[fd00::5]:53", "dns://[fd00::5]:53"),
        ("embedded:", "embedded"),
        ("http://u:hunter2@[::1/x", "http: (not a usable URL)"),
    ],
)
def test_public_url(url: str, expected: str) -> None:
    assert public_url(url) == expected


async def test_a_reader_that_fails_to_tell_of_changes_tells_of_none(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()

    async def changed() -> None:
        failed.set()
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(stub, "changed", changed, raising=False)
    fetcher = Fetcher()
    await fetcher.fetch(HELPER, Request())
    with capture_logs() as logs:
        waiting = asyncio.create_task(fetcher.changed(HELPER))
        await failed.wait()
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        waiting.cancel()
        await asyncio.wait([waiting])
    assert [(entry["event"], entry["source"]) for entry in logs] == [
        ("learned.source_crashed", "http://h.example/v1/snapshot")
    ]
    await fetcher.close()
