from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import hcl2
import pytest
from typer.testing import CliRunner, Result

from dnsproxy import cli
from dnsproxy.config import load
from dnsproxy.ops.client import AdminError
from tests.fakes.admin import AdminEndpoint, admin_endpoint

PINS = """\
registries:
  - name: hz
    provider: generic
    network: {routed: [10.0.0.0/8]}
    names:
      - {name: registry.example, role: registry, addresses: [10.1.2.3]}
      - {name: auth.example, role: auth, addresses: [100.103.7.181]}
admin: {listen: "127.0.0.1:1"}
learn: {state_file: %s}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(PINS % (tmp_path / "none.jws"))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in arguments])


def test_routes_as_a_table(config: Path) -> None:
    done = run("routes", "--config", config)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any("10.1.2.3/32" in line and "registry.example" in line and "yes" in line for line in lines)
    assert any("100.103.7.181/32" in line and "MISSING" in line for line in lines)
    assert any(line.startswith("from ") and line.endswith("none.jws, serial 0") for line in lines)
    assert any(line.startswith("note: destinations in 100.64.0.0/10") for line in lines)


def test_routes_for_machines(config: Path) -> None:
    document = json.loads(run("routes", "--config", config, "--format", "json").stdout)
    assert document["missing"] == ["100.103.7.181/32"]
    assert "100.103.7.181/32" in str(
        hcl2.loads(run("routes", "--config", config, "--format", "terraform").stdout)
    )
    lines = run("routes", "--config", config, "--format", "aliyun").stdout.splitlines()
    assert sum(line.startswith("aliyun ") for line in lines) == 2


@pytest.mark.parametrize("output", ["table", "json", "terraform", "aliyun"])
def test_check_names_what_is_not_covered(config: Path, output: str) -> None:
    done = run("routes", "--config", config, "--check", "--format", output)
    assert done.exit_code == 1
    assert done.stderr == "auth.example: 100.103.7.181 is not in network.routed of registry hz\n"


def test_check_is_content_when_all_is_covered(config: Path) -> None:
    config.write_text(config.read_text().replace("10.0.0.0/8", "10.0.0.0/8, 100.64.0.0/10"))
    done = run("routes", "--config", config, "--check")
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["a..b"], "name"),
        (["a.example", "NOTYPE"], "[TYPE]"),
        (["a.example", "A", "--client", "nobody"], "--client"),
        ([], "name"),
    ],
)
def test_a_question_that_is_none_is_bad_usage(words: list[str], place: str) -> None:
    done = run("explain", *words, "--admin", "http://127.0.0.1:1")
    assert done.exit_code == 2
    assert f"'{place}'" in done.stderr


def test_doctor_tells_what_is_broken_and_exits_1(config: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ("doctor", "--config", config, "--resolver", server, "--timeout", "0.2")
        shown, machine = run(*words), run(*words, "--json")
    assert (shown.exit_code, machine.exit_code) == (1, 1)
    assert any("resolvers" in line and "FAIL" in line for line in shown.stdout.splitlines())
    document = json.loads(machine.stdout)
    assert "resolvers" in document["failed"]
    assert {"hop", "subject", "result", "seen", "advice"} == set(document["findings"][0])


def test_doctor_asks_addresses_only(config: Path) -> None:
    assert run("doctor", "--config", config, "--resolver", "dns.example").exit_code == 2


@pytest.fixture
def proxy(config: Path) -> Iterator[str]:
    with admin_endpoint(load(config)) as url:
        yield url


def test_with_admin_routes_needs_no_configuration(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DNSPROXY_CONFIG", raising=False)
    done = run("routes", "--admin", proxy, "--check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"from {proxy}, serial 7" in done.stdout
    assert any("10.1.2.3/32" in line and "yes" in line for line in done.stdout.splitlines())


def test_a_configuration_that_is_given_counts_beside_admin(proxy: str, config: Path) -> None:
    config.write_text(config.read_text().replace("10.0.0.0/8", "10.9.0.0/16"))
    done = run("routes", "--admin", proxy, "--config", config, "--check")
    assert done.stderr == "registry.example: 10.1.2.3 is not in network.routed of registry hz\n"


def test_check_fails_while_a_role_is_unknown_or_an_address_unprobed(proxy: str) -> None:
    document = AdminEndpoint.documents["/api/v1/status"]
    document["undiscovered"] = [{"registry": "hz", "role": "auth"}]
    document["names"][0]["details"][0]["probe"] = {}
    done = run("routes", "--admin", proxy, "--check")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "registry hz: role auth is not discovered yet, so its routes are not known",
        "registry.example: 10.1.2.3 is not probed yet",
    ]
    assert run("routes", "--admin", proxy).exit_code == 0


def test_with_admin_doctor_needs_no_configuration(proxy: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ("doctor", "--admin", proxy, "--resolver", server, "--timeout", "0.2")
        shown, machine = run(*words), run(*words, "--json")
    last = shown.stderr.splitlines()[-1]
    assert (shown.exit_code, machine.exit_code) == (1, 1)
    assert last.startswith(f"verdict: broken at resolvers, {server}: no reply within 0.2 s")
    # What depends on the resolver is one line.
    rows = [line for line in shown.stdout.splitlines() if "no resolver of this host is the proxy" in line]
    assert len(rows) == 1
    assert json.loads(machine.stdout)["verdict"] == last


def test_without_a_proxy_at_admin_doctor_says_so() -> None:
    done = run("doctor", "--admin", "http://127.0.0.1:1")
    assert done.exit_code == 1
    assert isinstance(done.exception, AdminError)
