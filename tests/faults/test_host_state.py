"""The state file, cut anywhere, and written by a program that is killed: never fatal, half or lost."""

from __future__ import annotations

import http.client
import json
import random
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.learned import Scope, Snapshot
from dnsproxy.core.registry import Wanted
from dnsproxy.core.trust import Trust
from dnsproxy.keys import read_private_key
from dnsproxy.net.statefile import load_state
from tests.e2e.processes import run_command, wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World
from tests.faults.conftest import FULL
from tests.strategies import learned

pytestmark = pytest.mark.faults

KILLS = 1000 if FULL else 200
PROXY_KILLS = 50 if FULL else 5
SECOND = "10.94.205.199"


def test_a_writer_killed_at_any_moment_leaves_a_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "state" / "learned.jws"
    done = run_command(sys.executable, "-m", "tests.faults.killed_writer", path, str(KILLS))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["rounds"], seen["torn"], seen["lost"], seen["left"]) == (KILLS, 0, 0, 0), seen
    # The kills did fall into writes, or nothing was shown.
    assert seen["inside"] > KILLS // 20, seen
    assert seen["writes"] > KILLS, seen


class Publisher:
    """Puts another signed snapshot into a file at each call, as a helper whose names change all the time."""

    def __init__(self, world: World) -> None:
        self.file = world.folder / "snapshot.jws"
        self._key = read_private_key(world.key)
        self.serial = 0

    def publish(self) -> None:
        self.serial += 1
        last = f"10.94.{self.serial // 250 % 250}.{self.serial % 250}"
        document = Snapshot(
            issuer="helper",
            serial=self.serial,
            issued_at=int(time.time()),
            expires_at=int(time.time()) + 3600,
            names=tuple(learned(f"{name}.", (last,)) for name in ADDRESSES),
        )
        new = self.file.with_suffix(".new")
        new.write_text(seal.sign(document, self._key))
        new.rename(self.file)


@pytest.mark.timeout(600)
def test_a_proxy_killed_while_all_changes_answers_the_last_it_kept(world: World) -> None:
    publisher = Publisher(world)
    publisher.publish()
    world.configure(learn={"sources": [{"url": f"file://{publisher.file}"}], "refresh": "100ms"})
    world.upstream.start()
    trusted = {seal.key_id(publisher._key.public_key()): publisher._key.public_key()}
    scope = Scope(frozenset(names.to_key(f"{name}.") for name in ADDRESSES), ())
    managed = tuple(Wanted(f"{name}.", "other", "hangzhou") for name in ADDRESSES)
    draw = random.Random(2)  # noqa: S311 - nothing is protected by it
    kept = 0
    for _ in range(PROXY_KILLS):
        world.start_proxy()
        # Before it has asked anybody it answers what was kept, unless this is the first time.
        assert kept == 0 or world.server.dig(REGISTRY).rcode == "NOERROR"
        start = publisher.serial

        def moved(start: int = start) -> bool:
            publisher.publish()
            return world.metric("dnsproxy_learned_serial") > start

        wait_for(moved, "changes are followed")
        until = time.monotonic() + draw.uniform(0, 0.5)
        while time.monotonic() < until:
            publisher.publish()
            time.sleep(0.01)
        world.proxy.signal(signal.SIGKILL)
        world.proxy.wait()
        state = AddressLifecycle(AddressPolicy(managed, keys=dict.fromkeys(trusted)))
        assert load_state(world.state_file, state, Trust(trusted, scope)) == []
        while not state.settle(100, 0.0, time.time()):
            pass
        assert state.serial >= kept
        kept = state.serial
        assert state.table().sets.keys() == {f"{name}." for name in ADDRESSES}
    assert kept > PROXY_KILLS


@pytest.mark.timeout(240)
def test_a_proxy_starts_with_a_state_cut_anywhere(started: World) -> None:
    wait_for(started.state_file.exists, "the state is kept")
    assert started.proxy.stop() == 0
    started.helper.kill()
    whole = started.state_file.read_bytes()
    # The end of the signed snapshot, which is all that these names need.
    end_of_snapshot = whole.rindex(b'"', 0, whole.index(b'"discoveries"') - 2)
    for end in (0, end_of_snapshot // 2, end_of_snapshot, len(whole) - 1, len(whole)):
        for left in started.state_file.parent.iterdir():
            left.unlink()
        started.state_file.write_bytes(whole[:end])
        started.start_proxy()
        reply = started.server.dig(REGISTRY)
        # Without an address it says so at once, and never that the name does not exist.
        is_known = end >= end_of_snapshot
        expected = ("NOERROR", [ADDRESSES[REGISTRY]]) if is_known else ("SERVFAIL", [])
        assert (reply.rcode, reply.data) == expected
        assert started.server.short(OTHER) == [OTHER_ADDRESS]
        aside = [path for path in started.state_file.parent.iterdir() if ".bad-" in path.name]
        assert [path.read_bytes() for path in aside] == ([whole[:end]] if 0 < end < len(whole) else [])
        assert started.proxy.stop() == 0


NAMES = [f"n{number}.example" for number in range(24)]


def pin(world: World, name: str, address: str) -> bool:
    """Return whether the proxy says that the pin is on disk."""
    body = json.dumps({"name": name, "addresses": [address]}).encode()
    url = f"http://127.0.0.1:{world.admin_port}/api/v1/pin"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - http on loopback
        return json.load(response)["not_saved"] is None


@pytest.mark.timeout(300)
def test_sigkill_after_acknowledged_commands_loses_none_of_them(world: World) -> None:
    world.configure_registries(
        {"name": "g", "provider": "generic", "names": [{"name": name} for name in NAMES]}
    )
    world.upstream.start()
    draw = random.Random(3)  # noqa: S311 - nothing is protected by it
    acknowledged: dict[str, int] = dict.fromkeys(NAMES, 0)
    turn = 0
    for _ in range(PROXY_KILLS):
        world.start_proxy()
        ended = threading.Event()

        def order(name: str, start: int, ended: threading.Event = ended) -> None:
            number = start
            while not ended.is_set():
                number += 1
                try:
                    if pin(world, name, f"10.1.{number // 250}.{number % 250}"):
                        acknowledged[name] = number
                except (OSError, http.client.HTTPException):
                    return  # killed

        threads = [threading.Thread(target=order, args=(name, turn)) for name in NAMES]
        before = dict(acknowledged)
        for thread in threads:
            thread.start()
        wait_for(lambda before=before: acknowledged != before, "a command is acknowledged")  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.3))
        world.proxy.signal(signal.SIGKILL)
        world.proxy.wait()
        ended.set()
        for thread in threads:
            thread.join()
        turn = max(acknowledged.values()) + 1
        document = json.loads(world.state_file.read_text())
        kept = {entry["name"]: entry["addresses"][0] for entry in document["pins"]}
        for name, number in acknowledged.items():
            if number:
                third, last = kept[f"{name}."].split(".")[2:]
                assert int(third) * 250 + int(last) >= number, name
