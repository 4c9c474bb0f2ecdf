"""What stands around an encrypted client when no socket is open."""

from __future__ import annotations

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.engine import Engine
from dnsproxy.net import encrypted
from dnsproxy.net.encrypted import EncryptedClient
from dnsproxy.net.upstream import Forwarder
from tests.fakes.links import Transport
from tests.messages import engine, hangzhou


class Reading(Transport):
    """Notes whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == encrypted.ENOUGH_UNREAD

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class House:
    path = "/dns-query"

    def __init__(self) -> None:
        self.engine: Engine = engine(hangzhou())
        self.forwarder = Forwarder(self.engine)
        self.buffers = MemoryBudget(1 << 20)
        self.left: list[EncryptedClient] = []

    def forget(self, client: EncryptedClient) -> None:
        self.left.append(client)
