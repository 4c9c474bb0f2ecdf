"""The state file, cut anywhere, and written by a program that is killed: never fatal, half or lost."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from dnsproxy.net.refresh import Learner
from structlog.testing import capture_logs

from dnsproxy.core import names, seal
from dnsproxy.core.learned import Scope, Snapshot
from dnsproxy.core.trust import Trust
from dnsproxy.keys import read_private_key
from dnsproxy.net.statefile import read_state, write_state
from dnsproxy.settings.learning import LearnSettings, SourceSettings
from tests.e2e.processes import run_command, wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World
from tests.faults.conftest import FULL
from tests.faults.fuzz.targets import KEY, SCOPE, TRUSTED
from tests.messages import OSS
from tests.messages import REGISTRY as NAME
from tests.strategies import learned, snapshot

pytestmark = pytest.mark.faults

KILLS = 1000 if FULL else 200
PROXY_KILLS = 50 if FULL else 5
SECOND = "10.94.205.199"


def load(path: Path) -> dict[str, tuple[str, ...]]:
    """Return what a proxy answers after a start with the file at ``path``."""
    settings = LearnSettings(
        sources=[SourceSettings(url="http://127.0.0.1:1/v1/snapshot")], trusted_keys=[path], state_file=path
    )
    learner = Learner(settings, Trust(TRUSTED, SCOPE), lambda _: None, wall=lambda: 2000.0)
    with capture_logs():
        learner.load()
    return {name: entry.learned.addresses for name, entry in learner.book.entries.items()}


def test_a_changed_octet_costs_no_more_than_its_document(tmp_path: Path) -> None:

    path = tmp_path / "learned.jws"
    first = seal.sign(snapshot(learned(NAME, ("10.0.0.1",)), issuer="a"), KEY)
    second = seal.sign(snapshot(learned(OSS, ("10.0.0.2",)), issuer="b"), KEY)
    whole = f"{first}\n{second}\n".encode()
    for place in range(0, len(whole), 1 if FULL else 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        held = load(path)
        if place < len(first):
            assert held == {OSS: ("10.0.0.2",)}, place
        elif len(first) < place < len(whole) - 1:
            assert held == {NAME: ("10.0.0.1",)}, place


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
        (token,) = read_state(world.state_file)
        serial = seal.verify(token, trusted).serial
        assert serial >= kept
        kept = serial
        assert load_names(world, token, trusted) == {f"{name}." for name in ADDRESSES}
    assert kept > PROXY_KILLS


def load_names(world: World, token: str, trusted: seal.TrustedKeys) -> set[str]:
    path = world.folder / "copy.jws"
    write_state(path, [token])
    scope = Scope(frozenset(names.to_key(f"{name}.") for name in ADDRESSES), ())
    settings = LearnSettings(
        sources=[SourceSettings(url="http://127.0.0.1:1/v1/snapshot")], trusted_keys=[path], state_file=path
    )
    learner = Learner(settings, Trust(trusted, scope), lambda _: None)
    learner.load()
    return set(learner.book.entries)


@pytest.mark.timeout(240)
def test_a_proxy_starts_with_a_state_cut_anywhere(started: World) -> None:
    wait_for(started.state_file.exists, "the state is kept")
    assert started.proxy.stop() == 0
    started.helper.kill()
    whole = started.state_file.read_bytes()
    for end in (0, len(whole) // 2, len(whole) - 2, len(whole) - 1):
        for left in started.state_file.parent.iterdir():
            left.unlink()
        started.state_file.write_bytes(whole[:end])
        started.start_proxy()
        is_whole = end == len(whole) - 1
        reply = started.server.dig(REGISTRY)
        # Without an address it says so at once, and never that the name does not exist.
        expected = ("NOERROR", [ADDRESSES[REGISTRY]]) if is_whole else ("SERVFAIL", [])
        assert (reply.rcode, reply.data) == expected
        assert started.server.short(OTHER) == [OTHER_ADDRESS]
        aside = [path for path in started.state_file.parent.iterdir() if ".bad-" in path.name]
        assert [path.read_bytes() for path in aside] == ([whole[:end]] if 0 < end < len(whole) - 1 else [])
        assert started.proxy.stop() == 0
