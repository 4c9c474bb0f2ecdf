"""Ten thousand names in one snapshot: how long a change of all takes, and who waits for it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dnsproxy.keys import read_private_key
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, REGISTRY, World
from tests.faults.asking import Steady
from tests.faults.sources import Signer, Source, body, resident

pytestmark = pytest.mark.faults

COUNT = 10_000
MIB = 1024 * 1024
# Octets for 10,000 names; what an unbounded copy would take is far above.
MOST_MEMORY = 400 * MIB


def numbered(second: int) -> dict[str, tuple[str, ...]]:
    names = {
        f"n{number}.registry.example": (f"10.{second}.{number >> 8}.{number & 255}",)
        for number in range(COUNT)
    }
    return {REGISTRY: (ADDRESSES[REGISTRY],), **names}


def test_ten_thousand_names_are_learned_and_changed_while_queries_are_answered(
    world: World, note: Callable[[str], None], full: bool
) -> None:
    signer = Signer("helper-e2e", read_private_key(world.key))
    world.configure_registries(
        {
            "name": "large",
            "provider": "generic",
            "names": [{"name": name, "role": "other"} for name in numbered(1)],
        }
    )
    world.configure(learn={"refresh": "200ms"})
    world.upstream.start()
    few = {REGISTRY: (ADDRESSES[REGISTRY],)}
    with Source(world.helper_port, signer.body(few)) as source:
        started = time.monotonic()
        world.start_proxy()
        note(f"started in {time.monotonic() - started:.1f} s")
        wait_for(lambda: world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]], "one name is learned")
        before = resident(world.proxy.pid)
        last = f"n{COUNT - 1}.registry.example"
        for second in range(1, 12 if full else 3):
            reply = signer.sign(signer.snapshot(numbered(second)))
            with Steady(world) as steady:
                started = time.monotonic()
                source.reply = body(reply)
                wait_for(
                    lambda second=second, last=last: world.server.short(last) == [f"10.{second}.39.15"],  # type: ignore[misc]
                    f"change {second} of all names is answered",
                )
                took = time.monotonic() - started
            note(
                f"change {second}: {len(reply) / MIB:.1f} MiB, in force after {took:.1f} s,"
                f" {steady.answers.total()} answers meanwhile, slowest {steady.slowest:.2f} s,"
                f" memory {before / MIB:.0f} to {resident(world.proxy.pid) / MIB:.0f} MiB"
            )
        assert resident(world.proxy.pid) < MOST_MEMORY
    assert world.admin("/ready").status == 200
