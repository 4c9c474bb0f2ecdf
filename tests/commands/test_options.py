from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dnsproxy.cli import app
from dnsproxy.commands.options import admin_files, ask, domain_name, fail, ip_addresses
from dnsproxy.errors import ConfigError
from dnsproxy.ops.client import AdminError, AdminFiles


def test_an_endpoint_that_is_given_needs_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match=r"http://127\.0\.0\.1:1: no usable answer"):
        ask(tmp_path / "none.yaml", "http://127.0.0.1:1", "GET", "/")


def test_else_the_configuration_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ask(tmp_path / "none.yaml", None, "GET", "/")
    path = tmp_path / "config.yaml"
    path.write_text("admin: {listen: null}\n")
    with pytest.raises(AdminError, match=r"admin\.listen is null"):
        ask(path, None, "GET", "/")


def test_values_are_checked_before_anybody_is_asked() -> None:
    assert (domain_name("a.example"), domain_name(None)) == ("a.example", None)
    assert ip_addresses(["10.0.0.1", "fd00::1"]) == ["10.0.0.1", "fd00::1"]
    with pytest.raises(typer.BadParameter, match="label"):
        domain_name("a..b")
    with pytest.raises(typer.BadParameter, match="nonsense"):
        ip_addresses(["10.0.0.1", "nonsense"])


def test_the_files_in_front_of_a_command_go_to_the_endpoint(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    for option in ("--admin-ca-file", "--admin-token-file"):
        result = CliRunner().invoke(app, [option, str(missing), "status", "--admin", "https://127.0.0.1:1"])
        assert isinstance(result.exception, AdminError)
        assert str(result.exception).startswith(f"{missing}: ")
    variables = {"DNSPROXY_ADMIN_CA_FILE": str(missing)}
    result = CliRunner().invoke(app, ["status", "--admin", "https://127.0.0.1:1"], env=variables)
    assert str(result.exception).startswith(f"{missing}: ")
    CliRunner().invoke(app, ["status", "--admin", "https://127.0.0.1:1"])
    assert admin_files() == AdminFiles()


def test_a_failure_is_printed_before_the_exit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("no name", "no address")
    assert (ended.value.exit_code, capsys.readouterr().err) == (1, "no name\nno address\n")
