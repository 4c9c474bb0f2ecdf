from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import PublishError, StoreError
from dnsproxy.helper import election as module
from dnsproxy.helper import outlets
from dnsproxy.helper.election import Election
from dnsproxy.helper.issue import Published
from dnsproxy.helper.observe import Look
from dnsproxy.helper.service import Helper
from dnsproxy.transport.etcd_keys import put_if_created_at
from tests.fakes.etcd import KEY, Member, Store, refuse, target

KEYS = [Ed25519PrivateKey.generate() for _ in range(2)]
TRUSTED = {seal.key_id(key.public_key()): key.public_key() for key in KEYS}
OFFICE = f"{KEY}/leader"
WALL = 1_764_000_000.0


class One:
    """A helper of the group, with resolvers, a clock and a key of its own."""

    def __init__(self, member: Member, at: int) -> None:
        self.looks: Sequence[Look] = (Look("10.0.0.2:53", (f"10.0.0.{at + 1}",), 60),)
        self.wall = WALL
        self.election = Election(target(member, elect=True, lease="3s"), "helper-a", TRUSTED)
        self.helper = Helper(
            "helper-a",
            [Wanted("a.example.", "other", "r")],
            self.look,
            KEYS[at],
            interval=0.05,
            election=self.election,
            wall=lambda: self.wall,
        )
        self.task: asyncio.Task[None] | None = None

    async def look(self, _wanted: Wanted) -> Sequence[Look]:
        return self.looks

    @property
    def given(self) -> Snapshot | None:
        return self.helper.current.snapshot if self.helper.current else None

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.given.names[0].addresses if self.given else ()


class Group:
    """Two helpers, and the one member that they elect by."""

    def __init__(self, member: Member) -> None:
        self.member, self.store = member, member.store
        self.both = [One(member, 0), One(member, 1)]

    def start(self, at: int) -> One:
        one = self.both[at]
        one.task = asyncio.create_task(one.helper.run())
        return one

    def published(self) -> Snapshot | None:
        kv = self.store.keys.get(KEY)
        if kv is None:
            return None
        return seal.verify(base64.b64decode(kv["value"]).decode(), TRUSTED)

    async def stop(self, one: One) -> None:
        assert one.task is not None
        one.task.cancel()
        await asyncio.wait([one.task])


@pytest.fixture
async def group(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Group]:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    async with Member(Store()) as member:
        made = Group(member)
        yield made
        for one in made.both:
            if one.task is not None:
                await made.stop(one)


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"still not: {what}")


async def test_one_publishes_and_the_other_gives_what_it_has_published(group: Group) -> None:
    first = group.start(0)
    await until(lambda: group.published() and first.given, "the first publishes")
    second = group.start(1)
    await until(lambda: second.given is not None and second.given == group.published(), "the second gives it")
    assert second.addresses == ("10.0.0.1",)
    assert (first.election.is_leader, second.election.is_leader) == (True, False)
    assert first.election.leader == second.election.leader
    # A change at the leader is there for the clients of both.
    first.looks = (Look("10.0.0.2:53", ("10.0.0.9",), 60),)
    await until(
        lambda: second.given and second.given.names[0].addresses == ("10.0.0.9",), "the change is there"
    )
    assert second.given.serial == first.given.serial if second.given and first.given else False


async def test_the_next_leader_goes_on_even_with_a_clock_behind_and_no_answer(group: Group) -> None:
    first = group.start(0)
    await until(group.published, "the first publishes")
    second = group.both[1]
    second.wall = WALL - 10_000
    second.looks = (Look("10.0.0.2:53", error="no answer"),)
    group.start(1)
    await until(lambda: second.given, "the second knows")
    before = group.published()
    assert before is not None
    await group.stop(first)  # gives the office back
    await until(lambda: (now := group.published()) and now.serial > before.serial, "the second publishes")
    now = group.published()
    assert now is not None
    assert second.election.is_leader
    assert now.names[0].addresses == before.names[0].addresses
    assert now.names[0].status == "stale"


async def test_a_leader_that_was_deposed_without_knowing_it_cannot_overwrite(group: Group) -> None:
    first = group.start(0)
    await until(lambda: group.published() and first.election.is_leader, "the first publishes")
    held = first.helper.current
    assert held is not None
    # Its lease is over for the cluster, and another holds the office.
    group.store.delete(OFFICE)
    group.store.put(OFFICE, b"another")
    group.store.put(KEY, b"what the other has published")
    assert not await first.election.publish(held)
    assert not first.election.is_leader
    assert group.store.keys[KEY]["value"] == "d2hhdCB0aGUgb3RoZXIgaGFzIHB1Ymxpc2hlZA=="


async def test_an_answer_that_comes_after_the_next_leader_has_published_takes_nothing_back(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = group.start(0)
    await until(lambda: first.given and first.election.is_leader, "the first publishes")
    publish = first.election.publish
    later: list[Snapshot] = []

    async def late(published: Published) -> bool:
        done = await publish(published)
        snapshot = replace(published.snapshot, serial=published.snapshot.serial + 5)
        later.append(snapshot)
        first.helper.adopt(Published(snapshot, seal.sign(snapshot, KEYS[1])))
        monkeypatch.setattr(first.election, "publish", publish)
        return done

    await group.stop(first)
    first.election._fence = 0
    first.task = None
    monkeypatch.setattr(first.election, "publish", late)
    second = group.start(0)
    await until(lambda: later and second.election.is_leader, "it was late")
    serials: list[int] = []
    while len(serials) < 5:
        assert second.given is not None
        serials.append(second.given.serial)
        await second.helper.round()
    assert min(serials) >= later[0].serial


class Unwell:
    """A target that takes nothing."""

    name = "unwell"

    async def write(self, _token: str) -> None:
        raise PublishError("not well")

    async def read(self) -> str | None:
        return None

    async def close(self) -> None:
        pass


async def test_who_is_out_of_office_tries_no_more_to_put_what_is_out_of_date(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "FIRST_RETRY", 0.0)
    first, second = group.start(0), group.both[1]
    await until(lambda: group.published() and first.given, "the first publishes")
    second.helper.outlets = outlets.Outlets([Unwell()])
    second.helper.outlets.offer("of an earlier term", 1)
    (status,) = second.helper.outlets.statuses
    second.task = asyncio.create_task(second.helper.run())
    await until(lambda: second.given and status.error is None, "it is withdrawn")
    failures = status.failures
    first.looks = (Look("10.0.0.2:53", ("10.0.0.9",), 60),)
    await until(lambda: second.addresses == ("10.0.0.9",), "time has passed")
    assert status.failures <= failures + 1  # one write may have been under way
    await until(lambda: status.error is None, "nothing is told as failing")


async def test_a_leader_that_may_not_write_the_key_says_so_once(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = StoreError("permission denied")
    reached = asyncio.Event()
    tries = 0

    async def put(*_given: object) -> bool:
        nonlocal tries
        if _given[1] == OFFICE and _given[2] == 0:
            return await put_if_created_at(*_given)  # type: ignore[arg-type]
        tries += 1
        if tries == 5:
            reached.set()
        raise refused

    monkeypatch.setattr(module, "put_if_created_at", put)
    with capture_logs() as logs:
        one = group.start(0)
        async with asyncio.timeout(20):
            await reached.wait()
        kept = group.member.asked.count("/v3/lease/keepalive")
        await until(
            lambda: group.member.asked.count("/v3/lease/keepalive") > kept, "the lease has been renewed"
        )
        await one.helper.round()
        assert one.election.is_leader
        assert one.election.error == "permission denied"
    told = [entry["event"] for entry in logs if entry["event"].startswith("helper.target")]
    assert told == ["helper.target_failed"]


async def test_a_lease_that_is_gone_ends_the_term_and_begins_another(group: Group) -> None:
    first = group.start(0)
    await until(lambda: first.election.is_leader, "the first is in office")
    before = first.election._fence
    for lease in list(group.store.leases):
        group.store.revoke(lease)
    await until(lambda: first.election.is_leader and first.election._fence > before, "in office once more")


async def test_an_outage_takes_the_office_and_nothing_that_is_given(group: Group) -> None:
    first = group.start(0)
    await until(lambda: first.given and first.election.is_leader, "the first publishes")
    group.member.fault = refuse(503, error="etcdserver: no leader", code=14)
    with capture_logs() as logs:
        await until(lambda: not first.election.is_leader, "the lease is over")
        given = first.given
        assert given is not None
        assert first.election.error is not None
        # What it cannot agree on with the group it does not give.
        first.looks = (Look("10.0.0.2:53", ("10.0.0.9",), 60),)
        await first.helper.round()
        assert first.given == given
        for lease in list(group.store.leases):
            group.store.revoke(lease)  # as their time does
        group.member.fault = None
        await until(lambda: first.election.is_leader and first.election.error is None, "well again")
    told = [entry["event"] for entry in logs if entry["event"].startswith("helper.target")]
    assert told[:2] == ["helper.target_failed", "helper.target_recovered"]
    await until(
        lambda: first.given and first.given.names[0].addresses == ("10.0.0.9",), "the change is given"
    )


@pytest.mark.parametrize(
    "answer", [{"header": {}, "kvs": "x"}, {"header": []}, {"result": None}, {"header": {}, "kvs": [None]}]
)
async def test_a_member_that_answers_what_is_not_of_etcd_ends_no_helper(
    group: Group, answer: dict[str, object]
) -> None:
    group.member.fault = refuse(200, **answer)
    one = group.start(0)
    await until(lambda: one.election.error, "it is told")
    group.member.fault = None
    await until(lambda: one.given and one.election.is_leader, "well again")


async def test_what_nobody_of_the_group_has_signed_is_not_given(group: Group) -> None:
    stranger = Ed25519PrivateKey.generate()
    foreign = Snapshot("helper-b", 1, int(WALL), int(WALL) + 100, ())
    for token in (
        "junk",
        seal.sign(Snapshot("helper-a", 1, int(WALL), int(WALL) + 100, ()), stranger),
        seal.sign(foreign, KEYS[0]),
    ):
        group.store.put(OFFICE, b"another")
        group.store.put(KEY, token.encode())
        with capture_logs() as logs:
            one = group.start(0)
            await until(lambda: [e for e in logs if e["event"] == "helper.restore_failed"], "it is told")
            assert one.given is None
            await group.stop(one)
