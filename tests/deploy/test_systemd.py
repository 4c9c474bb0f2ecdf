"""The units: verified by systemd itself, confined, and in step with the program's defaults."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.settings import Settings
from tests.deploy.files import DEPLOY, output, run

pytestmark = pytest.mark.deploy

SYSTEMD = DEPLOY / "systemd"
ADDRESS = DEPLOY / "kubernetes" / "node" / "dnsproxy-address.service"
SERVICES = ("dnsproxy.service", "dnsproxy-helper.service")
# Tenths, as `systemd-analyze security --threshold` takes them: 2.0, of 10. What is left of exposure is the
# network, which is what they are for.
THRESHOLD = 20


class Unit(RawConfigParser):
    """A unit file; a key that is given more than once keeps all its values, a line each."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        self.keys_of: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.keys_of.setdefault(key, []).append(value)

    def one(self, key: str) -> str:
        (value,) = self.keys_of[key]
        return value


@pytest.mark.parametrize("path", [*sorted(SYSTEMD.glob("*.s*[et]")), ADDRESS], ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_of_a_unit(path: Path, tool: Callable[[str], str], tmp_path: Path) -> None:
    for unit in [*SYSTEMD.glob("*.s*[et]"), ADDRESS]:
        # The program is not installed where the tests run; everything else must be there.
        text = unit.read_text().replace("/opt/dnsproxy/bin/dnsproxy", "/bin/true")
        (tmp_path / unit.name).write_text(text.replace("/sbin/ip ", f"{tool('ip')} "))
    done = run(tool("systemd-analyze"), "verify", "--man=no", tmp_path / path.name)
    said = [line for line in (done.stdout + done.stderr).splitlines() if path.stem in line]
    assert said == []
    assert done.returncode == 0


def test_a_mistyped_unit_would_be_noticed(tool: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "dnsproxy.service"
    text = (SYSTEMD / "dnsproxy.service").read_text().replace("/opt/dnsproxy/bin/dnsproxy", "/bin/true")
    path.write_text(text.replace("ProtectHome=", "ProtectHouse="))
    done = run(tool("systemd-analyze"), "verify", "--man=no", path)
    assert "ProtectHouse" in done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_no_more_than_it_must_be(name: str, tool: Callable[[str], str]) -> None:
    output(
        *(tool("systemd-analyze"), "security", "--no-pager", "--offline=true"),
        *(f"--threshold={THRESHOLD}", SYSTEMD / name),
    )


@pytest.mark.parametrize("name", SERVICES)
def test_an_open_service_would_be_noticed(name: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / name
    text = (SYSTEMD / name).read_text()
    path.write_text(
        re.sub(r"^SystemCallFilter=.*\n|^RestrictAddressFamilies=.*\n", "", text, flags=re.MULTILINE)
    )
    done = run(
        *(tool("systemd-analyze"), "security", "--no-pager", "--offline=true"),
        *(f"--threshold={THRESHOLD}", path),
    )
    assert done.returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_told_of_and_watched(name: str) -> None:
    unit = Unit(SYSTEMD / name)
    assert unit.one("Type") == "notify"
    assert unit.one("RestartPreventExitStatus") == "2 3"
    assert int(unit.one("WatchdogSec").removesuffix("s")) >= 30
    assert unit.one("User") == "dnsproxy"


def test_a_reload_waits_for_its_outcome() -> None:
    """A signal would succeed whatever the file is."""
    service = Unit(SYSTEMD / "dnsproxy.service")
    program, file = "/opt/dnsproxy/bin/dnsproxy", "/etc/dnsproxy/config.yaml"
    assert service.one("ExecReload") == f"{program} reload --config {file} --pid $MAINPID"
    helper = Unit(SYSTEMD / "dnsproxy-helper.service")
    assert helper.one("ExecReload") == f"{program} reload --helper --config {file}"


# Seconds that a start with a broken file takes, on a slow machine.
SLOW_START = 1.8


def test_only_starts_by_the_socket_exceed_the_limit() -> None:
    """A start that fails is retried forever; the socket, which retries a broken file at once, is stopped."""
    unit = Unit(SYSTEMD / "dnsproxy.service")
    seconds, burst = (
        int(unit.one("StartLimitIntervalSec").removesuffix("s")),
        int(unit.one("StartLimitBurst")),
    )
    assert seconds / int(unit.one("RestartSec").removesuffix("s")) < burst <= seconds / SLOW_START


def test_a_missing_socket_is_noticed() -> None:
    unit = Unit(SYSTEMD / "dnsproxy.service")
    assert "--expect-sockets" in unit.one("ExecStart").split()
    assert "dnsproxy.socket" in unit.one("Wants").split()
    assert "dnsproxy.socket" in unit.one("After").split()


def test_the_state_folder_is_that_of_the_program() -> None:
    unit = Unit(SYSTEMD / "dnsproxy.service")
    assert Settings().learn.state_file.parent == Path("/var/lib") / unit.one("StateDirectory")
    assert unit.one("CapabilityBoundingSet") == unit.one("AmbientCapabilities") == "CAP_NET_BIND_SERVICE"
    assert Unit(SYSTEMD / "dnsproxy-helper.service").one("CapabilityBoundingSet") == ""


def test_the_sockets_are_those_that_the_program_listens_on() -> None:
    unit = Unit(SYSTEMD / "dnsproxy.socket")
    wanted = {str(listen) for listen in Settings().serve.listen}
    assert set(unit.keys_of["ListenDatagram"]) == set(unit.keys_of["ListenStream"]) == wanted
    # Without it [::] would take IPv4 as well, which the program refuses.
    assert unit.one("BindIPv6Only") == "ipv6-only"


def test_the_user_and_the_rights_of_the_key(tool: Callable[[str], str], tmp_path: Path) -> None:
    """Both files, done by systemd's own tools to a root folder of the test's."""
    tools = [shutil.which(name) for name in ("systemd-sysusers", "systemd-tmpfiles")]
    if not all(tools):
        tool("systemd-sysusers")
    (tmp_path / "etc" / "dnsproxy").mkdir(parents=True)
    key = tmp_path / "etc" / "dnsproxy" / "helper.key"
    key.write_text("a key\n")
    key.chmod(0o644)
    root = f"--root={tmp_path}"
    output(tool("systemd-sysusers"), root, SYSTEMD / "sysusers.d" / "dnsproxy.conf")
    name, _, uid, gid, *_ = (tmp_path / "etc" / "passwd").read_text().split(":")
    assert name == "dnsproxy"
    output(tool("systemd-tmpfiles"), root, "--create", SYSTEMD / "tmpfiles.d" / "dnsproxy.conf")
    status = key.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o400, int(uid), int(gid))


def test_the_address_of_a_node_is_one_that_answers(tool: Callable[[str], str]) -> None:
    """The unit's own commands, in a network namespace of the test's."""
    unit = Unit(ADDRESS)
    ip = tool("ip")
    name = "dnsproxy-deploy-address"
    run(ip, "netns", "delete", name)
    made = run(ip, "netns", "add", name)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        for key, expected in (("ExecStart", ["169.254.53.53"]), ("ExecStop", [])):
            for command in unit.keys_of[key]:
                _, *words = command.split()
                output(ip, "-n", name, *words)
            told: list[dict[str, Any]] = json.loads(output(ip, "-n", name, "-json", "address", "show", "lo"))
            addresses = [
                held["local"] for held in told[0]["addr_info"] if held["local"].startswith("169.254")
            ]
            assert addresses == expected
    finally:
        output(ip, "netns", "delete", name)
