"""Who is let in: bearer tokens at every path of both programs, and a word to those who leave a door open."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Process, dnsproxy_argv, run_command, wait_for
from tests.e2e.world import Page, World, fetch
from tests.needs import give_up
from tests.netns.spaces import Space, Spaces, refusal

pytestmark = pytest.mark.faults

TOKEN = "8f1d0c77a5-right"  # noqa: S105 - of this test alone
NOT_THE_TOKEN = [
    None,
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {TOKEN[:-1]}",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN.upper()}",
    f"Basic {TOKEN}",
    TOKEN,
    f"Bearer {TOKEN} {TOKEN}",
    "Bearer \xff\xfe",
    "Bearer " + "x" * 4000,
]
ORDERS = ("pin", "unpin", "freeze", "unfreeze", "rollback", "refresh", "flush")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose helper and admin endpoint ask for a token."""
    with World(tmp_path_factory.mktemp("w")) as world:
        token = world.folder / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        (source,) = world.configuration()["learn"]["sources"]
        world.configure(
            helper={"token_file": str(token)},
            learn={"sources": [source | {"token_file": str(token)}]},
            admin={"token_file": str(token)},
        )
        world.start()
        yield world


def ask(world: World, path: str, authorization: str | None, method: str = "GET") -> Page:
    headers = {} if authorization is None else {"Authorization": authorization}
    headers["Content-Type"] = "application/json"
    return fetch(world.admin_port, path, headers, method)


def admin_paths(world: World) -> list[str]:
    """Every path that the endpoint says it has."""
    index = ask(world, "/", f"Bearer {TOKEN}")
    assert index.status == 200
    return [line for line in index.body.decode().splitlines() if line.startswith("/")]


def test_every_path_of_the_admin_endpoint_asks_for_the_token(guarded: World) -> None:
    paths = admin_paths(guarded)
    assert {"/", "/metrics", "/api/v1/status", "/api/v1/explain", "/api/v1/pin", "/health"} <= set(paths)
    for path in (*paths, "/no/such/path"):
        method = "POST" if path.rpartition("/")[2] in ORDERS else "GET"
        for wrong in NOT_THE_TOKEN:
            status = ask(guarded, path, wrong, method).status
            if path in {"/health", "/ready"}:
                assert status == 200, path
            else:
                assert status == 401, (path, wrong)
    # Nothing was ordered by anybody who was not let in.
    history = ask(guarded, "/api/v1/history", f"bearer {TOKEN}").json()
    assert (history["pinned"], history["frozen"]) == ([], None)


def test_what_a_browser_sends_along_is_good_for_looking_alone(guarded: World) -> None:
    basic = "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()
    assert ask(guarded, "/", basic).status == 200
    for order in ORDERS:
        assert ask(guarded, f"/api/v1/{order}", basic, "POST").status == 401, order


def test_the_helper_gives_its_snapshot_to_nobody_else(guarded: World) -> None:
    for wrong in NOT_THE_TOKEN:
        headers = {} if wrong is None else {"Authorization": wrong}
        page = fetch(guarded.helper_port, "/v1/snapshot", headers)
        assert (page.status, page.headers["WWW-Authenticate"]) == (401, "Bearer"), wrong
        assert b"eyJ" not in page.body
        assert fetch(guarded.helper_port, "/health", headers).status == 200
    assert fetch(guarded.helper_port, "/v1/snapshot", {"Authorization": f"Bearer {TOKEN}"}).status == 200


def test_commands_without_the_token_are_told_so(guarded: World) -> None:
    other = guarded.folder / "other"
    other.write_text("not-the-right-word\n")
    settings = guarded.configuration()
    settings["admin"]["token_file"] = str(other)
    changed = guarded.folder / "other.yaml"
    changed.write_text(json.dumps(settings))
    done = run_command(*dnsproxy_argv("freeze", "--config", changed))
    assert done.returncode != 0
    assert "status 401" in done.stderr
    assert "not-the-right-word" not in done.stdout + done.stderr


# -- an open door ----------------------------------------------------------------------


@pytest.fixture
def space() -> Iterator[Space]:
    """A network of its own: nothing here may listen beyond loopback on the machine's."""
    reason = refusal()
    if reason is not None:
        give_up(f"OPEN DOORS NOT TESTED, no network namespaces here ({reason}); run as root")
    with Spaces() as spaces:
        yield spaces.add("open")


@pytest.mark.parametrize("guard", [False, True])
def test_an_endpoint_beyond_loopback_without_a_token_is_warned_of(
    world: World, space: Space, tmp_path: Path, guard: bool
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token_file = str(token) if guard else None
    world.configure(
        helper={"listen": f"0.0.0.0:{world.helper_port}", "token_file": token_file},
        admin={"listen": f"0.0.0.0:{world.admin_port}", "token_file": token_file},
    )
    programs = {
        name: Process(
            name, space.within(*dnsproxy_argv(command, "--config", world.config)), tmp_path / f"{name}.log"
        )
        for name, command in (("helper", "helper"), ("proxy", "serve"))
    }
    try:
        for name, program in programs.items():
            _start(program, f"{name}.started")
        opened = {
            "helper": programs["helper"].events("helper.open"),
            "proxy": programs["proxy"].events("admin.open"),
        }
        for name, events in opened.items():
            assert [event["level"] for event in events] == ([] if guard else ["warning"]), name
        # Even then orders are taken from loopback alone.
        space.set_address("lo", "10.9.8.7/32")
        address = f"http://10.9.8.7:{world.admin_port}/api/v1/freeze"
        done = run_command(
            *space.within("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-XPOST", address),
            *("-H", "Content-Type: application/json", "-d", "{}"),
        )
        assert done.stdout == ("401" if guard else "403")
    finally:
        for program in programs.values():
            program.kill()
    wait_for(lambda: not any(program.alive for program in programs.values()), "both have ended")


def _start(program: Process, event: str) -> None:
    program.start(lambda: bool(program.events(event)))
