"""What is put together for the admin endpoint is what the parts know."""

from __future__ import annotations

import os
from pathlib import Path

from dnsproxy import config
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import ReloadView, Traffic, WorkerView
from dnsproxy.core.trend import Recent
from dnsproxy.facts import facts_of
from dnsproxy.learning import Learning


async def test_facts_are_those_of_the_parts(tmp_path: Path) -> None:
    settings = config.parse(
        f"""
registries: [{{name: hz, region: cn-hangzhou, instance: abc, auth: discover, storage: none}}]
learn: {{state_file: {tmp_path}/learned.jws, ttl: 7}}
cache: {{size: 1000}}
admin: {{identity: shanghai-3}}
"""
    )
    learning = Learning(settings, lambda _book: None)
    workers = tuple(WorkerView(number, None, None, 0, 0, answers=True) for number in (1, 2))
    facts = facts_of(
        settings,
        learning,
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
    assert facts.convergence is learning.convergence
    assert facts.tasks >= 1
