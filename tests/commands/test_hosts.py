from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dnsproxy import cli
from dnsproxy.config import parse
from dnsproxy.settings import Settings
from tests.fakes.admin import admin_endpoint

PINS = """\
registries:
  - name: r
    provider: generic
    names: [{name: registry.example, addresses: [10.1.2.3]}, {name: learned.example}]
admin: {listen: "127.0.0.1:1"}
learn: {state_file: %s}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(PINS % (tmp_path / "none.jws"))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n10.0.0.9 printer.example\n")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["hosts", *map(str, arguments)])


def test_import_prints_a_configuration(file: Path) -> None:
    file.write_text(
        "10.94.205.198 xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com\n10.0.0.9 printer.example\n"
    )
    done = run("import", file)
    assert done.exit_code == 0
    assert [registry.instance for registry in parse(done.stdout).registries] == ["xxxxxx"]
    assert "# left out: printer.example" in done.stdout
    assert "10.94.205.198" in run("import", file, "--pin").stdout
    assert "10.0.0.9" in run("import", file, "--all").stdout


def test_import_names_each_line_that_it_cannot_read_and_exits_1(file: Path) -> None:
    registry = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
    file.write_bytes(f"\ufeff10.94.205.198 {registry}\r\n${{IP}} a.example\r\n10.0.0.1\r\n".encode())
    done = run("import", file)
    assert done.exit_code == 1
    # What could be read is a configuration all the same.
    assert [registry.instance for registry in parse(done.stdout).registries] == ["xxxxxx"]
    expected = [
        f"{file}:2: ${{IP}} a.example: ${{IP}} has a variable, which is replaced elsewhere",
        f"{file}:3: 10.0.0.1: no name",
    ]
    assert done.stderr.splitlines() == expected
    assert done.stdout.count("# not read: line ") == 2
    file.write_bytes("10.94.205.198 a\n".encode("utf-16-le"))
    refused = run("import", file)
    assert (refused.exit_code, refused.stdout) == (1, "")


@pytest.mark.parametrize("command", ["import", "audit"])
def test_no_file_is_bad_usage(tmp_path: Path, command: str) -> None:
    # Not 1, which says that the file was read and has lines that are wrong.
    for path in (tmp_path / "none", tmp_path):
        done = run(command, path)
        assert done.exit_code == 2
        assert "'file'" in done.stderr


def test_export(config: Path) -> None:
    done = run("export", "--config", config)
    assert done.exit_code == 0
    assert "10.1.2.3 registry.example" in done.stdout
    assert "# learned.example: no address is known" in done.stdout


def test_audit_of_a_clean_file(config: Path, file: Path) -> None:
    done = run("audit", file, "--config", config)
    assert (done.exit_code, "printer" in done.stdout) == (0, False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("10.1.2.3 registry.example", "10.1.2.3 registry.example: shadows"),
        ("10.9.9.9 registry.example", "10.9.9.9 registry.example: stale, the proxy answers 10.1.2.3"),
        ("10.9.9.9 learned.example", "10.9.9.9 learned.example: stale, the proxy answers nothing yet"),
    ],
)
def test_audit_names_place_and_line(config: Path, file: Path, line: str, words: str) -> None:
    file.write_text(f"{file.read_text()}{line}\n")
    done = run("audit", file, "--config", config)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{file}:3: {words}")
    assert done.stderr.startswith(f"{file}: 1 of its lines are used in place of the answers of ")
    document = json.loads(run("audit", file, "--config", config, "--json").stdout)
    assert (document["ok"], [found["number"] for found in document["lines"]]) == (False, [3])


def test_audit_without_anything_known_still_knows_the_names(config: Path, file: Path) -> None:
    config.write_text(config.read_text().replace(", addresses: [10.1.2.3]", ""))
    file.write_text("10.9.9.9 registry.example\n")
    assert run("audit", file, "--config", config).exit_code == 1


def test_with_admin_no_configuration_is_needed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DNSPROXY_CONFIG", raising=False)
    file.write_text("10.9.9.9 registry.example\n")
    with admin_endpoint(Settings()) as proxy:
        exported, audited = run("export", "--admin", proxy), run("audit", file, "--admin", proxy)
    assert "10.1.2.3 registry.example" in exported.stdout
    assert audited.exit_code == 1
    assert "10.9.9.9 registry.example: stale, the proxy answers 10.1.2.3" in audited.stdout
