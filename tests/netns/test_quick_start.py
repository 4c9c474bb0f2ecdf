"""The quick start as a reader follows it: its configuration and commands, on two hosts."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsproxy import config
from tests.e2e.processes import ROOT, Process, dnsproxy_argv, wait_for
from tests.netns.region import AUTH_ADDRESS, HELPER_ADDRESS, REGISTRY, REGISTRY_ADDRESS
from tests.netns.world import IDC_ADDRESS, INTRANET, INTRANET_ADDRESS, World

pytestmark = [pytest.mark.netns]

PAGE, CHINESE = "docs/quick-start.md", "docs/zh/quick-start.md"


def configuration(page: str, folder: Path) -> str:
    """The page's own, word for word but for the two folders, which every test run has of its own."""
    text: str
    (text,) = re.findall(
        r"^```yaml\n(registries:.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return text.replace("/etc/dnsproxy", f"{folder}/etc").replace("/var/lib/dnsproxy", f"{folder}/state")


@pytest.fixture
def two_hosts(world: World) -> Iterator[World]:
    """A world whose own helper and proxy are out of the way."""
    for part in (world.helper, world.proxy):
        part.kill()
    yield world
    for part in (world.helper, world.proxy):
        part.kill()


def test_both_languages_show_the_same(tmp_path: Path) -> None:
    assert config.parse(configuration(PAGE, tmp_path)) == config.parse(configuration(CHINESE, tmp_path))


def test_quick_start_leads_to_learned_answers(two_hosts: World, tmp_path: Path) -> None:
    world = two_hosts
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "config.yaml"
    file.write_text(configuration(PAGE, tmp_path))

    # 2. and 3.: check, keygen.
    checked = world.in_idc(*dnsproxy_argv("check", file))
    assert checked.returncode == 0
    # The keys are made next.
    assert [line.rpartition(": ")[2].partition(";")[0] for line in checked.stderr.splitlines()] == [
        "No such file or directory"
    ] * len(checked.stderr.splitlines())
    assert world.in_idc(*dnsproxy_argv("keygen", tmp_path / "etc")).returncode == 0
    assert stat.S_IMODE((tmp_path / "etc" / "helper.key").stat().st_mode) == 0o600

    # 4.: both daemons. The authority of this world stands in for the ones that a system trusts.
    (tmp_path / "state").mkdir()
    trusting = ["env", f"SSL_CERT_FILE={world.authority.file}"]
    helper = Process(
        "quick helper",
        [*world.region_space.within(*trusting), *dnsproxy_argv("helper", "--config", file)],
        tmp_path / "helper.log",
    )
    proxy = Process(
        "quick proxy",
        [*world.idc_space.within(*trusting), *dnsproxy_argv("serve", "--config", file)],
        tmp_path / "proxy.log",
    )
    world.processes += [helper, proxy]
    helper.start(lambda: bool(helper.events("helper.started")))
    proxy.start(lambda: bool(proxy.events("proxy.started")))

    # 5.: status and dig. Another name goes where the page's `upstreams` says.
    def command(*words: str) -> tuple[int, str]:
        done = world.in_idc(*dnsproxy_argv(*words, "--config", file))
        return done.returncode, done.stdout

    wait_for(lambda: command("status")[0] == 0, "every name has an address")
    assert world.ask(REGISTRY) == [REGISTRY_ADDRESS]
    assert world.ask(INTRANET) == [INTRANET_ADDRESS]
    names = {entry["name"]: entry for entry in json.loads(command("status", "--json")[1])["names"]}
    auth = names["dockerauth-vpc.cn-hangzhou.aliyuncs.com."]
    # Not made from the region: the registry told it.
    assert [detail["address"] for detail in auth["details"]] == [AUTH_ADDRESS]

    # 6.: the routes of the page cover what was learned.
    assert command("routes", "--check")[0] == 0

    # 7.: a host that asks the proxy.
    world.use_resolvers(IDC_ADDRESS)
    done = world.in_idc(
        *dnsproxy_argv("doctor", "--config", file, "--admin", "http://127.0.0.1:9153", "--json")
    )
    assert json.loads(done.stdout)["failed"] == [], done.stdout
    assert HELPER_ADDRESS in file.read_text()
    for part in (proxy, helper):
        part.kill()
