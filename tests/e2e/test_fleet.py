"""`dnsproxy fleet` over real proxies, asked one by one and through a real Prometheus."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.e2e.processes import Process, accepts, dnsproxy_argv, run_command, wait_for
from tests.e2e.world import AUTH, REGISTRY, World
from tests.needs import need_programs

pytestmark = pytest.mark.e2e

MOVED, MOVED_AGAIN = "10.94.205.199", "10.94.205.200"


class Fleet:
    """The world's proxy, and a second one whose only source is a file that the test writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.first = f"127.0.0.1:{world.admin_port}"
        self.document = world.folder / "copy.jws"
        self.second_port = world.take_port()
        self.second = f"127.0.0.1:{self.second_port}"
        settings = world.configuration()
        settings["learn"] |= {
            "sources": [{"url": f"file://{self.document}"}],
            "state_file": str(world.folder / "second" / "learned.jws"),
        }
        (world.folder / "second").mkdir()
        settings["serve"]["listen"] = [f"127.0.0.1:{world.take_port()}"]
        settings["admin"] = {"listen": self.second, "identity": "the-second"}
        config = world.folder / "second.yaml"
        config.write_text(json.dumps(settings))
        self.process = Process("second", dnsproxy_argv("serve", "--config", config), world.folder / "2.log")
        world.add_process(self.process)

    def start(self) -> None:
        self.world.start()
        self.copy()
        self.process.start(lambda: accepts(self.second_port))
        wait_for(lambda: self.ask(self.first, self.second)["converged"] == 2, "both have the newest")

    def copy(self) -> None:
        """Give the second proxy what the helper has now."""
        self.document.write_bytes(self.world.snapshot().body)

    def move(self, address: str) -> None:
        """Have the registry move at the source, and the first proxy follow."""
        self.world.source.replace(f"{REGISTRY}.", f"A {address}")
        wait_for(lambda: address in str(self.names()), "the first proxy has it")

    def names(self) -> Any:
        return self.world.admin("/api/v1/status").json()["names"]

    @staticmethod
    def run(*arguments: str | Path) -> CompletedProcess[str]:
        return run_command(*dnsproxy_argv("fleet", *arguments))

    def ask(self, *arguments: str | Path) -> Any:
        done = self.run("--json", *arguments)
        assert done.returncode in {0, 1}, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world)


def states(document: Any) -> dict[str, str]:
    return {proxy["endpoint"].removeprefix("http://"): proxy["state"] for proxy in document["proxies"]}


def test_who_lags_and_who_is_silent_is_named(fleet: Fleet) -> None:
    fleet.start()
    well = fleet.run(fleet.first, fleet.second)
    assert well.returncode == 0, well.stdout
    assert "2 of 2 proxies have the newest of each helper (100.0%)" in well.stdout

    fleet.move(MOVED)
    listed = fleet.world.folder / "fleet"
    listed.write_text(f"{fleet.first}\n{fleet.second}\n")
    lagging = fleet.run("--file", listed, "--max-lag", "1ms")
    assert lagging.returncode == 1
    assert "lagging" in lagging.stdout
    assert f"the-second ({fleet.second})" in lagging.stdout
    told = fleet.ask("--file", listed, "--max-lag", "1h")
    assert states(told) == {fleet.first: "ok", fleet.second: "behind"}
    assert (told["well"], told["converged"], told["convergence"]["changes"]) == (True, 1, 1)
    assert 0 <= told["convergence"]["p50"] < 60

    fleet.copy()
    wait_for(lambda: fleet.ask(fleet.first, fleet.second)["converged"] == 2, "the second has followed")
    # Both have measured the change by now, the second how long its copy took.
    wait_for(
        lambda: fleet.ask(fleet.first, fleet.second)["convergence"]["changes"] == 2, "both have measured it"
    )

    fleet.process.signal(signal.SIGSTOP)
    silent = fleet.run(fleet.first, fleet.second, "--timeout", "500ms")
    fleet.process.signal(signal.SIGCONT)
    assert silent.returncode == 1
    assert "none within 0.5 s" in silent.stdout
    assert fleet.second in silent.stdout
    nobody = f"127.0.0.1:{fleet.world.take_port()}"
    assert "connection refused" in fleet.run(nobody).stdout


def test_what_was_learned_before_a_restart_is_no_change(fleet: Fleet) -> None:
    fleet.start()
    fleet.move(MOVED)
    fleet.move(MOVED_AGAIN)
    fleet.world.source.replace(f"{AUTH}.", "A 100.103.7.182")
    wait_for(
        lambda: fleet.world.metric("dnsproxy_convergence_seconds_count") == 3, "three changes were measured"
    )
    fleet.process.stop()
    fleet.copy()
    fleet.process.start(lambda: accepts(fleet.second_port))
    wait_for(lambda: fleet.ask(fleet.first, fleet.second)["converged"] == 2, "the second has it")
    # It happened while the second was down: how long that took says nothing of the fleet.
    assert fleet.ask(fleet.second)["convergence"]["changes"] == 0


def test_prometheus_tells_the_same(fleet: Fleet) -> None:
    need_programs("FLEETS NOT READ FROM PROMETHEUS", "prometheus")
    fleet.start()
    fleet.move(MOVED)
    folder, port, dead = fleet.world.folder, fleet.world.take_port(), fleet.world.take_port()
    jobs = [
        {"job_name": name, "static_configs": [{"targets": targets}]}
        for name, targets in (
            ("region-b/dnsproxy", [fleet.first, fleet.second, f"127.0.0.1:{dead}"]),
            ("other", [f"127.0.0.1:{port}"]),
        )
    ]
    config = folder / "prometheus.yaml"
    config.write_text(
        json.dumps(
            {"global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"}, "scrape_configs": jobs}
        )
    )
    prometheus = Process(
        "prometheus",
        [
            *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        folder / "prometheus.log",
    )
    fleet.world.add_process(prometheus)
    prometheus.start(lambda: accepts(port))
    url = f"http://127.0.0.1:{port}"

    def told() -> Any:
        return fleet.ask("--prometheus", url, "--max-lag", "1h")

    wait_for(
        lambda: states(told()) == {fleet.first: "ok", fleet.second: "behind", f"127.0.0.1:{dead}": "silent"},
        "all targets were scraped",
    )
    through, direct = told(), fleet.ask(fleet.first, fleet.second, "--max-lag", "1h")
    for key in ("newest", "converged"):
        assert through[key] == direct[key]
    assert through["convergence"]["changes"] == direct["convergence"]["changes"] == 1
    by_proxy = {proxy["proxy"]: proxy for proxy in through["proxies"]}
    for proxy in direct["proxies"]:
        same = by_proxy[proxy["proxy"]]
        assert [same[key] for key in ("state", "version", "serials", "ready")] == [
            proxy[key] for key in ("state", "version", "serials", "ready")
        ]

    shown = fleet.run("--prometheus", url)
    assert shown.returncode == 1
    assert "Prometheus cannot scrape it" in shown.stdout
    one = fleet.run("--prometheus", url, "--selector", f'instance="{fleet.first}"')
    assert one.returncode == 0, one.stdout
    assert fleet.run("--prometheus", url, "--selector", 'job="nobody"').returncode == 1
    refused = fleet.run("--prometheus", f"http://127.0.0.1:{dead}")
    assert refused.returncode == 1
    assert "connection refused" in refused.stderr
