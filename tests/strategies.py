"""Hypothesis strategies for the values that several test modules share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.table import Origin, ServedTable, Statement
from dnsproxy.core.learned import ROLES, LearnedName, Snapshot, canonical_addresses
from dnsproxy.core.registry import MAX_FOUND, Found, Wanted

KEY = "key-a"

whole_numbers = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=12)
labels = st.binary(min_size=1, max_size=12).map(bytes.lower)


def _wire(parts: list[bytes]) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts) + names.ROOT


keys = st.lists(labels, max_size=6).map(_wire)
canonical_names = st.lists(labels, min_size=1, max_size=4).map(_wire).map(names.to_text)
addresses = st.lists(st.ip_addresses().map(str), max_size=4).map(canonical_addresses)

learned_names = st.builds(
    LearnedName,
    name=canonical_names,
    role=st.sampled_from(sorted(ROLES)),
    registry=texts,
    addresses=addresses,
    cname=st.none() | canonical_names,
    ttl=whole_numbers,
    observed_at=whole_numbers,
    resolvers=st.lists(texts, max_size=2).map(tuple),
    status=st.sampled_from(["ok", "stale", "failed"]),
    changed_at=st.none() | st.floats(0, 2**62),
)
found = st.builds(
    Found,
    registry=texts,
    role=texts,
    names=st.lists(canonical_names, max_size=MAX_FOUND).map(tuple),
    observed_at=whole_numbers,
)
snapshots = st.builds(
    Snapshot,
    issuer=texts,
    serial=whole_numbers,
    issued_at=whole_numbers,
    expires_at=whole_numbers,
    names=st.lists(learned_names, max_size=4, unique_by=lambda entry: entry.name).map(tuple),
    found=st.lists(found, max_size=3, unique_by=lambda entry: entry.subject).map(tuple),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def learned(
    name: str = "registry.example.", addresses: tuple[str, ...] = ("10.0.0.1",), **facts: Any
) -> LearnedName:
    """One name as a helper might have seen it at time 1000; ``facts`` are other fields."""
    fields: dict[str, Any] = {
        "role": "registry",
        "registry": "hangzhou",
        "cname": None,
        "ttl": 60,
        "observed_at": 1000,
        "resolvers": ("100.100.2.136",),
        "status": "ok",
    }
    return LearnedName(name=name, addresses=addresses, **{**fields, **facts})


def snapshot(*entries: LearnedName, issuer: str = "helper-a", serial: int = 1, at: int = 1000) -> Snapshot:
    """A snapshot issued at Unix time ``at`` that is valid for a day."""
    return Snapshot(issuer, serial, at, at + 86_400, entries)


def opened(signed: Snapshot, key_id: str = KEY, token: str = "") -> OpenedSnapshot:
    """A verified snapshot; ``token`` need not be a signed form where nothing verifies it again."""
    return OpenedSnapshot(signed, key_id, token or f"{signed.issuer}/{signed.serial}")


def statement(
    name: str = "registry.example.",
    addresses: tuple[str, ...] = ("10.0.0.1",),
    *,
    issuer: str = "helper-a",
    serial: int = 1,
    at: int = 1000,
    **facts: Any,
) -> Statement:
    """A set as `snapshot` states it; ``facts`` are other fields of `learned`."""
    return Statement(
        learned(name, addresses, **facts), opened(snapshot(issuer=issuer, serial=serial, at=at)).origin
    )


def statements(signed: Snapshot) -> dict[str, Statement]:
    """What ``signed`` states for each name that it has addresses of."""
    origin: Origin = opened(signed).origin
    return {entry.name: Statement(entry, origin) for entry in signed.names if entry.addresses}


def served_table(*taken: Snapshot, managed: Iterable[Wanted] | None = None) -> ServedTable:
    """The table that answers with the sets of ``taken``, the last of each name.

    ``managed`` are the names of ``taken`` if not given.
    """
    sets = {name: held for each in taken for name, held in statements(each).items()}
    if managed is None:
        listed = {entry.name: entry for each in taken for entry in each.names}
        managed = (Wanted(entry.name, entry.role, entry.registry) for entry in listed.values())
    return ServedTable(tuple(managed), sets, max((each.serial for each in taken), default=0))


def lifecycle(
    *taken: Snapshot, policy: AddressPolicy | None = None, wall_now: float = 1000.0
) -> AddressLifecycle:
    """A state machine that has accepted ``taken``, in that order.

    Without ``policy`` it manages the names of ``taken`` and does not probe.
    """
    if policy is None:
        managed = served_table(*taken).managed
        policy = AddressPolicy(managed=managed, keys={KEY: None}, ports=())
    state = AddressLifecycle(policy)
    for each in taken:
        state.accept(opened(each))
        while not state.settle(1000, wall_now, wall_now):
            pass
    return state
