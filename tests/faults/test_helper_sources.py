"""A source of snapshots that is dead, slow, flapping, huge or full of junk: what is known is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.keys import read_private_key
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, STORAGE, World
from tests.faults.asking import Steady
from tests.faults.sources import Reply, Signer, Source, body, drip, giant, resident, silence

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults-sources")]

KNOWN: dict[str, tuple[str, ...]] = {name: (address,) for name, address in ADDRESSES.items()}
KNOWN[f"*.{STORAGE}"] = KNOWN[STORAGE]
EVIL: dict[str, tuple[str, ...]] = dict.fromkeys(KNOWN, ("10.66.66.66",))
MIB = 1024 * 1024


@dataclass
class Attacked:
    """A proxy that has learned, and the source that it goes on asking."""

    world: World
    source: Source
    signer: Signer

    def last_error(self) -> str | None:
        (source,) = self.world.admin("/api/v1/status").json()["sources"]
        error: str | None = source["last_error"]
        return error

    def wait_error(self, text: str) -> str:
        return wait_for(
            lambda: error if (error := self.last_error()) and text in error else None,
            f"{text!r} in the status",
        )

    def rejected(self, reason: str) -> float:
        return self.world.metric(f'dnsproxy_learned_rejected_total{{reason="{reason}"}}')

    def recover(self) -> None:
        """Let the source be well again, and wait until the proxy knows."""
        self.source.reply = self.signer.body(KNOWN)
        wait_for(lambda: self.last_error() is None, "the source is well again")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with World(tmp_path_factory.mktemp("w")) as world:
        # A source that fails is asked again after up to four times this.
        world.configure(learn={"refresh": "200ms"})
        signer = Signer("helper-e2e", read_private_key(world.key))
        world.upstream.start()
        made = Attacked(world, Source(world.helper_port, signer.body(KNOWN)).__enter__(), signer)
        try:
            world.start_proxy()
            wait_for(lambda: world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]], "the names are learned")
            yield made
        finally:
            made.source.__exit__(None, None, None)  # whichever it is by now


@pytest.fixture(autouse=True)
def _learned_names_are_answered(attacked: Attacked, note: Callable[[str], None]) -> Iterator[None]:
    """Before, during and after: and the source is well again for the next test."""
    with Steady(attacked.world) as steady:
        yield
        attacked.recover()
    assert attacked.world.admin("/ready").status == 200
    note(f"learned name answered {steady.answers.total()} times meanwhile")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (silence, "no whole answer within"),
        (drip(b"x" * 1000, 0.5), "no whole answer within"),
        (body(b"", 500), "status 500"),
        (body(b"moved", 302), "redirects are not followed"),
    ],
    ids=["silent", "a body of one octet each half second", "status 500", "redirect"],
)
def test_a_source_that_gives_no_answer_is_named_and_left(
    attacked: Attacked, reply: Reply, error: str, note: Callable[[str], None]
) -> None:
    attacked.source.reply = reply
    note(attacked.wait_error(error))


def test_a_dead_source_is_named_and_its_return_noticed(attacked: Attacked) -> None:
    port = attacked.world.helper_port
    attacked.source.__exit__(None, None, None)
    assert "Connection refused" in attacked.wait_error("refused")
    attacked.source = Source(port, silence).__enter__()


def test_a_flapping_source_changes_no_answer(attacked: Attacked, note: Callable[[str], None]) -> None:
    good, bad = attacked.signer.body(KNOWN), body(b"", 503)
    before = attacked.source.requests
    swaps = len(attacked.world.proxy.events("learned.in_service"))

    def flap(exchange: object) -> None:
        (good if attacked.source.requests % 2 else bad)(exchange)  # type: ignore[arg-type]  # an Exchange

    attacked.source.reply = flap
    wait_for(lambda: attacked.source.requests >= before + 12, "a dozen requests")
    attacked.recover()
    assert len(attacked.world.proxy.events("learned.in_service")) == swaps
    note(f"{attacked.source.requests - before} requests, every other one failed, nothing swapped")


def test_a_body_of_a_gigabyte_is_left_after_eight_mebibytes(
    attacked: Attacked, note: Callable[[str], None]
) -> None:
    pid = attacked.world.proxy.pid
    before, sent, cut = resident(pid), attacked.source.octets, attacked.source.cut
    most = before

    def told() -> bool:
        nonlocal most
        most = max(most, resident(pid))
        return attacked.last_error() is not None and attacked.source.cut >= cut + 2

    attacked.source.reply = giant(1024 * MIB)
    wait_for(told, "two such bodies were left")
    assert "larger than 8388608 octets" in attacked.wait_error("larger")
    read = (attacked.source.octets - sent) / (attacked.source.cut - cut)
    # What the kernels' buffers hold is sent as well.
    assert read < 32 * MIB
    assert most - before < 64 * MIB
    note(f"{read / MIB:.1f} MiB sent of each GiB, memory {before / MIB:.0f} to {most / MIB:.0f} MiB")


def tampered(token: bytes) -> bytes:
    """The token with one octet of its payload changed: the key id is a trusted one."""
    header, payload, signature = token.split(b".")
    place = len(payload) // 2
    other = b"A" if payload[place : place + 1] != b"A" else b"B"
    return b".".join([header, payload[:place] + other + payload[place + 1 :], signature])


DOCUMENTS: dict[str, Callable[[Attacked], bytes]] = {
    "malformed html": lambda _: b"<html><h1>502 Bad Gateway</h1></html>",
    "malformed octets": lambda _: bytes(range(256)) * 100,
    "malformed json": lambda _: json.dumps({"names": [{}] * 100}).encode(),
    "malformed deep": lambda _: b".".join([b"eyJhIjo" + b"W1tb" * 10_000, b"e30", b"AA"]),
    "malformed empty": lambda _: b"",
    "unknown_key": lambda a: Signer("helper-e2e", Ed25519PrivateKey.generate()).sign(a.signer.snapshot(EVIL)),
    "bad_signature": lambda a: tampered(a.signer.sign(a.signer.snapshot(EVIL))),
    "older": lambda a: a.signer.sign(a.signer.snapshot(EVIL, serial=1_700_000_000_000)),
    "shrank_to_empty": lambda a: a.signer.sign(a.signer.snapshot({})),
    "shrank_to_empty lists": lambda a: a.signer.sign(a.signer.snapshot(dict.fromkeys(KNOWN, ()))),
    "not_ours": lambda a: a.signer.sign(a.signer.snapshot({"www.bank.example": ("10.66.66.66",)})),
    "expired": lambda a: a.signer.sign(
        a.signer.snapshot(EVIL, issued_at=1_700_000_000, expires_at=1_700_086_400)
    ),
    "not_yet_valid": lambda a: a.signer.sign(
        a.signer.snapshot(EVIL, issued_at=4_000_000_000, expires_at=4_000_086_400)
    ),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_that_must_not_be_used_is_refused_with_its_reason(attacked: Attacked, case: str) -> None:
    reason = case.split(maxsplit=1)[0]
    attacked.recover()
    counted = {each: attacked.rejected(each) for each in {name.split(maxsplit=1)[0] for name in DOCUMENTS}}
    attacked.source.reply = body(DOCUMENTS[case](attacked))
    attacked.wait_error(f"{reason}: ")
    after = {each: attacked.rejected(each) for each in counted}
    assert {each for each in counted if after[each] > counted[each]} == {reason}


def test_a_serial_from_the_far_future_is_no_trap(attacked: Attacked, note: Callable[[str], None]) -> None:
    # A helper whose clock had been wrong went on from there, and was believed; then it lost its state.
    world, signer = attacked.world, attacked.signer
    moved = "100.103.7.182"
    future = 4_000_000_000_000

    def wait_serial(expected: int) -> None:
        def taken() -> bool:
            serial: int = world.admin("/api/v1/status").json()["sources"][0]["serial"]
            return serial == expected

        wait_for(taken, f"serial {expected} is taken")

    now = int(time.time())
    attacked.source.reply = signer.body(KNOWN, serial=future, issued_at=now)
    wait_serial(future)
    again = signer.snapshot({**KNOWN, AUTH: (moved,)}, issued_at=now + 1)
    attacked.source.reply = body(signer.sign(again))
    wait_serial(again.serial)
    assert world.server.short(AUTH) == [moved]
    # What was signed before is a replay, whatever its serial.
    replay = signer.snapshot(EVIL, serial=future, issued_at=again.issued_at - 60)
    before = attacked.rejected("older")
    attacked.source.reply = body(signer.sign(replay))
    wait_for(lambda: attacked.rejected("older") > before, "the replay is refused")
    assert world.server.short(AUTH) == [moved]
    attacked.recover()
    assert world.server.short(AUTH) == list(KNOWN[AUTH])
    note(f"{future} was taken, then {again.serial}; the replay was refused")
