from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import PublishError
from dnsproxy.helper.target_etcd import EtcdTarget
from dnsproxy.transport import etcd_keys
from tests.fakes.etcd import KEY, Member, Store, refuse, target

SIGNER = Ed25519PrivateKey.generate()


def token(serial: int) -> str:
    return seal.sign(Snapshot("helper-a", serial, 1000 + serial, 2000, ()), SIGNER)


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


async def test_of_two_helpers_the_later_snapshot_stays(member: Member) -> None:
    one, two = EtcdTarget(target(member)), EtcdTarget(target(member))
    await two.write(token(6))
    with pytest.raises(PublishError, match="serial 6 of helper-a is there, later than 5"):
        await one.write(token(5))
    assert await one.read() == token(6)
    await one.write(token(7))
    assert await two.read() == token(7)
    await one.close()
    await two.close()


async def test_what_is_put_between_look_and_write_is_not_overwritten(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd = EtcdTarget(target(member))
    put_over = etcd_keys.put_over

    async def overtaken(*given: Any) -> bool:
        monkeypatch.setattr("dnsproxy.helper.target_etcd.put_over", put_over)
        member.store.put(KEY, token(6).encode())
        return await put_over(*given)

    monkeypatch.setattr("dnsproxy.helper.target_etcd.put_over", overtaken)
    with pytest.raises(PublishError, match="serial 6 of helper-a is there, later than 5"):
        await etcd.write(token(5))
    assert await etcd.read() == token(6)
    await etcd.close()
