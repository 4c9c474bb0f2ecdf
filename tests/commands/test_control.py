from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dnsproxy import cli, reload_socket
from dnsproxy.commands import control
from dnsproxy.ops.client import AdminError

NOTHING: dict[str, Any] = {"pinned": [], "frozen": None, "not_saved": None, "result": {}}
PIN = {"name": "a.example.", "addresses": ["10.0.0.1", "fd00::1"], "since": 1000}
CHANGE = {"name": "a.example.", "old": [], "new": ["10.0.0.1"], "held": None}
RECORD = {"serial": 7, "issuer": "helper-a", "taken_at": 0, "names": 3, "changes": [CHANGE]}


class Admin:
    """A proxy that notes what it is asked, and answers with ``document``."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.document = NOTHING

    def __call__(self, _config: Any, _admin: Any, *request: Any) -> dict[str, Any]:
        self.asked.append(request)
        return self.document


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    answering = Admin()
    monkeypatch.setattr(control, "ask", answering)
    return answering


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


FROZEN = {"names": 3, "rolled_back_to": None}
RESULT = {"name": "a.example.", "addresses": ["10.0.0.1", "fd00::1"]}


@pytest.mark.parametrize(
    ("arguments", "body", "result", "text"),
    [
        (
            ("pin", "a.example", "10.0.0.1", "fd00::1"),
            {"name": "a.example", "addresses": ["10.0.0.1", "fd00::1"]},
            RESULT,
            "pinned: a.example to 10.0.0.1, fd00::1",
        ),
        (
            ("unpin", "a.example"),
            {"name": "a.example"},
            RESULT,
            "unpinned: a.example, answered as it is learned",
        ),
        (("freeze",), {}, FROZEN, "frozen: 3 names keep what they have until `dnsproxy unfreeze`"),
        (("unfreeze",), {}, FROZEN, "unfrozen: 3 names follow what is learned"),
        (
            ("rollback", "7"),
            {"serial": 7},
            FROZEN | {"rolled_back_to": 7},
            "frozen: rolled back to 7, 3 names stay there until `dnsproxy unfreeze`",
        ),
    ],
)
def test_orders_print_their_result_and_not_what_holds_later(
    arguments: tuple[str, ...], body: dict[str, Any], result: dict[str, Any], text: str, admin: Admin
) -> None:
    # Another order may have come in between.
    admin.document = NOTHING | {"result": result, "pinned": [PIN | {"name": "b.example."}], "frozen": FROZEN}
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (0, f"{text}\n")
    assert admin.asked == [("POST", f"/api/v1/{arguments[0]}", body)]


def test_an_order_that_is_not_kept_is_told_and_fails(admin: Admin) -> None:
    admin.document = NOTHING | {"result": FROZEN, "not_saved": "No space left on device"}
    done = run("freeze")
    assert done.exit_code == 1
    assert done.stderr == "in force, but not kept over a restart: No space left on device\n"


def test_history(admin: Admin) -> None:
    admin.document = NOTHING | {"history": [RECORD]}
    done = run("history")
    first, change, last = done.stdout.splitlines()
    assert first.startswith("7  19")
    assert first.endswith("  helper-a  3 names")
    assert (change, last) == ("    a.example: - → 10.0.0.1", "not frozen")
    assert admin.asked == [("GET", "/api/v1/history")]


def test_history_says_which_change_is_held(admin: Admin) -> None:
    admin.document = NOTHING | {"history": [RECORD | {"changes": [CHANGE | {"held": "frozen"}]}]}
    assert run("history").stdout.splitlines()[1] == "    a.example: - → 10.0.0.1 (held: frozen)"


def test_history_without_any(admin: Admin) -> None:
    admin.document = NOTHING | {"history": []}
    assert run("history").stdout == "nothing was learned yet\nnot frozen\n"


def test_history_for_a_machine(admin: Admin) -> None:
    admin.document = NOTHING | {"history": [RECORD]}
    assert '"taken_at": 0' in run("history", "--json").stdout


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("pin", "a.example"), "addresses"),
        (("pin", "a.example", "10.0.0.1", "nonsense"), "addresses"),
        (("pin", "a b", "10.0.0.1"), "name"),
        (("unpin",), "name"),
        (("unpin", "a..b"), "name"),
        (("rollback", "x"), "serial"),
        (("rollback", "--", "-3"), "serial"),
        (("freeze", "--admin", "nonsense"), "--admin"),
        (("canary", "promote", "a..b"), "name"),
        (("canary", "a.example"), "order"),
    ],
)
def test_wrong_usage_names_the_place(arguments: tuple[str, ...], place: str, admin: Admin) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert f"'{place}'" in done.stderr
    assert admin.asked == []


def test_a_reload_tells_what_changed_and_what_has_to_wait(admin: Admin) -> None:
    changed = {"changed": ["serve.allow", "learn.ttl"], "changed_files": ["/a.pub"]}
    admin.document = {**changed, "need_restart": ["user"]}
    lines = run("reload").stdout.splitlines()
    assert lines[:3] == ["changed: serve.allow", "changed: learn.ttl", "changed: /a.pub"]
    assert lines[3:] == ["changes at the next start: user"]
    assert admin.asked == [("POST", "/api/v1/reload", {})]


def test_a_reload_of_the_same(admin: Admin) -> None:
    admin.document = {"changed": [], "changed_files": [], "need_restart": []}
    assert run("reload").stdout == "nothing has changed\n"


def test_a_reload_without_an_endpoint_is_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the file has no mistakes, and the proxy has not answered that it does not take it."""
    file = tmp_path / "config.yaml"
    file.write_text("admin: {listen: null}\n")
    arguments = ("reload", "--config", str(file), "--pid", str(os.getpid()))
    taken: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: taken.append(number))
    try:
        done = run(*arguments)
        assert (done.exit_code, taken) == (0, [signal.SIGHUP])
        assert done.stdout.startswith(f"sent SIGHUP to process {os.getpid()}, whose log has the outcome")

        def refuse(*_: object) -> None:
            raise AdminError("the certificate has gone", answered=True)

        monkeypatch.setattr(control, "ask", refuse)
        assert isinstance(run(*arguments).exception, AdminError)
        file.write_text("admin: {listen: no}\n")
        done = run(*arguments)
        assert (done.exit_code, len(taken)) == (1, 1)
        assert f"{file}:1: admin.listen" in done.stderr
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reload_of_a_process_that_has_gone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("admin: {listen: null}\n")
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = run("reload", "--config", str(file), "--pid", str(ended.pid))
    assert isinstance(done.exception, AdminError)
    assert f"process {ended.pid}: No such process" in str(done.exception)


def test_a_restart_of_the_workers(admin: Admin) -> None:
    admin.document = {"restart": "started"}
    assert run("restart-workers").stdout == "restart of the workers asked for\n"
    assert admin.asked == [("POST", "/api/v1/restart-workers", {})]


TRIAL: dict[str, Any] = {
    "name": "a.example.",
    "state": "running",
    "old": ["10.0.0.1"],
    "new": ["10.0.0.2"],
    "served_to": "all",
    "started_at": 0,
    "ends_at": 600,
    "ended_at": None,
    "detail": None,
}


def trials(*listed: dict[str, Any]) -> dict[str, Any]:
    return NOTHING | {"canary": {"trials": list(listed)}}


def test_the_canary_is_shown(admin: Admin) -> None:
    back = {"state": "rolled_back", "ended_at": 60, "detail": "10.0.0.2 failed 3 times in a row"}
    admin.document = trials(TRIAL, TRIAL | back)
    first, second, third, fourth = run("canary").stdout.splitlines()
    assert first == third == "a.example: 10.0.0.1 → 10.0.0.2"
    assert second.startswith("    on trial from ")
    assert second.endswith(", answered to all clients")
    assert fourth.startswith("    rolled back at ")
    assert fourth.endswith(": 10.0.0.2 failed 3 times in a row")
    assert admin.asked == [("GET", "/api/v1/canary")]


def test_no_canary(admin: Admin) -> None:
    admin.document = trials()
    assert run("canary").stdout == "no new addresses are on trial\n"
    admin.document = {"canary": None}
    assert run("canary").stdout == "learn.canary is not configured: new addresses are taken at once\n"


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("promote", "promoted: new addresses of a.example: 10.0.0.2 (before: 10.0.0.1)"),
        ("rollback", "rolled back: new addresses of a.example: 10.0.0.2 are refused, 10.0.0.1 stay"),
    ],
)
def test_an_order_to_the_canary(order: str, text: str, admin: Admin) -> None:
    result = {"name": "a.example.", "old": ["10.0.0.1"], "new": ["10.0.0.2"]}
    admin.document = NOTHING | {"result": result}
    assert run("canary", order, "a.example").stdout == f"{text}\n"
    assert admin.asked == [("POST", f"/api/v1/canary/{order}", {"name": "a.example"})]


def test_an_order_to_the_canary_needs_a_name(admin: Admin) -> None:
    done = run("canary", "promote")
    assert done.exit_code == 2
    assert "together with a name" in done.stderr
    assert admin.asked == []


def test_the_canary_for_a_machine(admin: Admin) -> None:
    admin.document = trials(TRIAL)
    assert '"served_to": "all"' in run("canary", "--json").stdout


def test_a_reload_of_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: dict[str, Any] = {"changed": ["helper.interval"], "need_restart": [], "problems": []}
    asked: list[Path] = []

    def ask(file: Path) -> dict[str, Any]:
        asked.append(file)
        return answer

    monkeypatch.setattr(reload_socket, "ask", ask)
    done = run("reload", "--helper", "--config", "/etc/helper.yaml")
    assert (done.exit_code, done.stdout) == (0, "changed: helper.interval\n")
    assert asked == [Path("/etc/helper.yaml")]
    answer["problems"] = ["helper.token_file: gone", "helper.tls: gone"]
    done = run("reload", "--helper")
    assert (done.exit_code, done.stderr) == (1, "helper.token_file: gone\nhelper.tls: gone\n")
    assert run("reload", "--helper", "--admin", "http://127.0.0.1:1").exit_code == 2
