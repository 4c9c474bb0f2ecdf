"""routes, explain, doctor and hosts against real processes; the broken hops are on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import dnsproxy_argv, run_command
from tests.e2e.world import ADDRESSES, AUTH, BUCKET, OTHER, OTHER_ADDRESS, REGISTRY, STORAGE, World
from tests.fakes.registry import AUTH as PULL_AUTH
from tests.fakes.registry import REGISTRY as PULL_REGISTRY
from tests.fakes.registry import STORAGE as PULL_STORAGE
from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.e2e

SHARED = pytest.mark.xdist_group("e2e-diagnose")
PULL = {PULL_REGISTRY: "registry", PULL_AUTH: "auth", PULL_STORAGE: "storage"}


def explain(world: World, *words: str) -> dict[str, Any]:
    done = world.command("explain", *words, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


# -- explain ---------------------------------------------------------------------------


@SHARED
def test_explain_a_learned_name_and_what_dig_sees(running: World) -> None:
    document = explain(running, REGISTRY, "--client", "127.0.0.1")
    assert (document["outcome"], document["owned"]["addresses"]) == ("learned", [ADDRESSES[REGISTRY]])
    assert running.server.short(REGISTRY) == document["owned"]["addresses"]
    assert document["status"]["source"] == "helper-e2e"
    assert explain(running, BUCKET)["owned"]["rule"] == f"*.{STORAGE}."
    assert explain(running, REGISTRY, "AAAA")["outcome"] == "nodata"
    assert explain(running, REGISTRY, "--client", "192.0.2.1")["outcome"] == "refused_client"


@SHARED
def test_explain_does_not_ask_and_then_finds_what_dig_asked(running: World) -> None:
    name = f"explained.{OTHER}"
    sent = running.admin("/api/v1/status").json()["upstreams"][0]["sent"]
    document = explain(running, name, "TXT")
    assert (document["outcome"], document["zone"], document["cached"]) == ("forward", ".", [])
    assert [upstream["name"] for upstream in document["upstreams"]] == [running.upstream.endpoint]
    assert running.admin("/api/v1/status").json()["upstreams"][0]["sent"] == sent
    running.server.dig(OTHER, "+noedns")
    document = explain(running, OTHER)
    assert document["outcome"] == "cache"
    assert 0 < document["cached"][0]["ttl"] <= 60
    assert running.server.short(OTHER) == [OTHER_ADDRESS]


@SHARED
def test_explain_for_people(running: World) -> None:
    done = running.command("explain", REGISTRY)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{REGISTRY}. A"
    assert any(ADDRESSES[REGISTRY] in line for line in lines)
    assert any("helper-e2e, serial " in line for line in lines)


# -- routes ----------------------------------------------------------------------------


def state_routes(world: World, *routed: str) -> None:
    registries = world.configuration()["registries"]
    world.configure_registries(*({**entry, "network": {"routed": list(routed)}} for entry in registries))


def test_routes_from_a_running_proxy_and_from_its_state_file(world: World) -> None:
    world.start()
    state_routes(world, "10.0.0.0/8", "100.118.28.0/24")
    running = world.command("routes", "--check")
    assert running.returncode == 1
    assert running.stderr == (f"{AUTH}: {ADDRESSES[AUTH]} is not in network.routed of registry hangzhou\n")
    assert world.proxy.stop() == 0
    stopped = world.command("routes", "--check", "--format", "json")
    assert (stopped.returncode, stopped.stderr) == (1, running.stderr)
    document = json.loads(stopped.stdout)
    assert document["origin"] == str(world.state_file)
    assert f"{ADDRESSES[AUTH]}/32" in document["missing"]
    assert "100.118.28.0/24" not in document["missing"]
    assert "100.114.102.0/24" in document["missing"]
    state_routes(world, "10.0.0.0/8", "100.64.0.0/10")
    done = world.command("routes", "--check")
    assert (done.returncode, done.stderr) == (0, "")


# -- doctor ----------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry(tmp_path) as made:
        yield made


@pytest.fixture
def pulling(world: World, registry: FakeRegistry) -> World:
    """A proxy that answers for a registry on loopback."""
    names = [{"name": name, "role": role, "addresses": ["127.0.0.1"]} for name, role in PULL.items()]
    entry = {"name": "r", "provider": "generic", "names": names, "network": {"routed": ["127.0.0.0/8"]}}
    verify = {"ports": [registry.port], "ca_file": str(registry.authority.file)}
    world.configure_registries(entry)
    world.configure(learn={"sources": [], "verify": verify})
    world.start_proxy()
    return world


def doctor(world: World, *words: str) -> tuple[int, list[tuple[str, str]], list[dict[str, Any]]]:
    resolver = ("--resolver", f"127.0.0.1:{world.dns_port}")
    done: subprocess.CompletedProcess[str] = world.command("doctor", "--json", *(words or resolver))
    assert "Traceback" not in done.stderr
    findings = json.loads(done.stdout)["findings"]
    # The files of the machine that runs the tests are its own business.
    mine = [f for f in findings if f["hop"] not in {"nsswitch", "hosts file"}]
    return done.returncode, [(f["hop"], f["subject"]) for f in mine if f["result"] == "FAIL"], mine


def test_doctor_of_a_healthy_way(pulling: World) -> None:
    code, failed, findings = doctor(pulling)
    assert (code, failed) == (0, [])
    ok = {finding["hop"] for finding in findings if finding["result"] == "OK"}
    assert ok >= {"resolvers", "snapshot", "answer", "client views", "route", "TLS", "/v2/", "realm"}
    assert ok >= {"token service", "storage"}
    shown = pulling.command("doctor", "--resolver", f"127.0.0.1:{pulling.dns_port}").stdout
    assert "FAIL" not in shown
    assert "is the proxy" in shown
    # Storage has no port 80 here, which is needed only where blobs are redirected to http.
    assert shown.splitlines()[-1] == "verdict: every hop works, but for those that are skipped"


def test_doctor_and_routes_with_admin_read_no_configuration(pulling: World) -> None:
    admin = ("--admin", f"http://127.0.0.1:{pulling.admin_port}")
    routes = run_command(*dnsproxy_argv("routes", *admin, "--check"))
    assert (routes.returncode, routes.stderr) == (0, "")
    done = run_command(*dnsproxy_argv("doctor", *admin, "--resolver", f"127.0.0.1:{pulling.dns_port}"))
    assert (done.returncode, done.stderr) == (0, "")
    # The authority of the certificates is in a file of the proxy's host.
    assert any("SKIP" in line and line.split()[0].startswith("TLS") for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[-1] == "verdict: every hop works, but for those that are skipped"


def test_doctor_with_a_second_server_that_is_not_the_proxy(pulling: World) -> None:
    pulling.upstream.start()
    servers = (f"127.0.0.1:{pulling.dns_port}", pulling.upstream.endpoint)
    code, failed, _ = doctor(pulling, *(word for server in servers for word in ("--resolver", server)))
    assert (code, failed) == (1, [("resolvers", pulling.upstream.endpoint)])


def test_doctor_without_a_proxy(pulling: World) -> None:
    assert pulling.proxy.stop() == 0
    code, failed, findings = doctor(
        pulling, "--resolver", f"127.0.0.1:{pulling.dns_port}", "--timeout", "0.3"
    )
    assert (code, failed) == (1, [("resolvers", f"127.0.0.1:{pulling.dns_port}")])
    assert {finding["result"] for finding in findings if finding["hop"] == "TLS"} == {"SKIP"}
    # For people, all that depends on the resolver is one line.
    shown = pulling.command("doctor", "--resolver", f"127.0.0.1:{pulling.dns_port}", "--timeout", "0.3")
    assert shown.stderr.splitlines()[-1].startswith(
        f"verdict: broken at resolvers, 127.0.0.1:{pulling.dns_port}: "
    )
    assert shown.stdout.count("SKIP") == 1


@pytest.mark.parametrize(
    ("path", "status", "hop", "subject"),
    [
        ("/v2/", 404, "/v2/", PULL_REGISTRY),
        ("/auth", 503, "token service", PULL_AUTH),
        ("/", 500, "storage", PULL_STORAGE),
    ],
)
def test_doctor_names_the_service_that_is_broken(
    pulling: World, registry: FakeRegistry, path: str, status: int, hop: str, subject: str
) -> None:
    registry.statuses[path] = status
    code, failed, _ = doctor(pulling)
    assert (code, failed) == (1, [(hop, subject)])


def test_doctor_names_a_realm_that_nobody_owns(pulling: World, registry: FakeRegistry) -> None:
    registry.realm = "https://elsewhere.example/auth"
    code, failed, _ = doctor(pulling)
    assert (code, failed) == (1, [("realm", PULL_REGISTRY)])


# -- hosts -----------------------------------------------------------------------------


@SHARED
def test_hosts_from_export_to_audit_to_import(running: World, tmp_path: Path) -> None:
    exported = running.command("hosts", "export")
    assert exported.returncode == 0
    assert "LAST RESORT" in exported.stdout
    file = tmp_path / "hosts"
    file.write_text(f"127.0.0.1 localhost\n{exported.stdout}")
    audit = running.command("hosts", "audit", str(file))
    assert audit.returncode == 1
    assert f"{ADDRESSES[REGISTRY]} {REGISTRY}: shadows" in audit.stdout
    file.write_text(f"10.9.9.9 {BUCKET}\n")
    assert "stale" in running.command("hosts", "audit", str(file)).stdout
    file.write_text(exported.stdout)
    imported = tmp_path / "imported.yaml"
    imported.write_text(run_command(*dnsproxy_argv("hosts", "import", file)).stdout)
    checked = run_command(*dnsproxy_argv("check", imported))
    assert checked.returncode == 0, checked.stderr
