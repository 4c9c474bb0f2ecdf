from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.config import parse
from dnsproxy.core import seal
from dnsproxy.core.addresses.health import Outcome, Result
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.state_file import encode
from dnsproxy.core.learned import Snapshot
from dnsproxy.keys import ensure_private_key, local_key_path, read_private_key, write_key_pair
from dnsproxy.net.statefile import load_state, overrides_path
from dnsproxy.ops.client import AdminError
from dnsproxy.ops.known import (
    Known,
    KnownName,
    NothingKnownError,
    from_state,
    from_status,
    read_known,
)
from dnsproxy.settings.learning import SourceSettings
from dnsproxy.trust import address_policy, read_trust
from tests.strategies import learned, snapshot

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
OSS = "oss-cn-hangzhou-internal.aliyuncs.com."


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


class Site:
    """A configuration with a key pair; nothing listens at its admin endpoint."""

    def __init__(self, folder: Path) -> None:
        self.private, public = write_key_pair(folder / "keys")
        self.state = folder / "learned.jws"
        self.settings = parse(
            json.dumps(
                {
                    "registries": [
                        {
                            "name": "hz",
                            "region": "cn-hangzhou",
                            "instance": "xxxxxx",
                            "auth": "none",
                            "network": {"routed": ["10.0.0.0/8"]},
                            "names": [{"name": "pinned.example", "addresses": ["10.1.2.3"]}],
                        },
                        {"name": "other", "provider": "generic", "names": [{"name": "a.example"}]},
                    ],
                    "learn": {"trusted_keys": [str(public)], "state_file": str(self.state)},
                    "admin": {"listen": "127.0.0.1:1"},
                }
            )
        )

    def keep(self, *snapshots: Snapshot, junk: str = "junk") -> None:
        key = read_private_key(self.private)
        write(self.state, junk, *(seal.sign(held, key) for held in snapshots))

    def loaded(self) -> AddressLifecycle:
        trust = read_trust(self.settings)
        state = AddressLifecycle(address_policy(self.settings, trust))
        load_state(self.state, state, trust)
        self.settle(state)
        return state

    def settle(self, state: AddressLifecycle) -> None:
        while not state.settle(100, 0.0, 1000.0):
            pass


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_state_file_is_read_with_every_check_of_the_proxy(site: Site) -> None:
    site.keep(
        snapshot(learned(REGISTRY, ("10.94.205.198",)), learned("foreign.example.", ("10.6.6.6",)), serial=7),
        snapshot(learned(OSS, ("100.118.28.43",)), serial=6),
    )
    known = from_state(site.settings, 1010.0)
    # In the order in which they were accepted: a serial from the future may have given way to a lower one.
    assert (known.origin, known.serial, known.exact) == (str(site.state), 6, False)
    assert [entry.name for entry in known.names] == [
        *(REGISTRY, OSS, f"*.{OSS}", "pinned.example.", "a.example."),
    ]
    registry, oss, _, pinned, missing = known.names
    assert registry == KnownName(
        *(REGISTRY, "registry", "hz", ("10.94.205.198",), "helper-a", 7, 10.0), unprobed=("10.94.205.198",)
    )
    assert (oss.addresses, oss.serial) == (("100.118.28.43",), 6)
    assert (pinned.addresses, pinned.source, pinned.age) == (("10.1.2.3",), "pinned", None)
    assert (missing.addresses, missing.registry) == ((), "other")


def test_a_state_signed_by_a_stranger_tells_nothing(site: Site, tmp_path: Path) -> None:
    stranger, _ = write_key_pair(tmp_path / "stranger")
    write(site.state, seal.sign(snapshot(learned(REGISTRY)), read_private_key(stranger)))
    assert from_state(site.settings, 0.0).find(REGISTRY) == KnownName(
        REGISTRY, "registry", "hz", (), None, None, None
    )


def test_what_the_proxy_has_seen_itself_is_read_with_its_own_key(site: Site) -> None:
    learn = site.settings.learn.model_copy(update={"sources": [SourceSettings(url="dns://127.0.0.1:1")]})
    settings = site.settings.model_copy(update={"learn": learn})
    key = ensure_private_key(local_key_path(site.state))
    write(site.state, seal.sign(snapshot(learned(REGISTRY)), key))
    (held,) = [entry for entry in from_state(settings, 1010.0).names if entry.addresses and entry.serial]
    assert held.name == REGISTRY
    # Nobody else's snapshots are signed with it.
    assert from_state(site.settings, 1010.0).serial == 0


def test_commands_and_what_is_held_back_are_read_too(site: Site) -> None:
    site.keep(snapshot(*(learned(name, ("10.0.0.1", "10.0.0.2")) for name in (REGISTRY, OSS, "a.example."))))
    state = site.loaded()
    state.pin(REGISTRY, ["10.9.9.9"], 1000.0)
    site.settle(state)
    # The first address of one name is dead; the other probes have not ended.
    (probe,) = (p for p in state.next_probes(0.0) if (p.name, p.address) == ("a.example.", "10.0.0.1"))
    for _ in range(2):
        state.names[probe.name].health[probe.address].probe = probe
        state.record(probe, Result(Outcome.FAILED, {443: "Connection refused"}), 0.0, 1000.0)
    site.settle(state)
    write(site.state, *encode(state))
    known = from_state(site.settings, 1010.0)
    told = {entry.name: (entry.addresses, entry.waiting, entry.source) for entry in known.names}
    assert told[REGISTRY] == (("10.9.9.9",), (), "pinned")
    assert told[OSS] == (("10.0.0.1", "10.0.0.2"), (), "helper-a")
    assert told["a.example."] == (("10.0.0.2",), ("10.0.0.1",), "helper-a")
    assert told["pinned.example."] == (("10.1.2.3",), (), "pinned")


def test_files_of_the_version_before_are_read(site: Site) -> None:
    site.keep(snapshot(learned(REGISTRY)))
    overrides_path(site.state).write_text("torn")
    assert from_state(site.settings, 1010.0).serial == 1
    pin = {"name": REGISTRY, "addresses": ["10.9.9.9"], "since": 1000}
    overrides = {"version": 1, "pins": [pin], "freeze": None, "history": []}
    overrides_path(site.state).write_text(json.dumps(overrides))
    held = from_state(site.settings, 1010.0).find(REGISTRY)
    assert held is not None
    assert (held.addresses, held.source) == (("10.9.9.9",), "pinned")


def test_a_state_file_that_cannot_be_read(site: Site) -> None:
    site.state.mkdir()
    with pytest.raises(NothingKnownError, match=r"learned\.jws: Is a directory"):
        from_state(site.settings, 0.0)


def test_without_a_proxy_the_state_file_is_read(site: Site) -> None:
    site.keep(snapshot(learned(REGISTRY)))
    assert read_known(site.settings, None, 1010.0).serial == 1


def test_pins_alone_are_something(site: Site) -> None:
    known = read_known(site.settings, None, 0.0)
    assert [entry.name for entry in known.names if entry.addresses] == ["pinned.example."]


def test_neither_proxy_nor_state(tmp_path: Path) -> None:
    text = f"admin: {{listen: null}}\nlearn: {{state_file: {tmp_path}/none}}\n"
    with pytest.raises(NothingKnownError, match=r"admin\.listen is null.*none holds nothing usable"):
        read_known(parse(text), None, 0.0)


def test_an_endpoint_that_is_given_must_answer(site: Site) -> None:
    site.keep(snapshot(learned(REGISTRY)))
    with pytest.raises(AdminError):
        read_known(site.settings, "http://127.0.0.1:1", 0.0)


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "name": REGISTRY,
        "role": "registry",
        "registry": "hz",
        "addresses": ["10.0.0.1"],
        "source": "helper-a",
        "serial": 7,
        "age": 3.5,
        "ports": [],
        "details": [],
        **changes,
    }


def test_the_status_document() -> None:
    known = from_status({"names": [entry(later_key=1)], "serial": 9, "undiscovered": []}, "here")
    one = KnownName(REGISTRY, "registry", "hz", ("10.0.0.1",), "helper-a", 7, 3.5)
    assert known == Known("here", True, 9, (one,))


def test_addresses_that_are_held_back() -> None:
    details = [
        {"address": "10.0.0.1", "state": "serving"},
        {"address": "10.0.0.2", "state": "held_back"},
        {"address": "127.0.0.1", "state": "refused"},
    ]
    (held,) = from_status({"names": [entry(details=details)], "serial": 9, "undiscovered": []}, "here").names
    assert (held.addresses, held.waiting) == (("10.0.0.1",), ("10.0.0.2",))
    assert held.learned == ("10.0.0.1", "10.0.0.2")


def test_addresses_without_the_result_of_a_probe() -> None:
    details = [
        {"address": "10.0.0.1", "state": "serving", "probe": {"443": "ok"}},
        {"address": "10.0.0.2", "state": "held_back", "probe": {}},
        {"address": "127.0.0.1", "state": "refused", "probe": {}},
    ]
    addresses = ["10.0.0.1", "10.0.0.3"]
    asked = {"addresses": addresses, "details": details}

    def unprobed(**changes: Any) -> tuple[str, ...]:
        document = {"names": [entry(**asked, **changes)], "serial": 9, "undiscovered": []}
        return from_status(document, "here").names[0].unprobed

    assert unprobed(ports=[443]) == ("10.0.0.3", "10.0.0.2")
    assert unprobed(ports=[]) == unprobed(ports=[443], source="pinned") == ()


def test_roles_that_are_not_discovered(site: Site) -> None:
    role = {"registry": "hz", "role": "auth"}
    document = {"names": [], "serial": 9, "undiscovered": [role]}
    assert from_status(document, "here").undiscovered == (("hz", "auth"),)
    registry = site.settings.registries[0].model_copy(update={"auth": "discover"})
    settings = site.settings.model_copy(update={"registries": [registry]})
    site.keep(snapshot(learned(REGISTRY, ("10.94.205.198",)), serial=7))
    assert from_state(settings, 1010.0).undiscovered == (("hz", "auth"),)


WHO = {"name": "a.example.", "role": "auth", "registry": "hz", "addresses": ["10.0.0.1"]}
ENTRY = WHO | {"source": "h", "serial": 1, "age": 1.0, "ports": []}
REST = {"serial": 1, "undiscovered": []}


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"names": [{}], "serial": 1}, {"names": 5, "serial": 1}),
        {
            "names": [ENTRY | {"addresses": ["10.0.0.1\n10.0.0.2 bank.example"]}],
            "serial": 1,
            "undiscovered": [],
        },
        {"names": [ENTRY | {"name": "a.example\n10.0.0.2 b"}], "serial": 1, "undiscovered": []},
    ],
)
def test_another_document_is_none(document: dict[str, Any]) -> None:
    with pytest.raises(NothingKnownError, match="here: not a status document"):
        from_status(document, "here")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (REGISTRY, REGISTRY),
        (REGISTRY.upper(), REGISTRY),
        (OSS, OSS),
        (f"b.{OSS}", f"*.{OSS}"),
        (f"a.b.{OSS}", f"*.{OSS}"),
        (f"a.special.{OSS}", f"*.special.{OSS}"),
        ("aliyuncs.com.", None),
    ],
)
def test_finding_a_name(name: str, found: str | None) -> None:
    entries = (entry(name=text) for text in (REGISTRY, OSS, f"*.{OSS}", f"*.special.{OSS}"))
    held = from_status({"names": list(entries), "serial": 1, "undiscovered": []}, "here").find(name)
    assert (held.name if held else None) == found
