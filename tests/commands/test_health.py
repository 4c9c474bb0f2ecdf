from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dnsproxy import cli
from dnsproxy.ops import health
from dnsproxy.ops.health import HealthError
from dnsproxy.settings import Settings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, str]]:
    """Who was asked, whether for readiness, and with which configuration."""
    made: list[tuple[str, bool, str]] = []

    def note(who: str, settings: Settings, ready: bool) -> str:
        made.append((who, ready, settings.helper.id))
        return "ok"

    monkeypatch.setattr(health, "proxy_health", lambda settings, *, ready: note("proxy", settings, ready))
    monkeypatch.setattr(health, "helper_health", lambda settings, *, ready: note("helper", settings, ready))
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("helper: {id: of-this-file}\n")
    return path


@pytest.mark.parametrize(
    ("options", "who", "ready"),
    [
        ((), "proxy", False),
        (("--ready",), "proxy", True),
        (("--helper",), "helper", False),
        (("--helper", "--ready"), "helper", True),
    ],
)
def test_who_is_asked(
    options: tuple[str, ...], who: str, ready: bool, asked: list[tuple[str, bool, str]], config: Path
) -> None:
    done = CliRunner().invoke(cli.app, ["health", "--config", str(config), *options])
    assert (done.exit_code, done.stdout) == (0, "ok\n")
    assert asked == [(who, ready, "of-this-file")]


def test_a_failure_is_one_line_and_exit_code_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_settings: Settings, *, ready: bool) -> str:
        raise HealthError("not ready: no address for a.example.")

    monkeypatch.setattr(health, "proxy_health", fail)
    monkeypatch.setattr("sys.argv", ["dnsproxy", "health", "--config", str(config)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "dnsproxy: not ready: no address for a.example.\n"
