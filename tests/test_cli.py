from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dnsproxy import cli
from dnsproxy.ops import demo as ops_demo
from dnsproxy.version import __version__

GOOD = "registries: [{name: hz, region: cn-hangzhou, instance: abc}]\n"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of ``dnsproxy`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["dnsproxy", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return str(path)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"dnsproxy {__version__}\n"


def test_check_says_what_it_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], good: str
) -> None:
    assert run(monkeypatch, "check", good) == 0
    assert capsys.readouterr().out == f"{good}: ok, 3 names of 1 registries, 1 more to be discovered\n"


def test_check_prints_each_problem_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("learn: {ttl: 0}\nserve: {max_tcp_clients: 0}\n")
    assert run(monkeypatch, "check", str(path)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:1", "learn.ttl"],
        [f"{path}:2", "serve.max_tcp_clients"],
    ]


DOUBTFUL = """\
registries:
  - {name: a, instance: x, region: cn-hangzou}
admin: {token_file: FOLDER/token}
helper:
  signing_key_file: FOLDER/helper.key
"""


@pytest.fixture
def doubtful(tmp_path: Path) -> str:
    path = tmp_path / "doubtful.yaml"
    path.write_text(DOUBTFUL.replace("FOLDER", str(tmp_path)))
    return str(path)


def test_check_prints_warnings_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], doubtful: str
) -> None:
    assert run(monkeypatch, "check", doubtful) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{doubtful}: ok, ")
    assert [line.split(": ")[:3] for line in printed.err.splitlines()] == [
        [f"{doubtful}:2", "warning", "registries[0].region"],
        [f"{doubtful}:5", "warning", "helper.signing_key_file"],
        [f"{doubtful}:3", "warning", "admin.token_file"],
    ]


@pytest.mark.parametrize(
    ("role", "place"),
    [("serve", ":3: admin.token_file: "), ("helper", ":5: helper.signing_key_file: ")],
)
def test_check_for_a_role_wants_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], doubtful: str, role: str, place: str
) -> None:
    assert run(monkeypatch, "check", doubtful, "--role", role) == 2
    warning, problem = capsys.readouterr().err.splitlines()
    assert ": warning: registries[0].region: " in warning
    assert problem.startswith(doubtful + place)
    assert problem.endswith(f"No such file or directory; `dnsproxy {role}` needs it")


def test_bad_usage_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "status", "--nonsense") == 2


def test_schema_is_json_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "schema") == 0
    assert set(json.loads(capsys.readouterr().out)["properties"]) >= {"registries", "learn", "serve"}


def test_keygen_makes_a_pair_and_says_what_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "keygen", str(tmp_path)) == 0
    assert "learn.trusted_keys" in capsys.readouterr().out
    assert run(monkeypatch, "keygen", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"dnsproxy: {tmp_path}/helper.key: exists")


STATUS = {"names": [], "sources": [], "workers": [], "draining": False, "ready": False}


@pytest.mark.parametrize("form", ["--json", None])
@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"missing": ["hz: auth (not discovered yet)"]}, "no address for hz: auth (not discovered yet)"),
        ({"missing": [], "draining": True}, "it is being stopped"),
        ({"missing": list("abcde")}, "no address for a, b, c and 2 more"),
        ({"missing": []}, "the proxy reports no reason"),
    ],
)
def test_status_prints_why_it_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str | None,
    document: dict[str, object],
    reason: str,
) -> None:
    monkeypatch.setattr(cli, "ask", lambda *_: STATUS | document)
    assert run(monkeypatch, "status", *([form] if form else [])) == 1
    assert capsys.readouterr().err == f"not ready: {reason}\n"


def test_refresh_prints_what_each_source_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"url": "http://a/", "error": None, "issuer": "helper-a", "serial": 7}
    sources = [good]
    monkeypatch.setattr(cli, "ask", lambda *_, **__: {"sources": sources})
    assert run(monkeypatch, "refresh") == 0
    assert capsys.readouterr().out == "http://a/: serial 7 of helper-a\n"
    sources.append({"url": "http://b/", "error": "Connection refused", "issuer": None, "serial": None})
    assert run(monkeypatch, "refresh") == 1
    assert capsys.readouterr() == ("http://a/: serial 7 of helper-a\n", "http://b/: Connection refused\n")
    sources.clear()
    assert run(monkeypatch, "refresh") == 0
    assert capsys.readouterr().out == "no sources are configured\n"


def test_a_failed_demo_prints_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failed(*_: object, **__: object) -> int:
        return 1

    monkeypatch.setattr(ops_demo, "run_demo", failed)
    assert run(monkeypatch, "demo", "--once") == 1
    assert "a check of the demo failed" in capsys.readouterr().err


def test_an_interrupt_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], good: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dnsproxy.config.examine", interrupted)
    assert run(monkeypatch, "check", good) == 130
    assert capsys.readouterr().err.endswith("dnsproxy: interrupted\n")


@pytest.mark.parametrize("command", ["status", "refresh", "flush"])
def test_nobody_to_ask_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "--admin", "http://127.0.0.1:1") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
