"""What every Kubernetes object of deploy/ must be, wherever it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kubernetes_validate

from tests.deploy.files import Object

# The oldest and the newest version of the API that the manifests are written for.
VERSIONS = ("1.29", "1.37")
# Objects of the Prometheus operator, whose schemas no package ships; what is in them is tested on its own.
CUSTOM = frozenset({"ServiceMonitor", "PrometheusRule"})


def assert_valid(document: Object) -> None:
    """Check against the API's schema; in strict mode an unknown field is an error too."""
    if document["kind"] in CUSTOM:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def pod_of(document: Object) -> Object | None:
    if document["kind"] == "Pod":
        return document
    template: Object | None = document.get("spec", {}).get("template")
    return template


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for document in objects:
        if (pod := pod_of(document)) is not None:
            yield document["metadata"]["name"], pod["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def ours(pod: Object) -> list[Object]:
    """The containers that run dnsproxy for good."""
    return [entry for entry in containers(pod) if entry.get("args", [""])[0] in {"serve", "helper"}]


def breaches(pod: Object, *, host_network: bool) -> list[str]:
    """What the restricted Pod Security Standard forbids; with ``host_network``, what that does not need."""
    found: list[str] = []
    if bool(pod.get("hostNetwork")) != host_network:
        found.append("hostNetwork")
    allowed = {"configMap", "emptyDir", "secret", "projected"} | ({"hostPath"} if host_network else set())
    found += [
        f"volume {volume['name']}" for volume in pod["volumes"] if not set(volume) - {"name"} <= allowed
    ]
    shared = pod.get("securityContext", {})
    for entry in containers(pod):
        context = {**shared, **entry.get("securityContext", {})}
        wanted = {
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "drop": context.get("capabilities", {}).get("drop") == ["ALL"],
            "add": context["capabilities"].get("add", []) == (["NET_BIND_SERVICE"] if host_network else []),
            "seccomp": context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "user": host_network or (context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0),
            "resources": {"requests", "limits"} <= set(entry.get("resources", {})),
        }
        found += [f"{entry['name']}: {name}" for name, good in wanted.items() if not good]
    return found


def volume_source(pod: Object, name: str) -> Object:
    (volume,) = [entry for entry in pod["volumes"] if entry["name"] == name]
    return {key: value for key, value in volume.items() if key != "name"}


def mounted_config(pod: Object, objects: list[Object]) -> str:
    """The text of the configuration that the Pod's dnsproxy reads."""
    (container,) = ours(pod)
    path = container["args"][container["args"].index("--config") + 1]
    for mount in container["volumeMounts"]:
        source = volume_source(pod, mount["name"])
        inside = path == mount["mountPath"] or path.startswith(f"{mount['mountPath']}/")
        if inside and "configMap" in source:
            held = data(source["configMap"]["name"], objects)
            return held[path.rpartition("/")[2]]
    raise AssertionError(f"{path} is not mounted")


def data(name: str, objects: list[Object]) -> dict[str, str]:
    found = [o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name]
    assert len(found) == 1, f"ConfigMap {name}"
    held: dict[str, str] = found[0]["data"]
    return held


def mounts_file(pod: Object, path: str, objects: list[Object]) -> bool:
    """Tell whether dnsproxy finds ``path``: in a ConfigMap, or in a volume that another fills."""
    (container,) = ours(pod)
    for mount in container["volumeMounts"]:
        if path != mount["mountPath"] and not path.startswith(f"{mount['mountPath']}/"):
            continue
        source = volume_source(pod, mount["name"])
        if "configMap" in source:
            return path.rpartition("/")[2] in data(source["configMap"]["name"], objects)
        return any(path in entry.get("command", []) for entry in pod.get("initContainers", []))
    return False


def probes(container: Object) -> dict[str, Any]:
    return {key: value["httpGet"]["path"] for key, value in container.items() if key.endswith("Probe")}
