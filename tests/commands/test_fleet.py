from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dnsproxy import cli
from dnsproxy.core.standings import Standing
from dnsproxy.ops import fleet, fleet_prometheus

GOOD = Standing("http://a:1", proxy="a", ready=True, serials={"helper-a": 5}, age=1.0)
SILENT = Standing("http://b:1", silence="connection refused")


class Asked:
    """Whoever is asked answers with ``standings``; what was asked is kept."""

    def __init__(self) -> None:
        self.standings = [GOOD]
        self.endpoints: list[str] = []
        self.options: dict[str, Any] = {}

    async def endpoints_asked(self, endpoints: list[str], **options: Any) -> list[Standing]:
        self.endpoints, self.options = endpoints, options
        return self.standings

    async def prometheus_asked(self, url: str, selector: str, **options: Any) -> list[Standing]:
        self.endpoints, self.options = [url, selector], options
        return self.standings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    answering = Asked()
    monkeypatch.setattr(fleet, "ask_endpoints", answering.endpoints_asked)
    monkeypatch.setattr(fleet_prometheus, "ask_prometheus", answering.prometheus_asked)
    return answering


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["fleet", *arguments])


def test_all_well_is_0(asked: Asked) -> None:
    done = run("a:1", "http://c:1")
    assert done.exit_code == 0, done.output
    assert asked.endpoints == ["http://a:1", "http://c:1"]
    assert asked.options == {"token": None, "context": None, "timeout": 5.0, "at_once": 64}
    assert "1 of 1 proxies" in done.output


def test_a_silent_one_is_1_and_named(asked: Asked) -> None:
    asked.standings = [GOOD, SILENT]
    done = run("a:1", "b:1")
    assert done.exit_code == 1
    assert "b:1" in done.output
    assert "connection refused" in done.output
    assert done.stderr == "of 2 proxies: 1 silent\n"


def test_thresholds_decide(asked: Asked) -> None:
    asked.standings = [Standing("http://a:1", ready=True, age=700.0)]
    assert run("a:1").exit_code == 1
    assert run("a:1", "--max-age", "1h").exit_code == 0
    asked.standings = [GOOD, Standing("http://b:1", ready=True, serials={"helper-a": 1_764_000_000_000})]
    assert run("a:1", "--max-lag", "100ms").exit_code == 1


def test_nobody_at_all_is_not_well(asked: Asked) -> None:
    asked.standings = []
    done = run("--prometheus", "http://p:9090")
    assert (done.exit_code, done.stderr) == (1, "there are no proxies\n")


def test_json_is_for_a_machine(asked: Asked) -> None:
    document = json.loads(run("a:1", "--json").output)
    assert (document["total"], document["proxies"][0]["endpoint"]) == (1, "http://a:1")


def test_endpoints_of_a_file_and_a_token(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "fleet").write_text("a:1\nb:1\n")
    (tmp_path / "token").write_text("secret\n")
    done = run(
        *("c:1", "--file", str(tmp_path / "fleet"), "--token-file", str(tmp_path / "token")),
        *("--timeout", "250ms", "--at-once", "3"),
    )
    assert done.exit_code == 0, done.output
    assert asked.endpoints == ["http://c:1", "http://a:1", "http://b:1"]
    assert (asked.options["token"], asked.options["timeout"], asked.options["at_once"]) == ("secret", 0.25, 3)


def test_prometheus_is_asked_for_its_targets(asked: Asked) -> None:
    assert run("--prometheus", "http://p:9090/").exit_code == 0
    assert asked.endpoints == ["http://p:9090", fleet_prometheus.SELECTOR]
    assert run("--prometheus", "p:9090", "--selector", 'job="x"').exit_code == 0
    assert asked.endpoints == ["http://p:9090", 'job="x"']


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "nobody to ask"),
        (("nonsense",), "no endpoint"),
        (("a:1", "--prometheus", "http://p:1"), "not both"),
        (("a:1", "--selector", 'a="b"'), "goes with"),
        (("--prometheus", "http://p:1", "--selector", "x"), "label matchers"),
        (("a:1", "--max-lag", "soon"), "for example 800ms"),
        (("a:1", "--watch", "soon"), "for example 800ms"),
        (("--file", "/nonexistent/fleet"), "No such file"),
        (("a:1", "--token-file", "/nonexistent/token"), "No such file"),
        (("a:1", "--ca-file", "/nonexistent/ca"), "No such file"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], complaint: str, asked: Asked) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert complaint in " ".join(done.output.split()).replace("│ ", "")


def test_watching_asks_again_until_it_is_interrupted(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("dnsproxy.commands.fleet.time.sleep", sleep)
    done = run("a:1", "--watch", "2s", "--json")
    assert pauses == [2.0, 2.0, 2.0]
    assert [json.loads(line)["total"] for line in done.output.splitlines() if line.startswith("{")] == [1] * 3
