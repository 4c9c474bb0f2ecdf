from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dnsproxy.errors import PublishError
from dnsproxy.helper.target_etcd import EtcdTarget
from tests.fakes.etcd import Member, Store, refuse, target


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    async with Member(Store()) as member:
        yield member


async def test_what_is_written_is_read(member: Member) -> None:
    etcd = EtcdTarget(target(member))
    assert etcd.name == f"etcd://{member.url.removeprefix('http://')}/dnsproxy/x"
    assert await etcd.read() is None
    await etcd.write("a.b.c")
    assert await etcd.read() == "a.b.c"
    await etcd.close()


async def test_refusals_say_what_to_do(member: Member) -> None:
    etcd = EtcdTarget(target(member))
    member.fault = refuse(400, error="etcdserver: request is too large", code=3)
    with pytest.raises(PublishError, match=r"has 5 octets, more than .* --max-request-bytes"):
        await etcd.write("a.b.c")
    member.fault = refuse(403, error="etcdserver: permission denied", code=7)
    with pytest.raises(PublishError, match="permission denied"):
        await etcd.write("a.b.c")
    with pytest.raises(PublishError, match="permission denied"):
        await etcd.read()
    await etcd.close()
