from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from dnsproxy.core.attempt import Limits
from dnsproxy.net import bootstrap
from dnsproxy.net.bootstrap import Bootstrap
from tests.fakes.forwarding import LONG, TC, at, world
from tests.fakes.upstream import Asked, FakeUpstream, silence
from tests.messages import read, reply_to

HOST = "dns.example"


def knowing(*records: str) -> Callable[[Asked], Iterable[bytes]]:
    def hook(asked: Asked) -> Iterable[bytes]:
        kind = {1: " A ", 28: " AAAA "}[read(asked.data).question[0].rdtype]
        return [reply_to(asked.data, [record for record in records if kind in record or " CNAME " in record])]

    return hook


@asynccontextmanager
async def asking(*fakes: FakeUpstream, limits: Limits = LONG) -> AsyncIterator[Bootstrap]:
    async with world() as made:
        yield Bootstrap(made.forwarder, tuple(at(fake) for fake in fakes), limits)
        assert made.engine.in_flight == 0


async def test_p17_a_name_is_asked_for_once_while_its_ttl_lasts() -> None:
    async with FakeUpstream(knowing(f"{HOST}. 300 IN A 192.0.2.5", f"{HOST}. 300 IN A 192.0.2.6")) as fake:
        async with asking(fake) as made:
            for _ in range(3):
                assert list(await made.resolve(HOST)) == ["192.0.2.5", "192.0.2.6"]
        assert len(fake.asked) == 1


async def test_p17_an_address_needs_nobody() -> None:
    async with asking() as made:
        assert list(await made.resolve("192.0.2.1")) == ["192.0.2.1"]
        assert list(await made.resolve("2001:db8::1")) == ["2001:db8::1"]


async def test_p17_aliases_and_addresses_of_either_kind() -> None:
    alias = f"{HOST}. 300 IN CNAME a.example."
    async with (
        FakeUpstream(knowing(alias, "a.example. 300 IN AAAA 2001:db8::5")) as fake,
        asking(fake) as made,
    ):
        assert list(await made.resolve(HOST)) == ["2001:db8::5"]


async def test_p21_the_next_resolver_is_asked() -> None:
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(knowing(f"{HOST}. 300 IN A 192.0.2.5")) as alive,
        asking(dead, alive, limits=Limits(0.05, 10)) as made,
    ):
        assert list(await made.resolve(HOST)) == ["192.0.2.5"]


async def test_p15_many_addresses_come_over_tcp() -> None:
    many = [f"{HOST}. 300 IN A 10.0.0.{n}" for n in range(150)]

    def truncate(asked: Asked) -> Iterable[bytes]:
        return knowing(*many)(asked) if asked.tcp else [reply_to(asked.data, flags=TC)]

    async with FakeUpstream(truncate) as fake, asking(fake) as made:
        assert len(await made.resolve(HOST)) == 150


async def test_p17_a_name_that_nobody_knows() -> None:
    async with FakeUpstream(knowing()) as fake, asking(fake) as made:
        with pytest.raises(OSError, match=r"forward.bootstrap has no address for dns\.example"):
            await made.resolve(HOST)


async def test_p17_the_last_addresses_known_are_used_while_nobody_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "SHORTEST", 0)
    async with FakeUpstream(knowing(f"{HOST}. 0 IN A 192.0.2.5")) as fake, asking(fake) as made:
        assert list(await made.resolve(HOST)) == ["192.0.2.5"]
        fake.hook = knowing()
        assert list(await made.resolve(HOST)) == ["192.0.2.5"]
        fake.hook = knowing(f"{HOST}. 0 IN A 192.0.2.7")
        assert list(await made.resolve(HOST)) == ["192.0.2.7"]
        # Each time it was found out anew: A, A and AAAA, A.
        assert len(fake.asked) == 4


async def test_p10_a_reply_that_cannot_be_decoded_tells_nothing() -> None:
    many = [f"{HOST}. 300 IN A 10.0.{n >> 8}.{n & 255}" for n in range(1000)]
    async with FakeUpstream(knowing(*many)) as fake, world(at(fake, tcp=True)) as made:
        asker = Bootstrap(made.forwarder, (at(fake, tcp=True),), LONG)
        with pytest.raises(OSError, match="no address"):
            await asker.resolve(HOST)
