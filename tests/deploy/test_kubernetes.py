"""The kustomizations, built by kubectl: valid for the API, hardened, and with a configuration that runs."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from dnsproxy.errors import StartError
from dnsproxy.keys import read_private_key, read_trusted_keys, write_key_pair
from dnsproxy.settings import Settings, publishing
from tests.deploy import manifests
from tests.deploy.files import DEPLOY, Object, checked, documents, output

pytestmark = pytest.mark.deploy

FOLDERS = ("base", "helper", "node", "sidecar")
KUBERNETES = DEPLOY / "kubernetes"

Built = dict[str, list[Object]]


@pytest.fixture(scope="module")
def built(tool: Callable[[str], str]) -> Built:
    return {name: documents(output(tool("kubectl"), "kustomize", KUBERNETES / name)) for name in FOLDERS}


def pod_in(built: Built, folder: str) -> tuple[Object, list[Object]]:
    ((_, pod),) = manifests.pods(built[folder])
    return pod, built[folder]


def settings_in(built: Built, folder: str, tmp_path: Path) -> Settings:
    return checked(manifests.mounted_config(*pod_in(built, folder)), tmp_path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_valid_for_the_api(folder: str, built: Built) -> None:
    assert built[folder]
    for document in built[folder]:
        manifests.assert_valid(document)


def test_a_mistyped_field_would_be_noticed(built: Built) -> None:
    document = yaml.safe_load(yaml.safe_dump(built["base"][0]))
    document["spec"] = {"finalisers": []}
    with pytest.raises(Exception, match="finalisers"):
        manifests.assert_valid(document)


def test_the_example_of_a_secret_is_valid_and_is_not_applied(built: Built) -> None:
    (secret,) = documents((KUBERNETES / "helper" / "secret.example.yaml").read_text())
    manifests.assert_valid(secret)
    assert "Secret" not in {document["kind"] for objects in built.values() for document in objects}


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_restricted(folder: str, built: Built) -> None:
    pod, _ = pod_in(built, folder)
    assert manifests.breaches(pod, host_network=folder == "node") == []
    assert pod["automountServiceAccountToken"] is False


def test_a_breach_would_be_noticed(built: Built) -> None:
    pod = yaml.safe_load(yaml.safe_dump(pod_in(built, "base")[0]))
    pod["hostNetwork"] = True
    pod["volumes"].append({"name": "etc", "hostPath": {"path": "/etc"}})
    pod["containers"][0]["securityContext"]["capabilities"]["add"] = ["NET_ADMIN"]
    assert manifests.breaches(pod, host_network=False) == ["hostNetwork", "volume etc", "dnsproxy: add"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_namespace_allows_what_its_pods_need(folder: str, built: Built) -> None:
    levels = [
        document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for document in built[folder]
        if document["kind"] == "Namespace"
    ]
    assert levels == {"node": ["privileged"], "sidecar": []}.get(folder, ["restricted"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_configuration_is_good_and_all_its_files_are_mounted(
    folder: str, built: Built, tmp_path: Path
) -> None:
    pod, objects = pod_in(built, folder)
    settings = settings_in(built, folder, tmp_path)
    wanted = [*settings.learn.trusted_keys]
    if folder == "helper":
        wanted = [settings.helper.signing_key_file]
    assert wanted
    assert all(manifests.mounts_file(pod, str(path), objects) for path in wanted)


@pytest.mark.parametrize("folder", ["base", "node", "sidecar"])
def test_the_trusted_key_is_one(folder: str, tmp_path: Path) -> None:
    assert read_trusted_keys([KUBERNETES / folder / "helper.pub"])


@pytest.mark.parametrize("folder", ["base", "node", "sidecar"])
def test_ports_probes_and_configuration_agree(folder: str, built: Built, tmp_path: Path) -> None:
    pod, _ = pod_in(built, folder)
    (container,) = manifests.ours(pod)
    settings = settings_in(built, folder, tmp_path)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert settings.admin.listen is not None
    assert ports["admin"] == settings.admin.listen.port
    assert {listen.port for listen in settings.serve.listen} == {ports.get("dns-udp", 53)}
    assert set(manifests.probes(container).values()) <= {"/health", "/ready"}
    for name, value in container.items():
        if name.endswith("Probe"):
            asked = value["httpGet"].get("host", "0.0.0.0")
            assert asked == settings.admin.listen.host, "the kubelet would ask where nobody listens"


def test_the_service_has_port_53_for_both_and_reaches_the_pods(built: Built) -> None:
    service = next(o for o in built["base"] if o["kind"] == "Service" and o["metadata"]["name"] == "dnsproxy")
    assert {(port["port"], port["protocol"]) for port in service["spec"]["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }
    deployment = next(o for o in built["base"] if o["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"]]
    for document in built["base"]:
        if document["kind"] in {"PodDisruptionBudget", "Deployment"}:
            selectors.append(document["spec"]["selector"]["matchLabels"])
        if document["kind"] == "NetworkPolicy":
            selectors.append(document["spec"]["podSelector"]["matchLabels"])
    selectors += [
        rule["labelSelector"]["matchLabels"]
        for rule in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    ]
    assert len(selectors) == 6
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_end_leaves_time_for_lameduck(built: Built) -> None:
    for folder in ("base", "node"):
        assert pod_in(built, folder)[0]["terminationGracePeriodSeconds"] >= 20


def test_a_sidecar_ends_at_once(built: Built, tmp_path: Path) -> None:
    """It is stopped when the Pod's other containers have ended, and the Pod ends with it."""
    assert settings_in(built, "sidecar", tmp_path).serve.lameduck == 0


def test_no_proxy_asks_the_resolver_that_asks_it(built: Built, tmp_path: Path) -> None:
    for folder in ("base", "node", "sidecar"):
        settings = settings_in(built, folder, tmp_path)
        own = {listen.host for listen in settings.serve.listen}
        assert not {str(upstream).partition(":")[0] for upstream in settings.forward.upstreams} & (
            own | {"system"}
        )


def test_a_node_may_ask_from_its_own_address(built: Built, tmp_path: Path) -> None:
    settings = settings_in(built, "node", tmp_path)
    (listen,) = settings.serve.listen
    assert any(ip_address(listen.host) in network for network in settings.serve.allow)
    assert ip_address(listen.host) in ip_network("169.254.0.0/16")
    unit = (KUBERNETES / "node" / "dnsproxy-address.service").read_text()
    assert f"{listen.host}/32" in unit
    assert f"DNS={listen.host}\n" in (KUBERNETES / "node" / "resolved.conf").read_text()


def test_the_sidecar_is_asked_first_and_alone(built: Built) -> None:
    pod, _ = pod_in(built, "sidecar")
    assert (pod["dnsPolicy"], pod["dnsConfig"]["nameservers"]) == ("None", ["127.0.0.1"])
    (container,) = manifests.ours(pod)
    assert container in pod["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert manifests.probes(container)["startupProbe"] == "/ready"


def test_the_private_key_is_made_readable_for_the_helper_alone(built: Built, tmp_path: Path) -> None:
    """With fsGroup the kubelet gives files of a Secret mode 0440, which is refused: the copy is not."""
    pod, _ = pod_in(built, "helper")
    assert manifests.volume_source(pod, "secret")["secret"]["defaultMode"] == 0o400
    secret, _ = write_key_pair(tmp_path / "secret")
    secret.chmod(0o440)
    with pytest.raises(StartError, match="lets others use"):
        read_private_key(secret)
    (init,) = pod["initContainers"]
    places = {"/secret/helper.key": str(secret), "/run/dnsproxy/helper.key": str(tmp_path / "helper.key")}
    subprocess.run([places.get(word, word) for word in init["command"]], check=True)
    assert stat.S_IMODE((tmp_path / "helper.key").stat().st_mode) == 0o400
    read_private_key(tmp_path / "helper.key")


@pytest.fixture(scope="module")
def with_snapshot(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Helper and proxies with the component, as its own head says to put them together."""
    folder = tmp_path_factory.mktemp("overlay")
    beside = os.path.relpath(KUBERNETES, folder.resolve())
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "dnsproxy",
        "resources": [f"{beside}/helper"],
        "components": [f"{beside}/snapshot"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return documents(output(tool("kubectl"), "kustomize", folder))


def test_the_rights_to_the_snapshot_are_for_one_object_by_its_name(with_snapshot: list[Object]) -> None:
    for document in with_snapshot:
        manifests.assert_valid(document)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "dnsproxy"
    roles = {o["metadata"]["name"]: o for o in with_snapshot if o["kind"] == "Role"}
    (writer,), (reader,) = (roles[f"dnsproxy-snapshot-{kind}"]["rules"] for kind in ("writer", "reader"))
    for rule in (writer, reader):
        assert (rule["resources"], rule["resourceNames"]) == (["configmaps"], ["dnsproxy-snapshot"])
    # What the target and the source were seen to ask of the API; see tests/fakes/apiserver.py.
    assert (writer["verbs"], reader["verbs"]) == (["get", "patch"], ["get", "watch"])
    bindings = {
        o["roleRef"]["name"]: o["subjects"][0]["name"] for o in with_snapshot if o["kind"] == "RoleBinding"
    }
    assert bindings == {
        "dnsproxy-snapshot-writer": "dnsproxy-helper",
        "dnsproxy-snapshot-reader": "dnsproxy",
    }


def test_the_helper_of_the_component_has_its_token_and_a_way(with_snapshot: list[Object]) -> None:
    ((_, pod),) = manifests.pods(with_snapshot)
    assert pod["automountServiceAccountToken"] is True
    assert manifests.breaches(pod, host_network=False) == []
    (policy,) = [o for o in with_snapshot if o["kind"] == "NetworkPolicy"]
    assert {"port": 6443, "protocol": "TCP"} in policy["spec"]["egress"][-1]["ports"]
    (held,) = [o for o in with_snapshot if o["metadata"]["name"] == "dnsproxy-snapshot"]
    assert held["metadata"]["name"] == publishing.KubernetesTarget(type="kubernetes").object
    assert "data" not in held
