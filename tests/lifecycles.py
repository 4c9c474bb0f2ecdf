"""A proxy without sockets: the state machine of learned addresses, a clock, hosts to probe, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.health import Outcome, Probe, Result
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy, AddressState
from dnsproxy.core.addresses.state_file import encode, restore
from dnsproxy.core.learned import Accepted, LearnedName, Rejected, Scope, Snapshot, judge, judge_content
from dnsproxy.core.registry import Found, Wanted
from dnsproxy.core.trust import Limited, Trust
from dnsproxy.errors import SnapshotError
from tests.strategies import learned

NAME, OTHER = "a.example.", "b.example."
REGISTRY = "hangzhou"
H1, H2, H3 = "helper-1", "helper-2", "helper-3"
INTERVAL = 30.0
WALL = 1_800_000_000.0
DAY = 86_400
GOOD = Result(Outcome.ANSWERED, {443: "ok"})
FAILED = Result(Outcome.FAILED, {443: "Connection refused"})
NO_ROUTE = Result(Outcome.NO_ROUTE, {443: "Network is unreachable"})
HOST = Result(Outcome.HOST, {443: "Too many open files"})


def private_key(helper: str) -> Ed25519PrivateKey:
    """The key that ``helper`` signs with, the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(helper.encode()).digest())


KEYS = {helper: private_key(helper) for helper in (H1, H2, H3)}
KEY_IDS = {helper: seal.key_id(key.public_key()) for helper, key in KEYS.items()}


def policy_for(*managed: str, **facts: Any) -> AddressPolicy:
    """A policy that trusts every helper; ``facts`` are other fields."""
    wanted = tuple(Wanted(name, "registry", REGISTRY) for name in managed)
    defaults: dict[str, Any] = {"managed": wanted, "keys": dict.fromkeys(KEY_IDS.values())}
    return AddressPolicy(**{**defaults, "interval": INTERVAL, **facts})


def trust_of(policy: AddressPolicy) -> Trust:
    """What `trust.read_trust` makes of the settings that ``policy`` has too."""
    public = {KEY_IDS[helper]: key.public_key() for helper, key in KEYS.items()}
    keys = frozenset(names.to_key(entry.name) for entry in policy.managed)
    limited = {
        key_id: Limited(
            frozenset(names.to_key(e.name) for e in policy.managed if e.registry in registries),
            tuple(sought for sought in policy.sought if sought.registry in registries),
            registries,
        )
        for key_id, registries in policy.keys.items()
        if registries is not None
    }
    return Trust({key_id: public[key_id] for key_id in policy.keys}, Scope(keys, policy.sought), limited)


class ProxyModel:
    """Drives an `AddressLifecycle` as `address_service` does; every restart goes through the file."""

    def __init__(self, *managed: str, **policy: Any) -> None:
        self.policy = policy_for(*(managed or (NAME,)), **policy)
        self.state = AddressLifecycle(self.policy)
        self.now, self.wall = 100.0, WALL
        # What each address does when it is probed; the others answer.
        self.hosts: dict[str, Result] = {}
        self.probes: list[Probe] = []
        self.serials: dict[str, int] = {}

    # -- inputs -----------------------------------------------------------------------------

    def publish(
        self,
        helper: str,
        *addresses: str,
        name: str = NAME,
        cname: str | None = None,
        refused: tuple[tuple[str, ...], ...] = (),
        **facts: Any,
    ) -> bool:
        """Have ``helper`` state one set, confirmed now; return whether the snapshot is accepted."""
        observed_at = int(self.wall)
        entry = learned(name, addresses, cname=cname, refused=refused, observed_at=observed_at)
        return self.publish_all(helper, [entry], **facts)

    def publish_all(
        self,
        helper: str,
        entries: Iterable[LearnedName],
        *,
        found: Iterable[Found] = (),
        lifetime: int = DAY,
        serial: int | None = None,
        signer: str | None = None,
    ) -> bool:
        """Have ``helper`` publish a snapshot with ``entries``; ``signer`` is the helper whose key signs."""
        self.serials[helper] = self.serials.get(helper, 0) + 1 if serial is None else serial
        at = int(self.wall)
        signed = Snapshot(helper, self.serials[helper], at, at + lifetime, tuple(entries), tuple(found))
        trust = trust_of(self.policy)
        token = seal.sign(signed, KEYS[signer or helper])
        try:
            snapshot, scope = trust.open(token)
        except SnapshotError:
            return False
        held = self.state.snapshots.get(snapshot.issuer)
        verdict = judge(held.snapshot if held else None, snapshot, self.wall, scope)
        if not isinstance(verdict, Accepted):
            return False
        self.state.accept(OpenedSnapshot(verdict.snapshot, seal.signer(token), token))
        self.settle()
        return True

    def settle(self) -> None:
        """Work until nothing is left, one name at a time."""
        while not self.state.settle(1, self.now, self.wall):
            pass

    def dead(self, *addresses: str) -> None:
        """Have ``addresses`` refuse every connection."""
        self.hosts |= dict.fromkeys(addresses, FAILED)

    def alive(self, *addresses: str) -> None:
        """Have ``addresses`` answer again."""
        self.hosts |= dict.fromkeys(addresses, GOOD)

    def elapse(self, seconds: float) -> None:
        """Let time pass: each probe, and the end of each trial, at its time."""
        end = self.now + seconds
        while True:
            hold = self.state.next_trial_end(self.wall)
            due = [self.state.next_time(), None if hold is None else self.now + hold]
            step = min((at for at in due if at is not None), default=None)
            if step is None or step > end:
                break
            self._advance(max(step, self.now))
            self.probe()
        self._advance(end)

    def _advance(self, until: float) -> None:
        self.wall += until - self.now
        self.now = until
        self.state.tick()
        self.settle()

    def probe(self) -> list[Probe]:
        """Run the probes that are due now; return them."""
        due = self.state.next_probes(self.now)
        for probe in due:
            self.state.record(probe, self.hosts.get(probe.address, GOOD), self.now, self.wall)
        self.probes += due
        self.settle()
        return due

    def order(self, command: str, *arguments: Any) -> None:
        """Give a command of an operator."""
        needs_time = command in {"pin", "freeze", "rollback", "refuse"}
        getattr(self.state, command)(*arguments, *([self.wall] if needs_time else []))
        self.settle()

    # -- restart and reload -------------------------------------------------------------------

    def document(self) -> Any:
        """The file as it would be written now."""
        return json.loads("\n".join(encode(self.state)))

    def opened(self, tokens: Iterable[str]) -> list[OpenedSnapshot]:
        """Verify signed snapshots by the present policy, as `net.statefile` does."""
        trust, opened = trust_of(self.policy), []
        for token in tokens:
            try:
                snapshot, scope = trust.open(token)
            except SnapshotError:
                continue
            verdict = judge_content(None, snapshot, scope)
            if not isinstance(verdict, Rejected):
                opened.append(OpenedSnapshot(verdict.snapshot, seal.signer(token), token))
        return opened

    def restart(self, document: Any = None, **policy: Any) -> None:
        """End the process, perhaps change its settings, and start from the file."""
        document = document if document is not None else self.document()
        self.policy = replace(self.policy, **policy)
        self.now = 7.0  # the monotonic clock of another process
        self.state = AddressLifecycle(self.policy)
        opened = self.opened(document["snapshots"])
        restore(self.state, document, {entry.snapshot.issuer: entry.key_id for entry in opened})
        self.state.configure(self.policy, opened)
        self.settle()

    def reload(self, **policy: Any) -> None:
        """Change settings of the running process."""
        self.policy = replace(self.policy, **policy)
        opened = self.opened([held.token for held in self.state.snapshots.values()])
        self.state.configure(self.policy, opened)
        self.settle()

    # -- what can be observed -------------------------------------------------------------------

    def served(self, name: str = NAME) -> tuple[str, ...]:
        """The addresses that a query gets; none: SERVFAIL."""
        held = self.state.served(name)
        if held is None or self.wall >= held.snapshot.expires_at + self.policy.max_stale:
            return ()
        return held.learned.addresses

    def age(self, name: str = NAME) -> float:
        """Seconds since the last confirmation of what is answered."""
        held = self.state.served(name)
        assert held is not None
        return self.wall - held.learned.observed_at

    def is_stale(self, name: str = NAME) -> bool:
        held = self.state.served(name)
        assert held is not None
        return self.wall >= held.snapshot.expires_at

    def states(self, name: str = NAME) -> dict[str, AddressState]:
        return {state.address: state for state in self.state.states(name)}

    def life(self, name: str = NAME) -> dict[str, bool | None]:
        """Whether each known address is alive; None: unknown."""
        return {address: state.alive for address, state in self.states(name).items()}

    def probed(self, seconds: float = 2 * INTERVAL) -> set[str]:
        """The addresses that are probed in the next ``seconds``."""
        self.probes.clear()
        self.elapse(seconds)
        return {probe.address for probe in self.probes}

    def history(self, name: str = NAME) -> list[tuple[int, tuple[str, ...]]]:
        """Serial of each record, and its addresses of ``name``."""
        return [
            (record.serial, held.learned.addresses if (held := record.sets.get(name)) else ())
            for record in self.state.overrides.history
        ]

    def events(self) -> list[str]:
        """The events since the last call."""
        return [event for _, event, _ in self.state.take_events()]
