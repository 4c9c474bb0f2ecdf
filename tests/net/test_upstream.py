from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import resource
import socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from time import monotonic

import dns.rcode
import pytest
from structlog.testing import capture_logs

from dnsproxy.core.attempt import Limits
from dnsproxy.core.engine import Forward
from dnsproxy.core.exchange import GIVEN_UP, MAX_SENDS, PROBE, Exchange
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import scan_query
from dnsproxy.net import datagrams, stream, upstream, upstream_udp
from tests.fakes.forwarding import TC, World, at, numbered, respond, truncate, world
from tests.fakes.nameserver import closed_port
from tests.fakes.upstream import Asked, FakeUpstream, silence, until
from tests.messages import CLIENT, addresses, query, read, reply_to

SHORT = Limits(0.1, 0.5)
# The defaults of `forward.timeout`.
DEFAULT = Limits(0.8, 4.8)


@pytest.fixture(params=["batch", "plain"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with both ways to move messages."""
    if request.param == "plain":
        monkeypatch.setattr(datagrams, "load_batch_calls", lambda: None)


# -- UDP


async def test_a_question_is_answered() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        (response,) = await made.ask(query("www.example.", ident=77))
        assert addresses(response) == ["192.0.2.1"]
        assert read(response).id == 77
        assert made.engine.in_flight == 0
        assert sum(made.engine.stats_now().durations) == 1


async def test_upstreams_with_ipv6_addresses() -> None:
    async with FakeUpstream(respond, host="::1") as fake, world(at(fake)) as made:
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]


@pytest.mark.parametrize("count", [64, 65, 250])
async def test_bursts_larger_than_a_batch(count: int) -> None:
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        responses = await made.ask(*numbered(count))
        assert sorted([read(data).id for data in responses]) == list(range(count))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}


async def test_p12_identical_questions_share_one_send() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        made.submit(*(query("www.example.", ident=ident) for ident in range(50)))
        await until(lambda: fake.asked)
        fake.send(respond(fake.asked[0]), fake.asked[0].peer)
        await until(lambda: len(made.responses) == 50)
        assert [read(data).id for data in made.responses] == list(range(50))
        assert len(fake.asked) == 1


async def test_p12_wrong_replies_are_passed_over_and_the_good_one_wins() -> None:
    def spoofed(asked: Asked) -> Iterable[bytes]:
        (good,) = respond(asked)
        evil = reply_to(asked.data, ["www.example. 60 IN A 203.0.113.66"])
        other = asked.ident + query("vvv.example.")[2:]
        return [
            bytes((evil[0] ^ 1,)) + evil[1:],
            reply_to(other, ["vvv.example. 60 IN A 203.0.113.66"]),
            evil[:2] + b"\x01" + evil[3:],
            evil[:12],
            evil[:5],
            b"",
            evil[:-1],
            evil[:29] + b"\xc0\xff" + evil[31:],
            asked.ident + b"\xff" * 500,
            good,
            evil,
        ]

    async with FakeUpstream(spoofed) as fake, world(at(fake)) as made:
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert len(fake.asked) == 1


async def test_p12_a_reply_from_another_port_or_address_is_not_seen() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        made.submit(query("www.example."))
        await until(lambda: fake.asked)
        asked = fake.asked[0]
        evil = reply_to(asked.data, ["www.example. 60 IN A 203.0.113.66"])
        for source in (("127.0.0.1", 0), ("127.0.0.2", fake.address[1])):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
                spoofer.bind(source)
                spoofer.sendto(evil, asked.peer)
        fake.send(respond(asked), asked.peer)
        await until(lambda: made.responses)
        assert addresses(made.responses[0]) == ["192.0.2.1"]


def guesses(asked: Asked, count: int) -> list[bytes]:
    """Forgeries of the answer to ``asked`` under every id near its own but that one."""
    evil = reply_to(asked.data, ["www.example. 60 IN A 203.0.113.66"])
    ident = int.from_bytes(asked.ident, "big")
    return [((ident + 1 + number) % 65_536).to_bytes(2, "big") + evil[2:] for number in range(count)]


async def test_p12_what_is_passed_over_is_counted() -> None:
    def spoofed(asked: Asked) -> Iterable[bytes]:
        return [*guesses(asked, 2), reply_to(asked.ident + query("vvv.example.")[2:]), *respond(asked)]

    async with FakeUpstream(spoofed) as fake:
        up = at(fake)
        async with world(up) as made:
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert up.stats.ignored == {"unknown_id": 2, "not_ours": 1}


async def test_p12_a_flood_of_guesses_from_the_right_port_is_answered_by_asking_over_tcp() -> None:
    def hook(asked: Asked) -> Iterable[bytes]:
        return respond(asked) if asked.tcp else silence(asked)

    async with FakeUpstream(hook) as fake, world(at(fake)) as made:
        made.submit(query("www.example.", ident=1), query("other.example.", ident=2))
        await until(lambda: len(fake.asked) == 2)
        fake.send(guesses(fake.asked[0], 40), fake.asked[0].peer)
        await until(lambda: len(made.responses) == 2)
        assert {address for data in made.responses for address in addresses(data)} == {"192.0.2.1"}
        assert [asked.tcp for asked in fake.asked] == [False, False, True, True]
        # The port that was found is not used again.
        fake.hook = respond
        await made.ask(query("next.example."))
        assert (fake.asked[-1].tcp, fake.asked[-1].peer == fake.asked[0].peer) == (False, False)


async def test_p12_a_flood_ends_in_servfail_where_tcp_is_refused() -> None:
    async with FakeUpstream(silence, tcp=False) as fake, world(at(fake), limits=SHORT) as made:
        made.submit(query("www.example."))
        await until(lambda: fake.asked)
        fake.send(guesses(fake.asked[0], 40), fake.asked[0].peer)
        await until(lambda: made.responses)
        assert read(made.responses[0]).rcode() == dns.rcode.SERVFAIL


async def test_late_and_doubled_replies_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 60.0)

    def thrice(asked: Asked) -> Iterable[bytes]:
        return [*respond(asked)] * 3

    async with FakeUpstream(thrice) as fake, world(at(fake)) as made:
        await made.ask(*numbered(60))
        await made.ask(query("last.example."))
        assert not any(asked.tcp for asked in fake.asked)
        assert len({asked.peer for asked in fake.asked}) == 1


async def test_p12_ids_and_ports_differ_and_are_not_counted_up() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        for number in range(5):
            await made.ask(*numbered(200, f"r{number}-"))
        ids = [int.from_bytes(asked.ident, "big") for asked in fake.asked]
        # With 1000 random ids some 8 repeat; these bounds are missed once in 10 ** 20 runs.
        assert len(set(ids)) > 900
        assert sum(b - a == 1 for a, b in pairwise(ids)) < 20
        assert max(ids) - min(ids) > 50_000
        by_port: dict[int, list[bytes]] = {}
        for asked in fake.asked:
            by_port.setdefault(asked.peer[1], []).append(asked.ident)
        assert len(by_port) >= 5
        assert all(len(set(used)) == len(used) for used in by_port.values())


async def test_queries_that_come_alone_have_a_port_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        for data in numbered(10):
            await made.ask(data)
        # A port may be drawn twice, of some 28,000: not so often in 10 ** 12 runs.
        assert len({asked.peer[1] for asked in fake.asked}) > 6
        assert len(made.forwarder._sockets) == 1


async def test_without_a_free_descriptor_the_present_port_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_family: int, _kind: int) -> socket.SocketType:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        await made.ask(query("first.example."))
        with monkeypatch.context() as patch:
            patch.setattr(socket, "SocketType", refuse)
            responses = await made.ask(*numbered(5))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}
        assert len({asked.peer[1] for asked in fake.asked}) == 1
        await made.ask(query("last.example."))
        assert len({asked.peer[1] for asked in fake.asked}) == 2


async def test_a_socket_goes_when_the_last_query_on_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    async with FakeUpstream(silence) as fake, world(at(fake), limits=SHORT) as made:
        await made.ask(*numbered(20))
        # All but the one that may carry the next query.
        await until(lambda: len(made.forwarder._sockets) == 1)


async def test_p21_an_error_of_one_port_fails_nothing_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    async with (
        FakeUpstream(silence) as slow,
        FakeUpstream(respond) as other,
        world(at(slow), at(other)) as made,
    ):
        made.submit(*numbered(2))
        await until(lambda: len(slow.asked) == 2)
        # As a balancer does that has lost the server behind one of the ports.
        dead = closed_port()
        (used,) = [one for one in made.forwarder._sockets if one.sock.getsockname() == slow.asked[0].peer]
        used.sock.connect((dead.host, dead.port))
        used.sock.send(b"x")
        await until(lambda: len(made.responses) == 1)
        assert [up.stats.failures for up in made.engine.upstreams()] == [{"network": 1}, {}]
        slow.send(respond(slow.asked[1]), slow.asked[1].peer)
        await until(lambda: len(made.responses) == 2)
        assert len(other.asked) == 1


async def test_while_many_sockets_wait_a_port_is_used_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(upstream, "MANY_SOCKETS", 2)
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        made.submit(*numbered(10))
        await until(lambda: len(fake.asked) == 10)
        ports = [asked.peer[1] for asked in fake.asked]
        assert len(made.forwarder._sockets) == len(set(ports)) == 2
        assert sorted(ports.count(port) for port in set(ports)) == [1, 9]


async def test_p12_a_port_is_used_for_a_bounded_time_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while no more sockets than there are now are wanted."""
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(upstream_udp, "SHARED_SECONDS", 0.0)
    monkeypatch.setattr(upstream, "MANY_SOCKETS", 2)
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        made.submit(*numbered(10))
        await until(lambda: len(fake.asked) == 10)
        assert len(made.forwarder._sockets) == 10
        # A port may be drawn twice, of some 28,000: not so often in 10 ** 12 runs.
        assert len({asked.peer[1] for asked in fake.asked}) > 6


async def test_p12_many_slow_exchanges_leave_each_port_few_queries() -> None:
    """None of 2,000 queries, one each millisecond, is answered: more than `MANY_SOCKETS` ports wait."""
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        (to,) = made.engine.upstreams()
        waiting = Exchange(b"", scan_query(query("a.example.")), (to,), SHORT, monotonic())
        attempt = waiting.next_attempt(monotonic())
        assert attempt is not None
        started = monotonic()
        times: dict[upstream_udp.UpstreamSocket, list[float]] = {}
        for number in range(2_000):
            now = started + number / 1_000
            used = made.forwarder._socket(to, now)
            used.left -= 1
            used.pending[number.to_bytes(2, "big")] = waiting, attempt
            times.setdefault(used, []).append(now)
        assert max(map(len, times.values())) <= 1_000 * upstream_udp.SHARED_SECONDS + 1
        assert max(held[-1] - held[0] for held in times.values()) <= upstream_udp.SHARED_SECONDS
        # 512 that come alone, then 50 for each second.
        assert len(times) < upstream_udp.MANY_SOCKETS + 1.5 / upstream_udp.SHARED_SECONDS + 10


async def test_without_a_free_descriptor_an_idle_port_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = 0

    def scarce(family: int, kind: int) -> socket.SocketType:
        """One descriptor in all."""
        if made.forwarder._sockets:
            raise OSError(errno.EMFILE, "Too many open files")
        nonlocal opened
        opened += 1
        return real(family, kind)

    real = socket.SocketType
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(upstream_udp, "LAST_SECONDS", 0.0)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "SocketType", scarce)
            for data in numbered(6):
                await made.ask(data)
            assert (opened, len(fake.asked)) == (6, 6)
            # What waits on the only one is not given up for others.
            fake.hook = silence
            made.submit(query("slow.example."))
            await until(lambda: len(fake.asked) == 7)
            (response,) = await made.ask(query("other.example."))
            assert read(response).rcode() == dns.rcode.SERVFAIL
            assert (opened, len(made.forwarder._sockets)) == (7, 1)


async def test_a_socket_carries_a_bounded_number_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "QUERIES_PER_SOCKET", 3)
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 60.0)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        for data in numbered(10):
            await made.ask(data)
        ports = [asked.peer[1] for asked in fake.asked]
        assert [ports[first] == ports[first + 2] for first in (0, 3, 6)] == [True] * 3
        assert len(set(ports)) == 4
        assert len(made.forwarder._sockets) == 1


async def test_a_retired_socket_still_takes_its_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "QUERIES_PER_SOCKET", 1)
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        made.submit(*numbered(5))
        await until(lambda: len(fake.asked) == 5)
        assert len(made.forwarder._sockets) == 5
        for asked in fake.asked:
            fake.send(respond(asked), asked.peer)
        await until(lambda: len(made.responses) == 5)
        assert len(made.forwarder._sockets) == 1


async def test_a_socket_lives_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "SECONDS_PER_SOCKET", 0.05)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        await made.ask(query("a.example."))
        await until(lambda: not made.forwarder._sockets)
        assert made.forwarder._current == {}
        await made.ask(query("b.example."))
        assert len({asked.peer[1] for asked in fake.asked}) == 2


async def test_nothing_is_remembered_of_exchanges_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_udp, "SECONDS_PER_SOCKET", 0.05)
    async with FakeUpstream(respond) as fake, world(at(fake)) as made:
        for number in range(3):
            await made.ask(*numbered(10, f"r{number}-"))
            await until(lambda: not made.forwarder._sockets)
        gc.collect()
        assert [held for held in gc.get_objects() if isinstance(held, Exchange)] == []


async def test_late_answers_are_ignored() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake), limits=Limits(0.05, 0.1)) as made:
        (response,) = await made.ask(query("www.example."))
        assert read(response).rcode() == 2
        for asked in fake.asked:
            fake.send(respond(asked), asked.peer)
        fake.hook = respond
        assert addresses((await made.ask(query("other.example.")))[0]) == ["192.0.2.1"]
        assert len(made.responses) == 2


async def test_p12_a_late_answer_to_an_open_question_is_taken_and_ends_it() -> None:
    def after_the_slow_one(asked: Asked) -> Iterable[bytes]:
        first = slow.asked[0]
        other = reply_to(first.data, ["www.example. 60 IN A 203.0.113.66"])
        # Right but for the id, or from where the first query did not go.
        quick.send([other], first.peer)
        slow.send([bytes((other[0] ^ 1,)) + other[1:], *respond(first)], first.peer)
        return ()

    async with (
        FakeUpstream(silence) as slow,
        FakeUpstream(after_the_slow_one) as quick,
        world(at(slow), at(quick), limits=Limits(0.05, 10)) as made,
    ):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        # The reply of the other one comes too late for anything.
        quick.send(respond(quick.asked[0]), quick.asked[0].peer)
        quick.hook = slow.hook = respond
        await made.ask(query("next.example."))
        assert len(made.responses) == 2


DELAYS = [0.05, 0.9, 1.7, 3.5]


@pytest.mark.parametrize("seconds", DELAYS)
async def test_p21_an_upstream_that_takes_its_time_is_used(seconds: float) -> None:
    def later(asked: Asked) -> Iterable[bytes]:
        asyncio.get_running_loop().call_later(seconds, fake.send, respond(asked), asked.peer)
        return ()

    async with FakeUpstream(later) as fake, world(at(fake), limits=DEFAULT) as made:
        started = monotonic()
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert monotonic() - started >= seconds
        name = query("www.example.")[12:-11]
        assert sum(name in asked.data for asked in fake.asked) <= MAX_SENDS
        up = next(made.engine.upstreams())
        assert (up.usable, up.failing) == (True, 0)


async def test_p21_a_dead_first_upstream_costs_a_second_at_most() -> None:
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(respond) as alive,
        world(at(dead), at(alive), limits=DEFAULT) as made,
    ):
        started = monotonic()
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert monotonic() - started < DEFAULT.total / 2
        (exchange_sent, *_) = [asked for asked in dead.asked if b"www" in asked.data]
        assert exchange_sent
        assert DEFAULT.attempt <= 1.0


async def test_p12_late_attempts_are_bounded_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_udp, "SECONDS_PER_SOCKET", 0.05)
    async with FakeUpstream(silence) as fake, world(at(fake), limits=Limits(0.02, 0.4)) as made:
        made.submit(*numbered(50))
        await until(lambda: sum(b"example" in asked.data for asked in fake.asked) == 50 * MAX_SENDS)
        pending = [found for used in made.forwarder._sockets for found in used.pending.values()]
        assert len(pending) <= 50 * MAX_SENDS + 1  # and a probe
        await until(lambda: len(made.responses) == 50)
        await until(lambda: not made.forwarder._sockets)


def listened_to(made: World) -> list[Exchange]:
    """Return the exchanges of clients that replies over UDP may come to."""
    pending = [found for used in made.forwarder._sockets for found, _ in used.pending.values()]
    return [exchange for exchange in pending if exchange.purpose != PROBE]


async def test_p20_a_question_that_is_answered_leaves_no_late_attempt_behind() -> None:
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(respond) as alive,
        world(at(dead), at(alive), limits=Limits(0.02, 60)) as made,
    ):
        await made.ask(*numbered(5))
        assert listened_to(made) == []


async def test_p20_a_question_that_is_given_up_leaves_no_late_attempt_behind() -> None:
    async with (
        FakeUpstream(silence) as fake,
        world(at(fake), limits=Limits(0.02, 60), max_in_flight=1) as made,
    ):
        made.submit(*numbered(1))
        (first, *_) = listened_to(made)
        await until(lambda: first.listening == MAX_SENDS and not first.is_waiting)
        await until(lambda: isinstance(made.engine.receive(query("next."), CLIENT, monotonic()), Forward))
        assert first.purpose == GIVEN_UP
        await until(lambda: first not in listened_to(made))
        assert first.ended


async def test_p32_names_without_an_answer_do_not_mark_upstreams_as_down() -> None:
    def some(asked: Asked) -> Iterable[bytes]:
        return () if b"silent" in asked.data else respond(asked)

    async with (
        FakeUpstream(some) as one,
        FakeUpstream(some) as two,
        world(at(one), at(two), limits=Limits(0.05, 0.3)) as made,
    ):
        for number in range(5):
            responses = await made.ask(*numbered(8, f"silent{number}-"))
            assert {read(data).rcode() for data in responses} == {dns.rcode.SERVFAIL}
            assert all(up.usable for up in made.engine.upstreams())
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]


def malformed(asked: Asked) -> list[bytes]:
    """Replies to ``asked`` that a resolver behind us would not read."""
    good = reply_to(asked.data, ["www.example. 60 IN A 203.0.113.66"], edns=False)
    return [
        good[:29] + b"\xc0\x1d" + good[31:],
        good[:29] + b"\xff\xff" + good[31:],
        good[:29] + b"\xc0\x2d" + good[31:],
        good[:-5] + b"\3" + good[-4:-1],
        good[:7] + b"\2" + good[8:],
        good[:9] + b"\1" + good[10:],
    ]


@pytest.mark.parametrize("number", range(6))
async def test_p31_a_malformed_reply_leads_to_the_next_upstream_and_is_not_kept(number: int) -> None:
    async with (
        FakeUpstream(lambda asked: [malformed(asked)[number]]) as bad,
        FakeUpstream(respond) as good,
        world(at(bad), at(good), limits=Limits(0.05, 10)) as made,
    ):
        for _ in range(2):
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
            made.engine.flush(None)
        # It is there, and so it is not down.
        assert next(made.engine.upstreams()).failing == 0


async def test_p31_a_malformed_reply_is_neither_relayed_nor_kept_where_there_is_no_other_upstream() -> None:
    def hook(asked: Asked) -> Iterable[bytes]:
        return malformed(asked)

    async with FakeUpstream(hook) as fake, world(at(fake), limits=Limits(0.05, 0.3)) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == dns.rcode.SERVFAIL
        assert len(made.engine.cache) == 0


async def test_p31_a_reply_with_bytes_behind_it_is_used() -> None:
    def trailing(asked: Asked) -> Iterable[bytes]:
        return [data + b"\0" for data in respond(asked)]

    for tcp in (False, True):
        async with FakeUpstream(trailing) as fake, world(at(fake, tcp=tcp)) as made:
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
            assert len(fake.asked) == 1


async def test_p30_one_type_that_fails_does_not_cost_others_edns() -> None:
    def hook(asked: Asked) -> Iterable[bytes]:
        question = read(asked.data).question[0]
        if question.rdtype == 65280:
            return [reply_to(asked.data, rcode=dns.rcode.FORMERR, edns=False)]
        return respond(asked)

    async with FakeUpstream(hook) as fake, world(at(fake)) as made:
        (response,) = await made.ask(query("www.example.", "TYPE65280"))
        assert read(response).rcode() == dns.rcode.SERVFAIL
        await made.ask(query("signed.example.", want_dnssec=True))
        assert [read(asked.data).edns for asked in fake.asked] == [0, -1, 0]
        assert read(fake.asked[-1].data).ednsflags == 0x8000


@pytest.mark.parametrize("bare", [True, False])
async def test_p30_an_upstream_without_edns_is_remembered_once_it_answers(bare: bool) -> None:
    def hook(asked: Asked) -> Iterable[bytes]:
        if read(asked.data).edns == -1:
            return [reply_to(asked.data, ["www.example. 60 IN A 192.0.2.1"], edns=False)]
        refused = reply_to(asked.data, rcode=dns.rcode.FORMERR, edns=False)
        return [refused[:4] + bytes(8) if bare else refused]

    async with FakeUpstream(hook) as fake, world(at(fake)) as made:
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        await made.ask(query("www.example.", "TXT"))
        assert [read(asked.data).edns for asked in fake.asked] == [0, -1, -1]


# -- failures


async def test_p21_a_silent_upstream_gives_way_to_the_next() -> None:
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(respond) as alive,
        world(at(dead), at(alive), limits=Limits(0.05, 60)) as made,
    ):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        # And a probe, to see whether it is down.
        assert (sum(b"www" in asked.data for asked in dead.asked), len(alive.asked)) == (1, 1)
        assert [u.stats.failures for u in made.engine.upstreams()] == [{"timeout": 1}, {}]


async def test_p21_a_refusing_upstream_gives_way_long_before_its_deadline() -> None:
    dead = closed_port()
    async with (
        FakeUpstream(respond) as alive,
        world(Upstream("dead", (dead.host, dead.port)), at(alive)) as made,
    ):
        # The attempt may take 30 s and `ask` waits for 10: only the ICMP error gets us on.
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert [u.stats.failures for u in made.engine.upstreams()] == [{"network": 1}, {}]


async def test_p21_an_upstream_that_goes_away_fails_all_that_wait_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_udp, "FRESH_SECONDS", 60.0)
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(respond) as alive,
        world(at(dead), at(alive)) as made,
    ):
        made.submit(*numbered(10))
        await until(lambda: len(dead.asked) == 10)
        dead.close_udp()
        made.submit(query("one.more.example."))
        await until(lambda: len(made.responses) == 11)
        assert {addresses(data)[0] for data in made.responses} == {"192.0.2.1"}


async def test_p21_all_dead_is_servfail_with_the_reason() -> None:
    dead = [Upstream(str(port), (port.host, port.port)) for port in (closed_port(), closed_port())]
    async with world(*dead) as made:
        (response,) = await made.ask(query("www.example.", use_edns=0))
        assert read(response).rcode() == 2
        assert read(response).options[0].to_wire() == b"\0\x17"
        assert sum(up.stats.sent for up in dead) == 3


async def test_p21_all_silent_is_servfail_within_the_total_time() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake), limits=SHORT) as made:
        (response,) = await made.ask(query("www.example.", use_edns=0))
        assert read(response).rcode() == 2
        assert read(response).options[0].to_wire() == b"\0\x16"
        assert sum(b"www" in asked.data for asked in fake.asked) == MAX_SENDS


async def test_an_upstream_without_a_route_is_servfail_at_once() -> None:
    # A broadcast address: connect() is refused without SO_BROADCAST.
    async with world(Upstream("none", ("255.255.255.255", 53))) as made:
        made.submit(query("www.example.", use_edns=0))
        assert [read(data).rcode() for data in made.responses] == [2]
        assert read(made.responses[0]).options[0].to_wire() == b"\0\x17"


async def test_p22_a_dead_upstream_costs_later_queries_nothing() -> None:
    async with (
        FakeUpstream(silence) as dead,
        FakeUpstream(respond) as alive,
        world(at(dead), at(alive), limits=Limits(0.05, 60)) as made,
    ):
        for data in numbered(3):
            await made.ask(data)
        asked = len(dead.asked)
        await made.ask(*numbered(20, "later"))
        assert len(dead.asked) <= asked + 1


# -- TCP


async def test_p15_a_truncated_reply_is_asked_for_again_over_tcp() -> None:
    async with FakeUpstream(truncate) as fake, world(at(fake)) as made:
        (response,) = await made.ask(query("www.example."))
        assert (addresses(response), read(response).flags & TC) == (["192.0.2.1"], 0)
        assert [asked.tcp for asked in fake.asked] == [False, True]
        assert read(fake.asked[0].data).question == read(fake.asked[1].data).question


async def test_p15_a_reply_larger_than_what_was_asked_for_is_asked_for_again_over_tcp() -> None:
    records = [f'www.example. 60 IN TXT "{number:0100}"' for number in range(20)]

    def hook(asked: Asked) -> Iterable[bytes]:
        return [reply_to(asked.data, records)]

    async with FakeUpstream(hook) as fake, world(at(fake)) as made:
        (response,) = await made.ask(query("www.example.", "TXT"))
        assert read(response).flags & TC
        assert made.engine.in_flight == 0
        assert [asked.tcp for asked in fake.asked] == [False, True]


async def test_tcp_upstreams_are_never_asked_over_udp() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        responses = await made.ask(*numbered(20))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}
        assert [asked.tcp for asked in fake.asked] == [True] * 20


async def test_p12_wrong_replies_over_tcp_are_passed_over_too() -> None:
    def spoofed(asked: Asked) -> Iterable[bytes]:
        (good,) = respond(asked)
        evil = reply_to(asked.data, ["www.example. 60 IN A 203.0.113.66"])
        return [b"", b"x", bytes((evil[0] ^ 1,)) + evil[1:], evil[:-1], evil[:12], asked.data, good, evil]

    async with FakeUpstream(spoofed) as fake, world(at(fake, tcp=True)) as made:
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert len(fake.asked) == 1


async def test_responses_of_the_largest_size_over_tcp() -> None:
    records = [f"www.example. 60 IN A 10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(4000)]

    def large(asked: Asked) -> Sequence[bytes]:
        return [reply_to(asked.data, records)]

    async with FakeUpstream(large) as fake, world(at(fake, tcp=True)) as made:
        assert read((await made.ask(query("www.example.")))[0]).flags & TC
        whole = made.engine.receive(query("www.example."), CLIENT, monotonic(), tcp=True)
        assert type(whole) is bytes
        assert len(addresses(whole)) == 4000


async def test_tcp_that_is_refused_gives_way_to_the_next_upstream() -> None:
    async with (
        FakeUpstream(truncate, tcp=False) as one,
        FakeUpstream(respond) as two,
        world(at(one), at(two)) as made,
    ):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert ([a.tcp for a in one.asked], [a.tcp for a in two.asked]) == ([False], [False])


async def test_tcp_that_is_refused_everywhere_is_servfail() -> None:
    async with FakeUpstream(truncate, tcp=False) as fake, world(at(fake)) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2


@pytest.mark.parametrize("reply", [[], [b"\0" * 12]], ids=["silent", "wrong"])
async def test_tcp_that_never_answers_ends_with_the_attempt(reply: list[bytes]) -> None:
    async with (
        FakeUpstream(lambda _asked: reply) as fake,
        world(at(fake, tcp=True), limits=Limits(0.05, 0.5)) as made,
    ):
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert not any(link.load for link in made.links)


async def test_tcp_that_is_cut_in_the_middle_gives_way() -> None:
    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\xff only some of it")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    async with (
        server,
        FakeUpstream(respond) as alive,
        world(Upstream("cut", address, tcp=True), at(alive)) as made,
    ):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        assert [u.stats.failures for u in made.engine.upstreams()] == [{"network": 1}, {}]


# -- the end


@pytest.mark.parametrize("tcp", [False, True])
async def test_closing_gives_up_what_is_in_flight(tcp: bool) -> None:
    async with FakeUpstream(silence) as fake:
        async with world(at(fake, tcp=tcp)) as made:
            made.submit(*numbered(5))
            await until(lambda: len(fake.asked) == 5)
            assert sum(link.load for link in made.links) == (5 if tcp else 0)
        assert made.responses == []


async def test_closing_gives_up_connections_that_are_being_made() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        made.submit(query("www.example."))
        (task,) = made.channel._connecting.values()
        made.forwarder.close()
        await asyncio.wait([task])
        assert task.cancelled()
        assert made.responses == []


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as lowest:
        free = lowest.fileno()
    # The lowest number that is free is what the next file gets.
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_host_without_descriptors_is_no_fault_of_the_upstream(
    tcp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_noted", {})
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=tcp)) as made:
        (upstream,) = made.engine.upstreams()
        with capture_logs() as logs, no_descriptors():
            replies = await made.ask(*numbered(10))
        assert {read(reply).rcode() for reply in replies} == {dns.rcode.SERVFAIL}
        assert (upstream.stats.failures, upstream.stats.up, upstream.failing) == ({}, True, 0)
        # All queries over TCP wait for one connection.
        assert made.engine.stats.local_failures == {"upstreams": 3 if tcp else 30}
        assert [(entry["event"], entry["use"]) for entry in logs] == [("host.exhausted", "upstreams")]
        # Nothing is known of these names: they are asked for as soon as that can be.
        replies = await made.ask(*numbered(10))
        assert {read(reply).rcode() for reply in replies} == {dns.rcode.NOERROR}


async def test_what_the_kernel_had_no_room_for_is_no_fault_of_the_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FullBuffer(datagrams.PlainMover):
        def send(self, _sock: socket.SocketType, _messages: list[bytes]) -> int:
            return 0

    async with FakeUpstream(respond) as fake, world(at(fake), limits=SHORT) as made:
        (upstream,) = made.engine.upstreams()
        monkeypatch.setattr(made.forwarder, "_mover", FullBuffer())
        (reply,) = await made.ask(query("www.example."))
        assert read(reply).rcode() == dns.rcode.SERVFAIL
        assert (upstream.stats.failures, upstream.failing) == ({}, 0)
        assert made.engine.stats.local_failures == {"upstreams": 3}


# -- aliases into other zones


async def test_p39_an_alias_is_followed_to_the_upstreams_of_its_zone() -> None:
    def public(asked: Asked) -> Iterable[bytes]:
        records = ["www.example. 60 IN CNAME host.corp.", "host.corp. 60 IN A 203.0.113.9"]
        return [reply_to(asked.data, records)]

    async with (
        FakeUpstream(public) as one,
        FakeUpstream(respond) as corp,
        world(at(one), zones={b"\4corp\0": (at(corp),)}) as made,
    ):
        responses = await made.ask(*(query("www.example.", ident=ident) for ident in range(3)))
        assert [addresses(data) for data in responses] == [["192.0.2.1"]] * 3
        assert [read(data).id for data in responses] == [0, 1, 2]
        assert [len(fake.asked) for fake in (one, corp)] == [1, 1]
        assert read(corp.asked[0].data).question[0].name.to_text() == "host.corp."
        assert made.engine.in_flight == 0


def long_alias(asked: Asked) -> bytes:
    """An alias of host.corp. with so many addresses that the reply exceeds 4,096 bytes."""
    forged = [f"host.corp. 60 IN A 203.0.113.{number}" for number in range(256)]
    reply = reply_to(asked.data, ["www.example. 60 IN CNAME host.corp.", *forged])
    assert len(reply) > 4096
    return reply


@pytest.mark.parametrize("has_tcp", [True, False])
@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("is_owned", [True, False])
async def test_p39_an_alias_in_an_answer_above_4096_bytes(
    has_tcp: bool, truncates: bool, is_owned: bool
) -> None:
    def public(asked: Asked) -> Iterable[bytes]:
        reply = long_alias(asked)
        if asked.tcp or not truncates:
            return [reply]
        return [reply[:2] + bytes((reply[2] | 2,)) + reply[3:1232]]

    async with (
        FakeUpstream(public, tcp=has_tcp) as one,
        FakeUpstream(respond) as corp,
        world(at(one), zones={b"\4corp\0": (at(corp),)}) as made,
    ):
        if is_owned:
            owned = Owned("host.corp.", addresses=("10.0.0.1",))
            made.engine.swap_rules(Ruleset([owned], made.engine.groups))
        (response,) = await made.ask(query("www.example."))
        assert addresses(response) == ["10.0.0.1" if is_owned else "192.0.2.1"]
        assert len(corp.asked) == (0 if is_owned else 1)
        # The same from the cache.
        again = made.engine.receive(query("www.example."), CLIENT, monotonic())
        assert isinstance(again, bytes)
        assert addresses(again) == addresses(response)


async def test_p39_an_alias_in_a_failure_and_labels_that_are_not_utf8() -> None:
    def failing(asked: Asked) -> Iterable[bytes]:
        return [reply_to(asked.data, [r"\255\128.example. 60 IN CNAME \254.owned.example."], rcode=2)]

    async with FakeUpstream(failing) as one, FakeUpstream(failing) as two, world(at(one), at(two)) as made:
        owned = Owned(r"*.owned.example.", addresses=("10.0.0.1",))
        made.engine.swap_rules(Ruleset([owned]))
        (response,) = await made.ask(query(r"\255\128.example."))
        assert (read(response).rcode(), addresses(response)) == (dns.rcode.NOERROR, ["10.0.0.1"])


async def test_p39_an_upstream_of_the_zone_that_does_not_answer_is_servfail_in_time() -> None:
    def public(asked: Asked) -> Iterable[bytes]:
        return [reply_to(asked.data, ["www.example. 60 IN CNAME host.corp."])]

    async with (
        FakeUpstream(public) as one,
        FakeUpstream(silence) as corp,
        world(at(one), limits=SHORT, zones={b"\4corp\0": (at(corp),)}) as made,
    ):
        (response,) = await made.ask(query("www.example."))
        assert read(response).rcode() == dns.rcode.SERVFAIL
        assert sum(b"host" in asked.data for asked in corp.asked) == MAX_SENDS  # and a probe
        assert made.engine.in_flight == 0
