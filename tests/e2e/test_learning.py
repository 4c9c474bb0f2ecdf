"""How addresses travel: from the source region to the client, and through every failure on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.keys import read_private_key, read_trusted_keys, write_key_pair
from tests.e2e.channel import Channel
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, BUCKET, OTHER, OTHER_ADDRESS, REGISTRY, STORAGE, World

pytestmark = pytest.mark.e2e

MOVED = "10.94.205.199"


@pytest.fixture
def started(world: World) -> World:
    """A world of the test's own, in which every name is learned."""
    world.start()
    return world


def short(world: World, name: str = REGISTRY) -> list[str]:
    return world.server.short(name)


# -- changes at the source ------------------------------------------------------


def test_changed_address_is_answered_after_the_next_refresh(started: World) -> None:
    assert short(started) == [ADDRESSES[REGISTRY]]
    started.source.replace(REGISTRY, f"A {MOVED}")
    # Helper and proxy each look once a second.
    wait_for(lambda: short(started) == [MOVED], "the moved address is answered", deadline=10)
    (change,) = [
        change
        for event in started.proxy.events("learned.swapped")
        for change in event["changes"]
        if change["old"]
    ]
    assert change == {"name": f"{REGISTRY}.", "old": [ADDRESSES[REGISTRY]], "new": [MOVED]}
    assert short(started, AUTH) == [ADDRESSES[AUTH]]


def test_changed_endpoint_moves_every_bucket_below_it(started: World) -> None:
    started.source.replace(STORAGE, "A 100.118.28.44", "A 100.118.28.45")
    expected = ["100.118.28.44", "100.118.28.45"]
    wait_for(lambda: short(started, BUCKET) == expected, "the whole new set is answered for a bucket")
    assert short(started, STORAGE) == expected


def test_ipv6_address_at_the_source_is_answered_too(started: World) -> None:
    started.source.replace(REGISTRY, f"A {MOVED}", "AAAA fd00::198")
    wait_for(lambda: started.server.short(REGISTRY, "AAAA") == ["fd00::198"], "the AAAA record is answered")
    assert short(started) == [MOVED]


def test_name_that_vanishes_at_the_source_keeps_its_address(started: World) -> None:
    started.source.replace(AUTH)
    wait_for(lambda: started.helper.events("helper.resolve_failed"), "the helper finds the name gone")
    started.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(started) == [MOVED], "a later change arrives")
    assert short(started, AUTH) == [ADDRESSES[AUTH]]


# -- parts that are gone ----------------------------------------------------------


def test_killed_helper_changes_no_answer_and_its_return_is_noticed(started: World) -> None:
    started.helper.kill()
    wait_for(lambda: started.proxy.events("learned.source_failed"), "the proxy finds the helper gone")
    for name, address in ADDRESSES.items():
        assert short(started, name) == [address]
    assert started.admin("/ready").status == 200
    started.source.replace(REGISTRY, f"A {MOVED}")
    started.start_helper()
    wait_for(lambda: short(started) == [MOVED], "what has changed meanwhile is answered")


def test_proxy_restarted_without_a_helper_answers_from_disk(started: World) -> None:
    wait_for(started.state_file.exists, "the snapshot is on disk")
    started.helper.kill()
    assert started.proxy.stop() == 0
    started.source.process.kill()
    started.start_proxy()
    for name, address in {**ADDRESSES, BUCKET: ADDRESSES[STORAGE]}.items():
        assert short(started, name) == [address]
    assert started.admin("/ready").status == 200


def test_killed_proxy_has_the_last_change_on_disk(started: World) -> None:
    started.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(started) == [MOVED], "the moved address is answered")
    public = read_trusted_keys([started.public_key])

    def kept() -> bool:
        lines = started.state_file.read_text().split()
        return any(addresses(seal.verify(line, public)).get(REGISTRY) == (MOVED,) for line in lines)

    wait_for(kept, "the moved address is on disk")
    started.helper.kill()
    started.proxy.kill()
    started.start_proxy()
    assert short(started) == [MOVED]


def test_torn_state_file_is_set_aside_and_the_proxy_starts(started: World) -> None:
    wait_for(started.state_file.exists, "the snapshot is on disk")
    started.helper.kill()
    assert started.proxy.stop() == 0
    whole = started.state_file.read_bytes()
    started.state_file.write_bytes(whole[: len(whole) // 2])
    started.start_proxy()
    assert started.server.dig(REGISTRY).rcode == "SERVFAIL"
    assert short(started, OTHER) == [OTHER_ADDRESS]
    (aside,) = started.state_file.parent.glob("learned.jws.bad-*")
    assert aside.read_bytes() == whole[: len(whole) // 2]
    started.start_helper()
    wait_for(lambda: short(started) == [ADDRESSES[REGISTRY]], "the name is learned again")


# -- before the first snapshot ------------------------------------------------------


def test_before_the_first_snapshot_owned_names_are_not_ready_and_others_work(world: World) -> None:
    world.source.start()
    world.upstream.start()
    world.start_proxy()
    reply = world.server.dig(REGISTRY)
    assert (reply.rcode, reply.extended_errors) == ("SERVFAIL", (14,))
    assert short(world, OTHER) == [OTHER_ADDRESS]
    ready = world.admin("/ready")
    assert ready.status == 503
    for name in (REGISTRY, AUTH, STORAGE):
        assert name in ready.body.decode()
    assert world.admin("/health").status == 200
    assert world.command("status").returncode == 1
    world.start_helper()
    world.wait_ready()
    assert short(world) == [ADDRESSES[REGISTRY]]
    assert world.command("status").returncode == 0


def test_one_missing_name_is_named_and_the_others_are_answered(world: World) -> None:
    world.source.start()
    world.upstream.start()
    world.source.replace(AUTH)
    world.start_helper()
    world.start_proxy()
    wait_for(lambda: short(world) == [ADDRESSES[REGISTRY]], "the other names are learned")
    ready = world.admin("/ready")
    assert ready.status == 503
    assert AUTH in ready.body.decode()
    assert REGISTRY not in ready.body.decode()
    done = world.command("status", "--json")
    assert done.returncode == 1
    states = {entry["name"].removesuffix("."): entry["status"] for entry in json.loads(done.stdout)["names"]}
    assert states == {REGISTRY: "ok", AUTH: "missing", STORAGE: "ok", f"*.{STORAGE}": "ok"}


# -- other channels -------------------------------------------------------------------


def test_file_channel_carries_changes_and_a_cut_file_is_refused(world: World) -> None:
    published = world.folder / "channel.jws"
    world.configure(
        helper={"publish_file": str(published)}, learn={"sources": [{"url": f"file://{published}"}]}
    )
    world.start()
    world.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(world) == [MOVED], "the moved address is answered")
    world.helper.kill()
    published.write_bytes(published.read_bytes()[:200])
    assert rejection(world)["reason"] == "malformed"
    assert short(world) == [MOVED]


# -- snapshots that must not be used ----------------------------------------------------


def addresses(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    return {entry.name.removesuffix("."): entry.addresses for entry in snapshot.names}


def rejection(world: World) -> dict[str, object]:
    (first, *_) = wait_for(lambda: world.proxy.events("learned.rejected"), "the snapshot is refused")
    return first


class Forger:
    """Makes documents out of the newest one that the helper has signed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.newest = world.snapshot().body
        self.snapshot = seal.verify(self.newest.decode(), read_trusted_keys([world.public_key]))
        self.key = read_private_key(world.key)

    def moved(self) -> Snapshot:
        """Return a newer snapshot with another address for every name."""
        entries = tuple(replace(entry, addresses=("10.66.66.66",)) for entry in self.snapshot.names)
        serial = self.snapshot.serial + 1_000_000
        return replace(self.snapshot, serial=serial, issued_at=int(time.time()), names=entries)

    def signed_by_a_stranger(self) -> bytes:
        return seal.sign(self.moved(), Ed25519PrivateKey.generate()).encode()

    def with_the_signature_of_another(self) -> bytes:
        """A forged payload under the header and signature of a good one: the key id is a trusted one."""
        header, _, signature = self.newest.split(b".")
        payload = seal.sign(self.moved(), self.key).encode().split(b".")[1]
        return b".".join([header, payload, signature])

    def cut(self) -> bytes:
        return self.newest[: len(self.newest) // 2]

    def with_a_cut_signature(self) -> bytes:
        """All of it but the last 31 octets of the signature: 44 characters of base64url are 33 octets."""
        signed, _, signature = self.newest.rpartition(b".")
        return signed + b"." + signature[:44]

    def expired(self) -> bytes:
        return self._issued(int(time.time()) - 30 * 86_400)

    def from_the_future(self) -> bytes:
        return self._issued(int(time.time()) + 86_400)

    def emptied(self) -> bytes:
        entries = tuple(replace(entry, addresses=()) for entry in self.snapshot.names)
        return seal.sign(replace(self.moved(), names=entries), self.key).encode()

    def of_other_names(self) -> bytes:
        foreign = replace(self.snapshot.names[0], name="www.bank.example.")
        return seal.sign(replace(self.moved(), names=(foreign,)), self.key).encode()

    def _issued(self, at: int) -> bytes:
        return seal.sign(replace(self.moved(), issued_at=at, expires_at=at + 86_400), self.key).encode()


FORGERIES = [
    (Forger.signed_by_a_stranger, "unknown_key"),
    (Forger.with_the_signature_of_another, "bad_signature"),
    (Forger.cut, "malformed"),
    (Forger.with_a_cut_signature, "bad_signature"),
    (Forger.expired, "expired"),
    (Forger.from_the_future, "not_yet_valid"),
    (Forger.emptied, "shrank_to_empty"),
    (Forger.of_other_names, "not_ours"),
]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Channel, Forger]]:
    """A learned world whose helper is gone, and whose channel is in strange hands."""
    with World(tmp_path_factory.mktemp("w")) as world:
        # A source that is refused is asked again after up to four times this.
        world.configure(learn={"refresh": "200ms"})
        world.start()
        world.source.replace(REGISTRY, f"A {MOVED}")
        wait_for(lambda: short(world) == [MOVED], "the moved address is answered")
        forger = Forger(world)
        world.helper.kill()
        with Channel(world.helper_port, forger.newest) as channel:
            yield world, channel, forger


@pytest.mark.xdist_group("e2e-forgeries")
@pytest.mark.parametrize(("forge", "reason"), FORGERIES, ids=lambda value: getattr(value, "__name__", value))
def test_forged_snapshot_is_refused_with_its_reason_and_changes_nothing(
    attacked: tuple[World, Channel, Forger], forge: Callable[[Forger], bytes], reason: str
) -> None:
    world, channel, forger = attacked
    sample = f'dnsproxy_learned_rejected_total{{reason="{reason}"}}'
    before, seen = world.metric(sample), len(world.proxy.events("learned.rejected"))
    channel.body = forge(forger)
    wait_for(lambda: world.metric(sample) > before, f"{reason} is counted")
    events = wait_for(lambda: world.proxy.events("learned.rejected")[seen:], f"{reason} is logged")
    assert {event["reason"] for event in events} == {reason}
    assert all(event["detail"] for event in events)
    assert short(world) == [MOVED]
    assert short(world, AUTH) == [ADDRESSES[AUTH]]
    # The good one ends the trouble, and makes the next refusal news again.
    channel.body = forger.newest
    wait_for(lambda: source_error(world) is None, "the source is well again")


def source_error(world: World) -> str | None:
    (source,) = world.admin("/api/v1/status").json()["sources"]
    error: str | None = source["last_error"]
    return error


@pytest.mark.xdist_group("e2e-forgeries")
def test_body_shorter_than_promised_is_refused_and_changes_nothing(
    attacked: tuple[World, Channel, Forger],
) -> None:
    world, channel, forger = attacked
    channel.body, channel.missing = seal.sign(forger.moved(), forger.key).encode()[:300], 500
    wait_for(lambda: source_error(world), "the cut body is noticed")
    assert short(world) == [MOVED]
    channel.body, channel.missing = forger.newest, 0
    wait_for(lambda: source_error(world) is None, "the source is well again")


def test_replayed_older_snapshot_is_refused(started: World) -> None:
    old = started.snapshot().body
    started.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(started) == [MOVED], "the moved address is answered")
    started.helper.kill()
    with Channel(started.helper_port, old):
        assert rejection(started)["reason"] == "older"
        assert short(started) == [MOVED]
        assert started.metric('dnsproxy_learned_rejected_total{reason="older"}') >= 1


def test_second_helper_with_another_key_is_not_believed(started: World) -> None:
    started.helper.kill()
    stranger, _ = write_key_pair(started.folder / "stranger")
    started.configure(helper={"signing_key_file": str(stranger)})
    started.source.replace(REGISTRY, "A 10.66.66.66")
    started.start_helper()
    assert rejection(started)["reason"] == "unknown_key"
    assert short(started) == [ADDRESSES[REGISTRY]]
