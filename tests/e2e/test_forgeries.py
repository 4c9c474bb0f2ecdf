"""Snapshots that must not be used: refused with the reason, and nothing changes."""

from __future__ import annotations

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
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, World

pytestmark = pytest.mark.e2e

MOVED = "10.94.205.199"


def short(world: World, name: str = REGISTRY) -> list[str]:
    return world.server.short(name)


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
    # One reason of one source is logged once a minute: of two forgeries with the same, the second may not be.
    logged = wait_for(
        lambda: [one for one in world.proxy.events("learned.rejected") if one["reason"] == reason],
        f"{reason} is logged",
    )
    assert all(event["detail"] for event in logged)
    assert {event["reason"] for event in world.proxy.events("learned.rejected")[seen:]} <= {reason}
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
