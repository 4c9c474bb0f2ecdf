from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from dnsproxy.cli import app
from dnsproxy.commands.memory import memory_table, proxy_shape
from dnsproxy.config import parse
from dnsproxy.core.memory import MIB, PREPARED, PROCESS, TLS_CLIENT, proxy_limits, service_limit
from dnsproxy.settings import Settings
from tests.e2e.processes import ROOT


def limits(text: str) -> dict[str, int]:
    return {limit.name: limit.size for limit in proxy_limits(proxy_shape(settings(text)))}


def settings(text: str) -> Settings:
    return parse(text)


def test_each_part_of_the_configuration_has_its_limits() -> None:
    plain = limits("forward: {upstreams: [10.0.0.2]}\nadmin: {listen: null}")
    assert plain["process"] == PROCESS
    assert plain["answer cache"] == 100_000 * 1024
    assert plain["connections to upstreams"] == 4 * MIB
    assert (
        not {"control process", "NXDOMAIN cuts", "snapshots", "clients of the HTTP endpoint"} & plain.keys()
    )
    more = limits(
        "forward: {upstreams: ['https://10.0.0.2', 10.0.0.3], zones: {corp.example: [10.0.0.3]}}\n"
        "cache: {size: 20MiB, nxdomain_cut: true}\n"
        "serve:\n"
        "  tls: {listen: ['0.0.0.0:853'], cert_file: a, key_file: b}\n"
        "  max_tcp_clients: 100\n"
        "  rate_limit: {per_client: 10}\n"
        "log: {queries: true}\n"
    )
    assert more["answer cache"] == 20 * MIB
    assert more["TCP and TLS clients"] == 100 * TLS_CLIENT
    assert more["connections to upstreams"] == 8 * MIB
    assert more["their unfinished replies over HTTPS"] == 4 * MIB
    assert {"NXDOMAIN cuts", "rate limits of clients", "queues of query log and dnstap"} <= more.keys()


def test_workers_have_their_limits_each() -> None:
    one = limits("forward: {upstreams: [10.0.0.2]}")
    three = limits("forward: {upstreams: [10.0.0.2]}\nserve: {workers: 3}")
    assert three["prepared packets"] == 3 * PREPARED == 3 * one["prepared packets"]
    assert (three["control process"], three["queue of the log"]) == (PROCESS, one["queue of the log"])


def test_the_sum_and_what_the_service_needs_are_printed() -> None:
    config = ROOT / "config.example.yaml"
    done = CliRunner().invoke(app, ["check", "--memory", str(config)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{config}: ok, ")
    *parts, total, service = [float(line.split()[-2]) for line in lines[1:]]
    assert abs(sum(parts) - total) < 0.1 * len(parts)
    assert 1.25 * total <= service < 1.25 * total + 32.1
    assert CliRunner().invoke(app, ["check", str(config)]).stdout.splitlines() == lines[:1]


def test_the_limit_of_the_service_is_a_round_number() -> None:
    made = proxy_limits(proxy_shape(settings("forward: {upstreams: [10.0.0.2]}")))
    assert service_limit(made) % (32 * MIB) == 0
    assert memory_table(settings("forward: {upstreams: [10.0.0.2]}"))[-1].startswith("limit of the service")


def test_a_file_with_mistakes_has_no_sum(tmp_path: Path) -> None:
    broken = tmp_path / "config.yaml"
    broken.write_text("cache: {size: much}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["check", "--memory", str(broken)])
    assert done.exit_code != 0
    assert "MemoryMax" not in done.output
