from __future__ import annotations

from dnsproxy.config import parse
from dnsproxy.ops.doctor_findings import fail, ok
from dnsproxy.ops.doctor_ground import LABEL, Ground, Site
from dnsproxy.ops.known import Known, KnownName
from dnsproxy.ops.proxy_settings import from_settings

OSS = "oss-cn-hangzhou-internal.aliyuncs.com."
REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
SETTINGS = from_settings(
    parse("registries: [{name: hz, region: cn-hangzhou, instance: xxxxxx, auth: none, storage: regional}]")
)


def test_without_knowledge_the_configuration_gives_the_names() -> None:
    ground = Ground(SETTINGS, None, "", Site())
    assert [target.name for target in ground.targets] == [REGISTRY, OSS, f"{LABEL}.{OSS}"]
    assert [target.wild for target in ground.targets] == [False, False, True]
    assert ground.expected(ground.targets[0]).addresses is None
    assert ground.names.find(f"bucket.{OSS}") is not None


def test_with_knowledge_it_says_what_to_expect() -> None:
    entry = KnownName("a.example.", "other", "hz", ("10.0.0.1",), None, None, None)
    ground = Ground(SETTINGS, Known("x", True, 1, (entry,)), "", Site())
    (target,) = ground.targets
    assert (ground.expected(target).addresses, ground.expected(target).exact) == (("10.0.0.1",), True)
    assert ground.web() == []


def test_a_wildcard_is_connected_to_only_when_it_differs_from_its_parent() -> None:
    ground = Ground(SETTINGS, None, "", Site())
    for target in ground.targets:
        target.answered = ("100.118.28.43",)
    assert [target.name for target in ground.web()] == [REGISTRY, OSS]
    ground.targets[2].answered = ("100.118.28.44",)
    assert [target.name for target in ground.web()] == [REGISTRY, OSS, f"{LABEL}.{OSS}"]


def test_a_failure_breaks_its_target_and_an_ok_does_not() -> None:
    ground = Ground(SETTINGS, None, "", Site())
    first, second, _ = ground.targets
    ground.note(first, ok("route", first.name, "fine"), "no route")
    ground.note(second, fail("route", second.name, "none", "add one"), "no route")
    assert (first.broken, second.broken) == (None, "no route")


def test_findings_of_a_hop_stand_in_the_order_of_the_names() -> None:
    ground = Ground(SETTINGS, None, "", Site())
    first, second, _ = ground.targets
    ground.add(ok("a", second.name, ""), ok("a", first.name, ""))
    ground.sort("a")
    assert [finding.subject for finding in ground.findings] == [
        REGISTRY.removesuffix("."),
        OSS.removesuffix("."),
    ]
