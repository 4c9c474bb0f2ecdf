"""The reader against moto's server."""

from __future__ import annotations

import asyncio
import sys

import pytest

from dnsproxy.errors import FetchError
from dnsproxy.net.fetch import Fetched, Fetcher, Request
from dnsproxy.net.source_s3 import S3Reader
from dnsproxy.settings.sources import S3Source, SourceSettings
from dnsproxy.transport.objectstore import ObjectStore
from tests.fakes.objectstores import BUCKET, Store, owner_of

pytestmark = pytest.mark.xdist_group("moto")


def place_of(source: S3Source) -> ObjectStore:
    return ObjectStore(source)


async def test_it_tells_what_is_new_and_what_is_not(moto: Store) -> None:
    source = moto.source()
    reader = S3Reader(source)
    with pytest.raises(FetchError, match="no helper has published there yet"):
        await reader.fetch(Request())
    written = await place_of(source).put(b"a.b.c\n", None)
    fetched = await reader.fetch(Request())
    assert fetched == Fetched("a.b.c", written.mark)
    again = Request(serial=1, etag=fetched.etag)
    assert await reader.fetch(again) == Fetched(None, fetched.etag)
    await place_of(source).put(b"d.e.f", written)
    assert (await reader.fetch(again)).token == "d.e.f"  # noqa: S105 - no password
    await reader.close()


async def test_failures_name_the_object_and_no_secret(moto: Store) -> None:
    fetcher = Fetcher()
    source = moto.source("x.jws", bucket="no-such-bucket")
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(source, Request())
    host = moto.endpoint.removeprefix("http://")
    assert str(caught.value) == f"s3://{host}/no-such-bucket/x.jws: there is no such bucket"
    await fetcher.close()


async def test_a_missing_extra_is_told(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(FetchError, match=r"s3 needs another package: pip install 'obstore"):
        await Fetcher().fetch(moto.source(), Request())


async def test_a_public_object_is_a_plain_https_source_too(moto: Store) -> None:
    """Public, or behind a CDN: no extra, no credentials; the entity tag does the same."""
    source = moto.source()
    url = f"{moto.endpoint}/{BUCKET}/{source.key}"
    fetcher = Fetcher()

    async def read(request: Request) -> Fetched:
        return await fetcher.fetch(SourceSettings(url=url), request)

    def publish() -> None:
        with owner_of(moto.endpoint) as owner:
            owner.put_object_acl(Bucket=BUCKET, Key=source.key, ACL="public-read")

    try:
        written = await place_of(source).put(b"a.b.c", None)
        with pytest.raises(FetchError, match="status 403"):
            await read(Request())
        await asyncio.to_thread(publish)
        assert await read(Request()) == Fetched("a.b.c", written.mark)
        again = Request(serial=1, etag=written.mark)
        assert (await read(again)).token is None
        # A helper's question that no other server knows does no harm.
        assert (await read(Request(serial=1, etag=written.mark, wait=1))).token is None
        await place_of(source).put(b"d.e.f", written)
        await asyncio.to_thread(publish)
        assert (await read(again)).token == "d.e.f"  # noqa: S105 - no password
    finally:
        await fetcher.close()
