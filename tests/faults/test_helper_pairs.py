"""Two helpers that disagree, and a key that is replaced by another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from dnsproxy.core import seal
from dnsproxy.core.addresses.name_state import TAKEOVER_AFTER
from dnsproxy.keys import read_private_key, write_key_pair
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, World
from tests.faults.asking import Steady
from tests.faults.sources import Exchange, Signer, Source, body

pytestmark = pytest.mark.faults

ONE = {REGISTRY: ("10.94.205.198",), AUTH: (ADDRESSES[AUTH],)}
OTHER = {REGISTRY: ("10.94.205.199",), AUTH: (ADDRESSES[AUTH],)}


@pytest.fixture
def pair(world: World) -> Iterator[tuple[World, Source, Source]]:
    """A proxy with two helpers of different views, each of which looks again at each request."""
    key = read_private_key(world.key)
    one, two = Signer("helper-one", key), Signer("helper-two", key)
    ports = (world.take_port(), world.take_port())
    sources = [{"url": f"http://127.0.0.1:{port}/v1/snapshot"} for port in ports]
    world.configure(learn={"sources": sources, "refresh": "200ms"})
    world.upstream.start()
    with ExitStack() as stack:
        first = stack.enter_context(Source(ports[0], fresh(one, ONE)))
        # Later, so that it is known who came first.
        second = stack.enter_context(Source(ports[1], body(b"", 503)))
        world.start_proxy()
        wait_for(lambda: world.server.short(REGISTRY) == list(ONE[REGISTRY]), "the first view is learned")
        second.reply = fresh(two, OTHER)
        yield world, first, second


def fresh(signer: Signer, addresses: Mapping[str, tuple[str, ...]]) -> Callable[[Exchange], None]:
    """A helper that has looked again just now, whenever it is asked."""

    def reply(exchange: Exchange) -> None:
        signer.body(addresses)(exchange)

    return reply


def issuers(world: World) -> set[str]:
    return {source["issuer"] for source in world.admin("/api/v1/status").json()["sources"]}


def test_two_helpers_that_disagree_do_not_make_answers_flap(
    pair: tuple[World, Source, Source], note: Callable[[str], None]
) -> None:
    world, first, second = pair
    with Steady(world):
        wait_for(lambda: issuers(world) == {"helper-one", "helper-two"}, "both are heard")
        counts = first.requests, second.requests
        wait_for(
            lambda: first.requests >= counts[0] + 10 and second.requests >= counts[1] + 10, "ten rounds more"
        )
    assert len(world.proxy.events("learned.in_service")) == 1
    note(f"{first.requests} and {second.requests} requests, the answer changed never")


def test_the_newest_helper_takes_a_name_over_when_the_first_confirms_it_no_more(
    pair: tuple[World, Source, Source], note: Callable[[str], None]
) -> None:
    world, first, second = pair
    wait_for(lambda: issuers(world) == {"helper-one", "helper-two"}, "both are heard")
    first.reply = body(b"", 503)
    (name,) = [n for n in world.admin("/api/v1/status").json()["names"] if n["name"] == f"{REGISTRY}."]
    assert name["source"] == "helper-one"
    # What the second one sees from now on is over a minute newer than the last that the first one saw.
    signer = Signer("helper-two", read_private_key(world.key))

    def later(exchange: Exchange) -> None:
        ahead = int(time.time()) + TAKEOVER_AFTER + 5
        signer.body(OTHER, issued_at=ahead, observed_at=ahead, expires_at=ahead + 86_400)(exchange)

    second.reply = later
    with Steady(world, REGISTRY, ONE[REGISTRY], OTHER[REGISTRY]):
        wait_for(lambda: world.server.short(REGISTRY) == list(OTHER[REGISTRY]), "the other's is answered")
    changes = len(world.proxy.events("learned.in_service"))
    # The first one returns, with a look that is older than the second one's: the name stays where it is.
    first.reply = fresh(Signer("helper-one", read_private_key(world.key)), ONE)
    count = first.requests
    with Steady(world, REGISTRY, OTHER[REGISTRY]):
        wait_for(lambda: first.requests >= count + 5, "the first one is heard again")
    assert len(world.proxy.events("learned.in_service")) == changes
    note("taken over once, and not given back")


def test_a_key_is_replaced_without_a_gap(world: World, note: Callable[[str], None]) -> None:
    world.configure(learn={"refresh": "200ms"})
    new_key, new_public = write_key_pair(world.folder / "next")
    world.configure(learn={"trusted_keys": [str(world.public_key), str(new_public)]})
    world.start()
    moved = "10.94.205.199"
    with Steady(world, AUTH):
        world.helper.kill()
        world.configure(helper={"signing_key_file": str(new_key)})
        world.source.replace(REGISTRY, f"A {moved}")
        world.start_helper()
        wait_for(lambda: world.server.short(REGISTRY) == [moved], "what the new key signs is answered")
    assert world.metric('dnsproxy_learned_rejected_total{reason="unknown_key"}') == 0
    # The old key is not needed for anything that is known.
    new_id = seal.key_id(read_private_key(new_key).public_key())

    def signers() -> set[str]:
        return {seal.signer(token) for token in json.loads(world.state_file.read_text())["snapshots"]}

    wait_for(lambda: signers() == {new_id}, "the state has what the new key signed alone")
    world.helper.kill()
    world.configure(learn={"trusted_keys": [str(new_public)]})
    assert world.proxy.stop() == 0
    world.start_proxy()
    with Steady(world, AUTH):
        assert world.server.short(REGISTRY) == [moved]
    assert world.proxy.events("learned.state_rejected") == []
    note("both trusted, helper restarted with the new key, old key taken away: no answer was missed")
