"""deploy/kubernetes as a cluster would have it: a Pod with a sidecar, a node with the DaemonSet.

A namespace is a Pod or a node; what kubelet does with the manifests is done by the test. Neither a kubelet
nor a container engine is here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from configparser import RawConfigParser
from typing import Any

import pytest

from tests.e2e.processes import dnsproxy_argv, run_command, wait_for
from tests.interop import judges
from tests.netns.placements import (
    DEPLOY,
    INSPECT,
    SERVICE,
    SERVICE_ADDRESS,
    Place,
    Remote,
    blocks,
    confined,
    of_reader,
    remote_side,
    set_sysctls,
)
from tests.netns.placements import manifest as read_manifest
from tests.netns.region import REGISTRY, REGISTRY_ADDRESS
from tests.netns.world import World

pytestmark = [pytest.mark.netns]

MANIFESTS = DEPLOY / "kubernetes"


@pytest.fixture(scope="module")
def remote(shared: World) -> Iterator[Remote]:
    with remote_side(shared) as made:
        shared.push_in_region(shared.make_image(), "1.0")
        yield made


def mount(place: Place, folder: str, keys: str) -> None:
    """Put a folder's configuration and the helper's public key where the manifest mounts them."""
    place.write("dnsproxy/config.yaml", of_reader((MANIFESTS / folder / "config.yaml").read_text()))
    place.write(keys, place.world.public_key.read_text())


def run_container(place: Place, container: Any, pod: Any) -> list[str]:
    """Return the words that run a container of the image with its rights."""
    context = {**pod["securityContext"], **container["securityContext"]}
    assert context["capabilities"]["drop"] == ["ALL"]
    added = [name.lower() for name in context["capabilities"].get("add", [])]
    words = confined(context["runAsUser"], context["runAsGroup"], added)
    shutil.chown(place.state, context["runAsUser"], context["runAsGroup"])
    return [*words, *dnsproxy_argv(*container["args"])]


def probe(place: Place, container: Any, name: str, address: str) -> str:
    """Ask what the kubelet asks, from the node; return the status code."""
    asked = container[name]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    url = f"http://{asked.get('host', address)}:{ports[asked['port']]}{asked['path']}"
    where = place.space if "host" in asked else place.world.transit_space
    return run_command(*where.within("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url)).stdout


def test_a_sidecar_helps_its_pod_and_not_the_node(remote: Remote) -> None:
    node, _ = remote.add("node1")
    pod, address = remote.add("pod")
    spec = read_manifest("sidecar/pod.yaml", "Pod")["spec"]
    (sidecar,), (build,) = spec["initContainers"], spec["containers"]
    set_sysctls(pod.space, {each["name"]: each["value"] for each in spec["securityContext"]["sysctls"]})
    # What kubelet makes of `dnsPolicy: None`.
    settings = spec["dnsConfig"]
    options = " ".join(f"{option['name']}:{option['value']}" for option in settings["options"])
    lines = [f"nameserver {server}" for server in settings["nameservers"]]
    lines += [f"search {' '.join(settings['searches'])}", f"options {options}"]
    pod.write("resolv.conf", "\n".join(lines) + "\n")
    mount(pod, "sidecar", "dnsproxy/helper.pub")

    proxy = pod.process("proxy", *run_container(pod, sidecar, spec))
    proxy.start(lambda: bool(proxy.events("proxy.started")))
    wait_for(lambda: probe(pod, sidecar, "startupProbe", address) == "200", "the sidecar is ready")
    assert probe(pod, sidecar, "livenessProbe", address) == "200"
    # The page's look at it.
    assert pod.dnsproxy("status").returncode == 0

    pod.check()
    # A Service of the cluster, by its short name: `searches` and the proxy's upstream.
    assert pod.look_up("web") == pod.look_up(SERVICE) == {SERVICE_ADDRESS}
    done = pod.inspect(*map(of_reader, build["command"]))
    assert done.returncode == 0, done.stderr
    # The image of the Pod itself is pulled by the node, which asks its own resolver.
    assert node.look_up(REGISTRY) == set()
    failed = node.inspect(*INSPECT)
    assert failed.returncode != 0
    assert "no such host" in failed.stderr
    # And nobody else is served by it.
    assert node.ask(address, REGISTRY) != [REGISTRY_ADDRESS]


def test_a_daemonset_helps_its_node_and_the_pods_on_it(remote: Remote) -> None:
    node, _ = remote.add("node2")
    unit = RawConfigParser(strict=False)
    unit.read(MANIFESTS / "node" / "dnsproxy-address.service")
    done = node.run(*unit["Service"]["ExecStart"].split())
    assert done.returncode == 0, done.stderr

    spec = read_manifest("node/daemonset.yaml", "DaemonSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["hostNetwork"]
    mount(node, "node", "dnsproxy/keys/helper.pub")
    node.serve(*run_container(node, container, spec))
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert probe(node, container, name, "") == "200"
    assert node.look_up(REGISTRY) == set()

    # What no DaemonSet can do: the node's resolver.
    resolved = start_resolved(node)
    node.write("resolv.conf", "nameserver 127.0.0.53\n")
    node.check()
    done = node.inspect(*INSPECT)
    assert done.returncode == 0, done.stderr
    resolved.kill()

    # A node without systemd-resolved.
    (lines,) = blocks("kubernetes.md", "conf")
    node.write("resolv.conf", lines)
    node.check()

    # CoreDNS and Pods with dnsPolicy Default ask from an address of their own.
    node.space.forward()
    pod = remote.add_behind(node, "tenant", "10.100.0")
    assert pod.ask("169.254.53.53", REGISTRY) == [REGISTRY_ADDRESS]


def start_resolved(node: Place) -> Any:
    """Run systemd-resolved with the folder's setting, without systemd and D-Bus."""
    program = judges.find_resolved()
    assert program is not None, "systemd-resolved is missing: run scripts/setup.sh packages"
    node.write("passwd", "root:x:0:0::/root:/bin/sh\nsystemd-resolve:x:991:991::/:/bin/false\n")
    node.write("group", "root:x:0:\nsystemd-resolve:x:991:\n")
    node.write("systemd/resolved.conf", "")
    (node.etc / "systemd" / "resolved.conf.d").mkdir()
    shutil.copy(MANIFESTS / "node" / "resolved.conf", node.etc / "systemd/resolved.conf.d/dnsproxy.conf")
    script = f"""set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolve
chown systemd-resolve:systemd-resolve /run/systemd/resolve
exec env {" ".join(judges.resolved_environment())} SYSTEMD_LOG_TARGET=console {program}
"""
    resolved = node.process("resolved", "sh", "-c", script)
    resolved.start(lambda: node.ask("127.0.0.53", REGISTRY) == [REGISTRY_ADDRESS])
    return resolved
