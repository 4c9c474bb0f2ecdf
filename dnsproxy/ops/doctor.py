"""`dnsproxy doctor`: follow a pull hop by hop from where it is started, and name the hop that is broken.

Every hop gives findings per subject. A hop whose ground is gone is skipped and says why, so
that one fault is one failure. The rules are in `doctor_findings` and `doctor_services`.
"""

from __future__ import annotations

from dnsproxy.files import read_text
from dnsproxy.ops import doctor_findings as rules
from dnsproxy.ops import doctor_lookups
from dnsproxy.ops.doctor_findings import Finding
from dnsproxy.ops.doctor_ground import Ground, Site
from dnsproxy.ops.doctor_host import parse_nsswitch
from dnsproxy.ops.doctor_pull import Pull
from dnsproxy.ops.hostsfile import HostsFileError, read_hosts
from dnsproxy.ops.known import Known
from dnsproxy.ops.proxy_settings import ProxySettings

__all__ = ["Finding", "Site", "examine"]


async def examine(settings: ProxySettings, known: Known | None, reason: str, site: Site) -> list[Finding]:
    """Go through every hop in order; never raises for what is broken.

    ``known`` is what should be answered, None when that could not be read, for ``reason``.

    Raises:
        StartError: ``learn.verify.ca_file`` cannot be used.
    """
    ground = Ground(settings, known, reason, site)
    pull = Pull(ground)
    _look_at_files(ground)
    _look_at_snapshot(ground)
    await doctor_lookups.ask_servers(ground)
    await doctor_lookups.ask_names(ground)
    await doctor_lookups.ask_as_clients(ground)
    pull.look_for_routes()
    await pull.connect()
    await pull.shake_hands()
    await pull.follow_registries()
    await pull.visit_storage()
    return ground.findings


def _look_at_files(ground: Ground) -> None:
    site = ground.site
    text = read_text(site.nsswitch)
    ground.add(rules.judge_nsswitch(parse_nsswitch(text or ""), str(site.nsswitch)))
    try:
        lines = read_hosts(site.hosts)
    except HostsFileError as exc:
        ground.add(rules.skip("hosts file", str(site.hosts), str(exc)))
    else:
        ground.add(*rules.judge_hosts(lines, ground.names, str(site.hosts)))


def _look_at_snapshot(ground: Ground) -> None:
    entries = [target.entry for target in ground.targets]
    ground.add(*rules.judge_snapshot(ground.known, ground.reason, entries))
    for target in ground.targets:
        if ground.known and not target.entry.addresses:
            target.broken = "no address is known"
