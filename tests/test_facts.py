"""What is put together for the admin endpoint is what the parts know."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from dnsproxy import config
from dnsproxy.address_service import AddressService
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import ReloadView, Traffic, WorkerView
from dnsproxy.core.trend import Recent
from dnsproxy.facts import facts_of
from dnsproxy.learning import LearningPipeline
from tests.strategies import KEY, learned, opened, snapshot


async def test_facts_are_those_of_the_parts(tmp_path: Path) -> None:
    settings = config.parse(
        f"""
registries: [{{name: hz, region: cn-hangzhou, instance: abc, auth: discover, storage: none}}]
learn: {{state_file: {tmp_path}/learned.jws, ttl: 7}}
cache: {{size: 1000}}
admin: {{identity: shanghai-3}}
"""
    )
    learning = LearningPipeline(settings)
    addresses = AddressService(learning.addresses, lambda _table: None)
    learning.begin(addresses)
    assert learning.puller is not None
    workers = tuple(WorkerView(number, None, None, 0, 0, answers=True) for number in (1, 2))
    facts = facts_of(
        settings,
        addresses,
        learning.puller,
        Traffic(Stats(), {}, 3, 4, workers),
        recent=Recent(),
        started_at=5.0,
        draining=True,
        reloads=ReloadView(),
    )
    assert (facts.identity, facts.host) == ("shanghai-3", os.uname().nodename)
    assert (facts.cache_entries, facts.in_flight, facts.cache_size) == (3, 4, 2000)
    assert (facts.started_at, facts.draining, facts.ttl) == (5.0, True, 7)
    assert [entry.registry for entry in facts.undiscovered] == ["hz"]
    assert facts.convergence is addresses.convergence
    assert facts.tasks >= 1


async def test_each_name_has_the_state_of_its_addresses(tmp_path: Path) -> None:
    settings = config.parse(
        f"""
registries:
  - name: hz
    provider: generic
    network: {{routed: [10.0.0.1/32]}}
    names: [{{name: a.example}}, {{name: p.example, addresses: [10.0.0.9]}}]
learn: {{state_file: {tmp_path}/learned.jws}}
"""
    )
    learning = LearningPipeline(settings)
    policy = replace(learning.addresses.policy, keys={KEY: None})
    addresses = AddressService(replace(learning.addresses, policy=policy), lambda _table: None)
    learning.begin(addresses)
    assert learning.puller is not None
    taken = snapshot(learned("a.example.", ("10.0.0.1", "10.0.0.2", "127.0.0.1"), registry="hz"))
    addresses.accept(opened(taken))
    await addresses.order(lambda state, wall_now: state.pin("a.example.", ["10.0.0.2"], wall_now))
    facts = facts_of(
        settings,
        addresses,
        learning.puller,
        Traffic(Stats(), {}, 0, 0, ()),
        recent=Recent(),
        started_at=5.0,
        draining=False,
        reloads=ReloadView(),
    )
    details = facts.details["a.example."]
    assert {state.address: state.serving for state in details.states} == {"10.0.0.1": False, "10.0.0.2": True}
    assert [finding.address for finding in details.refused] == ["127.0.0.1"]
    assert details.routed == {"10.0.0.1": True, "10.0.0.2": False, "127.0.0.1": False}
    assert facts.details["p.example."].routed == {"10.0.0.9": False}
    assert (facts.snapshots, facts.refused) == ({"helper-a": taken}, {"loopback": 1})
    assert facts.table == addresses.table
    assert facts.overrides.pins.keys() == {"a.example."}
    assert facts.missing() == []
