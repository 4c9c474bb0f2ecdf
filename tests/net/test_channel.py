from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.attempt import Failure, Limits
from dnsproxy.core.exchange import MAX_LOSSES, MAX_SENDS, Forward
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net import channel, link
from dnsproxy.net.dial import Dialer
from tests.fakes.forwarding import at, numbered, respond, truncate, world
from tests.fakes.nameserver import closed_port
from tests.fakes.upstream import Asked, FakeUpstream, silence, until
from tests.messages import addresses, query, read


async def test_p17_queries_share_one_connection() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        for name in ("a.example.", "b.example."):
            assert addresses((await made.ask(query(name)))[0]) == ["192.0.2.1"]
        await made.ask(*numbered(channel.GROW_AT))
        assert fake.accepted == 1
        assert len(fake.asked) == channel.GROW_AT + 2


async def test_p17_replies_may_come_in_any_order() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.submit(*numbered(20))
        await until(lambda: len(fake.asked) == 20)
        fake.send_stream(reply for asked in reversed(fake.asked) for reply in respond(asked))
        await until(lambda: len(made.responses) == 20)
        assert [read(data).id for data in made.responses] == list(reversed(range(20)))
        assert {read(data).answer[0].to_text() for data in made.responses} == {
            f"n{number}.example. 60 IN A 192.0.2.1" for number in range(20)
        }


async def test_p17_more_connections_when_many_wait_but_few() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.submit(*numbered(400))
        await until(lambda: len(fake.asked) == 400)
        assert fake.accepted == channel.MAX_LINKS
        loads = [found.load for found in made.links]
        assert max(loads) - min(loads) <= 1


async def test_p43_a_query_whose_place_went_to_another_makes_room_on_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING", 2)
    monkeypatch.setattr(channel, "MAX_LINKS", 1)
    upstream = FakeUpstream(silence)
    async with upstream as fake, world(at(fake, tcp=True), max_in_flight=2) as made:
        made.submit(*numbered(2))
        await until(lambda: len(fake.asked) == 2)
        # Another client takes the place of the oldest question.
        now = monotonic()
        step = made.engine.receive(query("other.example."), b"\x7f\0\0\2", now)
        assert isinstance(step, Forward)
        made.forwarder.submit(step, lambda _token, data, _query: made.responses.append(data), None, now)
        await until(lambda: len(fake.asked) == 3)
        assert made.links[0].load == 2
        fake.send_stream(reply for asked in fake.asked for reply in respond(asked))
        await until(lambda: len(made.responses) == 2)
        names = [read(data).question[0].name.to_text() for data in made.responses]
        assert names == ["n1.example.", "other.example."]


async def test_p43_late_queries_take_no_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names are never answered, and asked for again and again; what else is asked is answered."""
    monkeypatch.setattr(channel, "MAX_WAITING", 3)
    monkeypatch.setattr(channel, "MAX_LINKS", 1)

    def respond_to_others(asked: Asked) -> Iterable[bytes]:
        return [] if b"example" in asked.data else respond(asked)

    async with (
        FakeUpstream(respond_to_others) as fake,
        world(at(fake, tcp=True), limits=Limits(0.2, 30)) as made,
    ):
        made.submit(*numbered(2))
        number = 0
        while len(fake.asked) < number + 6:
            (response,) = await made.ask(query(f"n{number}.test."))
            assert read(response).rcode() == 0
            number += 1
            await asyncio.sleep(0.01)


async def test_p43_any_connection_may_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING", 1)
    monkeypatch.setattr(channel, "GROW_AT", 1)
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True), max_in_flight=4) as made:
        made.submit(*numbered(4))
        await until(lambda: len(fake.asked) == 4)
        for number in range(3):
            now = monotonic()
            step = made.engine.receive(query(f"other{number}.example."), bytes((127, 0, 0, 2 + number)), now)
            assert isinstance(step, Forward)
            made.forwarder.submit(step, lambda _token, _data, _query: None, None, now)
        await until(lambda: len(fake.asked) == 7)
        assert [upstream.stats.failures for upstream in made.engine.upstreams()] == [{}]


async def test_p27_more_queries_than_connections_may_carry_fail_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING", 2)
    monkeypatch.setattr(channel, "MAX_LINKS", 1)
    async with (
        FakeUpstream(silence) as slow,
        FakeUpstream(respond) as other,
        world(at(slow, tcp=True), at(other)) as made,
    ):
        made.submit(*numbered(3))
        await until(lambda: made.responses)
        assert [read(data).id for data in made.responses] == [2]
        assert [u.stats.failures for u in made.engine.upstreams()] == [{"busy": 1}, {}]


# -- connections that end


async def test_p17_a_connection_that_was_closed_while_idle_costs_no_query() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        for number in range(3):
            # Closed by the other end; that is found out only as the next query is on its way.
            assert addresses((await made.ask(query(f"n{number}.example.")))[0]) == ["192.0.2.1"]
            await fake.hang_up()
        assert fake.accepted == 3
        assert next(made.engine.upstreams()).stats.failures == {}


@pytest.mark.parametrize("how", ["cut", "hang_up"])
async def test_p17_queries_that_waited_on_a_closed_connection_are_sent_once_more(how: str) -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("first.example."))
        fake.hook = silence
        made.submit(*numbered(5))
        await until(lambda: len(fake.asked) == 6)
        fake.hook = respond
        await (fake.cut() if how == "cut" else fake.hang_up())
        await until(lambda: len(made.responses) == 6)
        assert {addresses(data)[0] for data in made.responses} == {"192.0.2.1"}
        assert (fake.accepted, len(fake.asked)) == (2, 11)
        assert next(made.engine.upstreams()).stats.failures == {}
        assert next(made.engine.upstreams()).stats.sent == 11


async def test_p17_a_query_is_not_sent_again_on_a_connection_that_has_just_failed() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("first.example."))
        fake.hook = silence
        made.submit(query("second.example."))
        await until(lambda: len(fake.asked) == 2)
        fake.hook = respond
        (served,) = made.links
        # Its task has not ended yet when the other one is lost.
        failed = made.channel._open()
        made.channel._connecting[failed].cancel()
        made.channel.lose(failed, Failure.NETWORK, "refused")
        assert failed in made.channel._connecting
        served.abort()
        made.channel.lose(served, Failure.NETWORK, "closed by the server")
        await until(lambda: len(made.responses) == 2)
        assert addresses(made.responses[1]) == ["192.0.2.1"]
        assert fake.accepted == 2


async def test_p12_a_query_that_closes_connections_is_sent_a_few_times() -> None:
    async def poisonous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readexactly(2))
        data = await reader.readexactly(int.from_bytes(asked[-1], "big"))
        if read(data).question[0].name.to_text() == "good.example.":
            (reply,) = respond(Asked(data, None, tcp=True))
            writer.write(len(reply).to_bytes(2, "big") + reply)
            asked.append(await reader.readexactly(2))
        writer.close()

    asked: list[bytes] = []
    server = await asyncio.start_server(poisonous, "127.0.0.1", 0)
    upstream = Upstream("poisoned", server.sockets[0].getsockname()[:2], tcp=True)
    async with server, world(upstream) as made:
        await made.ask(query("good.example."))
        (response,) = await made.ask(query("evil.example."))
        assert read(response).rcode() == 2
        # On the connection of the good one, twice more on fresh ones, and two more attempts.
        sends = MAX_SENDS + MAX_LOSSES
        assert (len(asked), upstream.stats.sent) == (1 + sends, 1 + sends)
        assert upstream.stats.failures == {"network": MAX_SENDS}


async def test_p33_a_connection_closed_before_any_reply_is_replaced_a_few_times() -> None:
    async with (
        FakeUpstream(silence) as fake,
        FakeUpstream(respond) as other,
        world(at(fake, tcp=True), at(other)) as made,
    ):
        made.submit(query("www.example."))
        for count in range(1, MAX_LOSSES + 2):
            await until(lambda count=count: len(fake.asked) == count)  # type: ignore[misc]
            assert made.responses == []
            await fake.hang_up()
        await until(lambda: made.responses)
        assert addresses(made.responses[0]) == ["192.0.2.1"]
        assert [u.stats.failures for u in made.engine.upstreams()] == [{"network": 1}, {}]
        assert (len(fake.asked), fake.accepted) == (MAX_LOSSES + 1, MAX_LOSSES + 1)


class OneAnswer:
    """A server that closes each connection after one answer, or for ``silent`` ones after none."""

    def __init__(self, silent: int = 0) -> None:
        self.silent = silent
        self.accepted = 0
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        self.asked += 1
        if self.accepted > self.silent:
            (reply,) = respond(Asked(data, None, tcp=True))
            writer.write(len(reply).to_bytes(2, "big") + reply)
            await writer.drain()
        writer.close()


async def test_p33_an_upstream_that_closes_after_each_answer_answers_all() -> None:
    served = OneAnswer()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    upstream = Upstream("one", server.sockets[0].getsockname()[:2], tcp=True)
    async with server, world(upstream) as made:
        responses = await made.ask(*numbered(8))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}
        assert (served.accepted, upstream.stats.failures, upstream.failing) == (8, {}, 0)


async def test_p33_after_a_truncated_reply_one_lost_connection_costs_no_answer() -> None:
    async with FakeUpstream(truncate) as fake, world(at(fake)) as made:
        fake.hook = lambda asked: () if asked.tcp else truncate(asked)
        made.submit(query("www.example."))
        await until(lambda: len(fake.asked) == 2)
        fake.hook = truncate
        await fake.hang_up()
        await until(lambda: made.responses)
        assert addresses(made.responses[0]) == ["192.0.2.1"]
        assert [asked.tcp for asked in fake.asked] == [False, True, True]


async def test_p33_lost_queries_are_not_sent_again_after_the_time_of_their_question() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True), limits=Limits(0.05, 0.1)) as made:
        (response,) = await made.ask(query("www.example."))
        assert read(response).rcode() == 2
        sends = len(fake.asked)
        await fake.hang_up()
        await until(lambda: not made.links)
        assert len(fake.asked) == sends


async def test_p17_a_connection_gone_without_a_word_is_not_used_again() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True), limits=Limits(0.1, 1)) as made:
        await made.ask(query("first.example."))
        fake.hook = lambda asked: respond(asked) if fake.accepted == 2 else ()
        (response,) = await made.ask(query("second.example."))
        assert addresses(response) == ["192.0.2.1"]
        assert [a.peer == fake.asked[0].peer for a in fake.asked] == [True, True, False]
        assert next(made.engine.upstreams()).stats.failures == {"timeout": 1}
        await until(lambda: len(made.links) == 1)


async def test_p17_one_slow_name_does_not_cost_the_connection() -> None:
    def all_but_slow(asked: Asked) -> Iterable[bytes]:
        return () if b"slow" in asked.data else respond(asked)

    async with FakeUpstream(all_but_slow) as fake, world(at(fake, tcp=True), limits=Limits(0.2, 0.2)) as made:
        await made.ask(query("a.example."))
        made.submit(query("slow.example."))
        await made.ask(query("b.example."))
        await until(lambda: len(made.responses) == 3)
        assert read(made.responses[-1]).rcode() == 2
        await made.ask(query("c.example."))
        assert fake.accepted == 1


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "IDLE_SECONDS", 0.05)
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("www.example."))
        await until(lambda: not fake.writers)
        await until(lambda: not made.links and made.channel._timer is None)
        await made.ask(query("other.example."))
        assert fake.accepted == 2


async def test_an_idle_connection_that_cannot_be_closed_in_good_order_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "IDLE_SECONDS", 0.05)
    # As with an other end that takes nothing more.
    monkeypatch.setattr(link.Link, "close", lambda found: setattr(found, "retired", True))
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("www.example."))
        await until(lambda: not made.links)
        assert next(made.engine.upstreams()).stats.failures == {}


async def test_it_is_looked_at_when_something_is_due_and_not_before() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        fake.hook = silence
        made.submit(query("first.example."), query("second.example."))
        await until(lambda: len(fake.asked) == 2)
        timer = made.channel._timer
        deadlines = [waiting.attempt.deadline for waiting in made.links[0].waiting.values()]
        assert timer is not None
        assert timer.when() == min(deadlines) == made.links[0].due
        for asked in fake.asked:
            fake.send_stream(respond(asked))
        await until(lambda: len(made.responses) == 2)
        # It is idle now, and closed before those queries would have been late.
        timer = made.channel._timer
        assert timer is not None
        assert timer.when() == made.links[0].due == made.links[0].idle_since + link.IDLE_SECONDS


# -- connections that do not come


async def test_p21_no_connection_is_a_failure_at_once() -> None:
    dead = closed_port()
    async with FakeUpstream(respond) as other:
        upstream = Upstream("dead", (dead.host, dead.port), tcp=True)
        async with world(upstream, at(other)) as made:
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
            assert upstream.stats.failures == {"network": 1}


async def test_p21_a_connection_that_hangs_ends_with_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    dialer = Dialer()
    dialer.resolve = never
    async with (
        FakeUpstream(respond) as other,
        world(
            Upstream("slow", ("192.0.2.1", 53), tcp=True), at(other), limits=Limits(0.05, 60), dialer=dialer
        ) as made,
    ):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        slow = next(made.engine.upstreams())
        assert slow.stats.failures == {"timeout": 1}
        # It goes on being made, for the queries to come, but not for ever.
        assert len(made.links) == 1
        made.channel.close()


async def test_the_time_for_connecting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(channel, "CONNECT_SECONDS", 0.05)
    dialer = Dialer()
    dialer.resolve = never
    upstream = Upstream("slow", ("192.0.2.1", 53), tcp=True)
    async with world(upstream, dialer=dialer) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert upstream.stats.failures == {"timeout": 3}
        assert made.links == []


async def test_every_address_of_a_name_is_tried() -> None:
    async def several(host: str) -> Sequence[str]:
        assert host == "dns.example"
        return ("127.0.0.2", "127.0.0.1")

    dialer = Dialer()
    dialer.resolve = several
    async with FakeUpstream(respond) as fake:
        upstream = Upstream("named", ("dns.example", fake.address[1]), tcp=True)
        async with world(upstream, dialer=dialer) as made:
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
            assert upstream.stats.failures == {}


async def test_a_name_without_addresses_is_a_network_failure() -> None:
    async def unknown(_host: str) -> Sequence[str]:
        raise OSError("dns.example has no address")

    dialer = Dialer()
    dialer.resolve = unknown
    upstream = Upstream("named", ("dns.example", 853), tcp=True)
    async with world(upstream, dialer=dialer) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert upstream.stats.failures == {"network": 3}


async def test_an_internal_error_while_connecting_fails_its_queries_and_the_next_ones_connect() -> None:
    dialer = Dialer()
    errors = [ZeroDivisionError()]

    async def resolve(host: str) -> Sequence[str]:
        if errors:
            raise errors.pop()
        return (host,)

    dialer.resolve = resolve
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True), dialer=dialer) as made:
        with capture_logs() as logs:
            (first,) = await made.ask(query("a.example."))
            assert addresses(first) in ([], ["192.0.2.1"])  # asked again within its sends, or failed
            assert addresses((await made.ask(query("b.example.")))[0]) == ["192.0.2.1"]
    assert ("task.failed", "upstream connection") in {(entry["event"], entry.get("task")) for entry in logs}
