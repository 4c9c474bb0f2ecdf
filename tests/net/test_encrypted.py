from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from typing import cast

import pytest

from dnsproxy.core.wire import scan_query
from dnsproxy.errors import DropReason
from dnsproxy.net import encrypted
from dnsproxy.net.encrypted import EncryptedClient
from tests.fakes.serving import House, Reading
from tests.messages import CLIENT, REGISTRY, query


class Client(EncryptedClient):
    """Takes one whole message at a time."""

    def take(self, data: bytes) -> None:
        self.ask(data, "token")

    def held(self) -> int:
        return 0

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:
        assert (token, query[:2]) == ("token", response[:2])
        self.write(response)

    def decline(self, token: Hashable, reason: DropReason) -> None:
        assert str(token) == "token"
        self.write(reason.value.encode())


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    made.forwarder.close()


def connected(house: House) -> tuple[Client, Reading]:
    client, transport = Client(house, CLIENT), Reading()
    client.connection_made(cast("asyncio.Transport", transport))
    return client, transport


async def test_answers_and_drops_are_written(house: House) -> None:
    client, transport = connected(house)
    client.data_received(query(REGISTRY))
    client.data_received(b"short")
    assert (len(transport.written), transport.written[1]) == (2, b"short")
    assert sum(house.engine.stats_now().durations) == 1


async def test_p17_nothing_is_read_while_too_many_queries_wait(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted, "MAX_WAITING", 1)
    client, transport = connected(house)
    client.data_received(query("www.example."))
    assert (client.waiting, transport.reads) == (1, False)


async def test_p17_nothing_is_read_from_who_does_not_read(house: House) -> None:
    client, transport = connected(house)
    client.pause_writing()
    assert not transport.reads
    client.resume_writing()
    assert [transport.reads] == [True]


async def test_p17_who_does_not_read_at_all_is_cut(house: House) -> None:
    client, transport = connected(house)
    transport.unsent = encrypted.MAX_UNREAD + 1
    client.data_received(query(REGISTRY))
    assert transport.aborts == 1
    client.write(b"more")
    client.close()
    assert (transport.aborts, len(transport.written)) == (1, 1)


async def test_p17_only_idle_connections_are_closed(house: House) -> None:
    client, transport = connected(house)
    client.close_if_idle(client.active + encrypted.IDLE_SECONDS - 1)
    client.data_received(query("www.example."))
    client.close_if_idle(client.active + encrypted.IDLE_SECONDS + 1)
    assert transport.aborts == 0
    client.waiting = 0
    client.close_if_idle(client.active + encrypted.IDLE_SECONDS + 1)
    assert transport.aborts == 1


async def test_a_client_that_has_left_is_forgotten_and_not_written_to(house: House) -> None:
    client, transport = connected(house)
    client.data_received(query("www.example."))
    client.connection_lost(None)
    assert house.left == [client]
    client._respond("token", b"", scan_query(query("www.example.")))
    assert (client.waiting, transport.written) == (0, [])
