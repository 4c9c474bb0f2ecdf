"""The chart, linted and rendered by helm itself with the values files of ci/."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dnsproxy.settings import publishing
from tests.deploy import manifests
from tests.deploy.files import DEPLOY, Object, checked, documents, output, run

pytestmark = pytest.mark.deploy

CHART = DEPLOY / "helm" / "dnsproxy"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))

Helm = Callable[..., str]
Rendered = dict[str, list[Object]]


@pytest.fixture(scope="module")
def helm(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command; its folders are the test's own."""
    home = tmp_path_factory.mktemp("helm")
    return [
        "env",
        *(f"HELM_{kind}_HOME={home}" for kind in ("CACHE", "CONFIG", "DATA")),
        tool("helm"),
    ]


@pytest.fixture(scope="module")
def rendered(helm: list[str]) -> Rendered:
    return {
        path.stem: documents(output(*helm, "template", "rel", CHART, "--namespace", "dns", "--values", path))
        for path in VALUES
    }


def test_the_chart_passes_lint_with_every_values_file(helm: list[str]) -> None:
    assert len(VALUES) >= 3
    for path in VALUES:
        output(*helm, "lint", "--strict", CHART, "--values", path)


def test_every_object_is_valid_for_the_api(rendered: Rendered) -> None:
    for objects in rendered.values():
        for document in objects:
            manifests.assert_valid(document)


def test_pods_are_restricted(rendered: Rendered) -> None:
    seen = set()
    for objects in rendered.values():
        for name, pod in manifests.pods(objects):
            assert manifests.breaches(pod, host_network=name.endswith("-node")) == []
            seen.add(name)
    assert seen == {"rel-dnsproxy", "rel-dnsproxy-node", "rel-dnsproxy-helper"}


def test_configurations_are_good_and_all_their_files_are_mounted(rendered: Rendered, tmp_path: Path) -> None:
    for objects in rendered.values():
        for name, pod in manifests.pods(objects):
            settings = checked(manifests.mounted_config(pod, objects), tmp_path)
            wanted = [settings.helper.signing_key_file]
            if not name.endswith("-helper"):
                wanted = [Path(str(key)) for key in settings.learn.trusted_keys]
            assert wanted
            assert all(manifests.mounts_file(pod, str(path), objects) for path in wanted)


def test_values_reach_the_configuration(rendered: Rendered, tmp_path: Path) -> None:
    objects = rendered["node-values"]
    by_name = dict(manifests.pods(objects))
    node = checked(manifests.mounted_config(by_name["rel-dnsproxy-node"], objects), tmp_path)
    proxy = checked(manifests.mounted_config(by_name["rel-dnsproxy"], objects), tmp_path)
    assert [str(listen) for listen in node.serve.listen] == ["169.254.53.54:53"]
    assert [str(network) for network in node.serve.allow] == ["169.254.53.54/32", "10.0.0.0/8"]
    assert [str(listen) for listen in proxy.serve.listen] == ["0.0.0.0:5353"]
    for settings in (node, proxy):
        assert settings.learn.ttl == 10
        assert settings.cache.size == 20_000
        assert settings.serve.rate_limit.per_client == 200
        assert [Path(str(key)).name for key in settings.learn.trusted_keys] == ["a.pub", "b.pub"]
        assert len(settings.learn.sources) == 2
    assert by_name["rel-dnsproxy"]["containers"][0]["image"].endswith("@sha256:" + "0123456789abcdef" * 4)


def test_the_helper_publishes_to_a_configmap_with_rights_for_it_alone(
    rendered: Rendered, helm: list[str], tmp_path: Path
) -> None:
    objects = rendered["helper-values"]
    ((_, pod),) = manifests.pods(objects)
    (target,) = checked(manifests.mounted_config(pod, objects), tmp_path).helper.publish
    assert isinstance(target, publishing.KubernetesTarget)
    (role,) = [o for o in objects if o["kind"] == "Role"]
    (binding,) = [o for o in objects if o["kind"] == "RoleBinding"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [target.object],
            "verbs": ["get", "patch"],
        }
    ]
    assert target.object in {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}
    assert binding["subjects"][0] == {
        "kind": "ServiceAccount",
        "name": pod["serviceAccountName"],
        "namespace": "dns",
    }
    assert pod["automountServiceAccountToken"] is True
    # Without it no Pod has a token, and there is no rule.
    values = CHART / "ci" / "helper-values.yaml"
    plain = documents(
        output(*helm, "template", "rel", CHART, "--values", values, "--set", "helper.snapshotConfigMap=")
    )
    assert not {"Role", "RoleBinding"} & {o["kind"] for o in plain}
    assert all(not pod["automountServiceAccountToken"] for _, pod in manifests.pods(plain))


def test_selectors_reach_their_pods_and_no_others(rendered: Rendered) -> None:
    objects = rendered["node-values"]
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in objects
        if "template" in document.get("spec", {})
    }
    for document in objects:
        spec = document.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if not selector or document["kind"] == "ServiceMonitor":
            continue
        selector = selector.get("matchLabels", selector)
        reached = [name for name, held in labels.items() if selector.items() <= held.items()]
        assert reached == [document["metadata"]["name"].removesuffix("-metrics")]


def test_a_change_of_the_configuration_rolls_the_pods(helm: list[str]) -> None:
    def checksum(*more: str) -> str:
        text = output(*helm, "template", "rel", CHART, "--values", CHART / "ci" / "proxy-values.yaml", *more)
        deployment = next(document for document in documents(text) if document["kind"] == "Deployment")
        value: str = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return value

    assert checksum() == checksum()
    assert checksum() != checksum("--set", "config.learn.ttl=11")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("registries=null", "registries"),
        ("upstreams=null", "upstreams"),
        ("node.address=nowhere", "/node/address"),
        ("proxy.replicas=0", "/proxy/replicas"),
        ("image.digest=sha256:1", "/image/digest"),
        ("imagee.tag=1", "imagee"),
        ("trustedKeys.x=none", "/trustedKeys/x"),
        ("sources=null", "sources"),
        ("trustedKeys=null", "trustedKeys"),
        ("sources={}", "/sources/0"),
        ("proxy.enabled=maybe", "/proxy/enabled"),
    ],
)
def test_wrong_values_are_refused_by_name(helm: list[str], change: str, text: str) -> None:
    values = CHART / "ci" / "proxy-values.yaml"
    done = run(*helm, "template", "rel", CHART, "--values", values, "--set", change)
    assert done.returncode != 0
    assert text in done.stderr


@pytest.mark.parametrize("kind", ["proxy", "node"])
def test_a_proxy_that_could_learn_nothing_is_refused(helm: list[str], kind: str) -> None:
    values = CHART / "ci" / "helper-values.yaml"
    done = run(*helm, "template", "rel", CHART, "--values", values, "--set", f"{kind}.enabled=true")
    assert done.returncode != 0
    assert "proxies need sources and trustedKeys" in done.stderr


def test_the_rules_are_those_of_the_repository(rendered: Rendered) -> None:
    """A chart may hold only its own files, so the alerts are there twice."""
    ours, theirs = (DEPLOY / "prometheus" / "alerts.yaml"), CHART / "alerts.yaml"
    assert hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(theirs.read_bytes()).digest()
    (rule,) = [o for o in rendered["node-values"] if o["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load(ours.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_chart_and_the_manifests_say_the_same_of_security(rendered: Rendered) -> None:
    for values, name, file in (
        ("proxy-values", "rel-dnsproxy", "base/deployment.yaml"),
        ("helper-values", "rel-dnsproxy-helper", "helper/deployment.yaml"),
        ("node-values", "rel-dnsproxy-node", "node/daemonset.yaml"),
    ):
        (plain,) = documents((DEPLOY / "kubernetes" / file).read_text())
        theirs = dict(manifests.pods(rendered[values]))[name]
        ours = plain["spec"]["template"]["spec"]
        assert theirs["securityContext"] == ours["securityContext"]
        assert [entry["securityContext"] for entry in manifests.containers(theirs)] == [
            entry["securityContext"] for entry in manifests.containers(ours)
        ]
        assert [manifests.probes(entry) for entry in theirs["containers"]] == [
            manifests.probes(entry) for entry in ours["containers"]
        ]
