"""systemd-resolved on a host of a test's own, without systemd and D-Bus."""

from __future__ import annotations

from tests.e2e.processes import Process
from tests.interop import judges
from tests.netns.network import Network
from tests.netns.spaces import Space


def add_resolved(network: Network, space: Space, settings: str) -> Process:
    """Make it a program of the host ``space``; ``settings`` is a file of resolved.conf.d(5)."""
    program = judges.find_resolved()
    assert program is not None, "systemd-resolved is missing: run scripts/setup.sh packages"
    # The user that it becomes; the machine need not have it.
    space.write("passwd", "root:x:0:0::/root:/bin/sh", "systemd-resolve:x:991:991::/:/bin/false")
    space.write("group", "root:x:0:", "systemd-resolve:x:991:")
    file = network.folder / "resolved.conf"
    file.write_text(settings)
    # A /run of its own: that of the machine has the machine's own resolved, and its bus.
    script = f"""set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d
chown systemd-resolve:systemd-resolve /run/systemd/resolve
cp {file} /run/systemd/resolved.conf.d/dnsproxy.conf
exec env {" ".join(judges.resolved_environment())} SYSTEMD_LOG_TARGET=console {program}
"""
    return network.add_process(space, "resolved", "sh", "-c", script)
