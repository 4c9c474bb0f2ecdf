from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.config import parse
from dnsproxy.core.registry import Wanted
from dnsproxy.ops.hosts import Rot, audit_hosts, export_hosts, import_hosts
from dnsproxy.ops.hostsfile import parse_hosts, split_hosts
from dnsproxy.ops.known import Known, KnownName

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
CHART = "xxxxxx-chart-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com"
OSS = "oss-cn-hangzhou-internal.aliyuncs.com"
BUCKET = f"cri-xxxxxx-registry.{OSS}"
FILE = f"""\
127.0.0.1 localhost
ff02::1 ip6-allnodes
10.94.205.198 {REGISTRY} {CHART}
100.103.7.181 {AUTH}
100.118.28.43 {BUCKET}
100.118.28.44 other-bucket.{OSS}
10.0.0.9 printer.corp.example
100.103.7.56 registry.cn-shanghai.aliyuncs.com
"""


def wanted(text: str, *, pin: bool = False, everything: bool = False) -> dict[str, Wanted]:
    """The names that a configuration with the imported section has; it must be a good one."""
    imported = import_hosts(parse_hosts(text), pin=pin, everything=everything)
    return {entry.name.removesuffix("."): entry for entry in parse(imported.text).wanted()}


def test_the_registry_is_recognised_with_region_instance_auth_and_buckets() -> None:
    text = import_hosts(parse_hosts(FILE)).text
    (registry,) = parse(text).registries
    assert (registry.region, registry.instance, registry.chart) == ("cn-hangzhou", "xxxxxx", True)
    assert (registry.auth, registry.storage) == (f"{AUTH}.", f"{BUCKET}.")
    found = wanted(FILE)
    assert set(found) == {REGISTRY, CHART, AUTH, BUCKET, f"other-bucket.{OSS}"}
    assert not any(entry.addresses for entry in found.values())


def test_pins_keep_the_addresses_of_the_file() -> None:
    found = wanted(FILE, pin=True)
    assert found[REGISTRY].addresses == ("10.94.205.198",)
    assert found[BUCKET].addresses == ("100.118.28.43",)
    assert found["registry.cn-shanghai.aliyuncs.com"].addresses == ("100.103.7.56",)
    assert "printer.corp.example" not in found


def test_words_that_yaml_takes_for_text_are_not_quoted() -> None:
    text = import_hosts(parse_hosts(FILE), pin=True).text
    assert "role: registry\n" in text
    # An instance may be called `null`, or 17.
    assert 'instance: "xxxxxx"\n' in text


def test_everything_pins_the_names_of_others() -> None:
    found = wanted(FILE, everything=True)
    assert found["printer.corp.example"].addresses == ("10.0.0.9",)
    assert found[REGISTRY].addresses == ()
    assert "localhost" not in found


def test_what_is_left_out_is_told_with_the_reason() -> None:
    left_out = import_hosts(parse_hosts(FILE)).left_out
    assert [line.partition(": ")[0] for line in left_out] == [
        "line 1",
        "line 2",
        "printer.corp.example",
        "registry.cn-shanghai.aliyuncs.com",
    ]
    assert left_out[0] == "line 1: localhost: 127.0.0.1 is a loopback address"
    assert left_out[1] == "line 2: ip6-allnodes: ff02::1 is a multicast address"
    assert "--all" in left_out[2]
    assert "public" in left_out[3]


@given(
    st.lists(
        st.sampled_from(["10.0.0.1", "127.0.0.1", "fe80::1", "::", "x", "${A}", "a.example", "#", REGISTRY]),
        max_size=6,
    ).map(" ".join)
)
def test_no_line_with_words_is_dropped_silently(line: str) -> None:
    imported = import_hosts(split_hosts(line), everything=True)
    told = imported.left_out + imported.unread
    assert told or "- name:" in imported.text or not line.partition("#")[0].strip()


def test_the_endpoint_of_a_region_means_all_its_buckets() -> None:
    (registry,) = parse(
        import_hosts(parse_hosts(f"10.0.0.1 {REGISTRY}\n100.118.28.43 {OSS}")).text
    ).registries
    assert registry.storage == "regional"


def test_names_without_an_instance_make_a_generic_registry() -> None:
    text = "10.0.0.1 registry-vpc.cn-beijing.aliyuncs.com\n10.0.0.2 dockerauth-vpc.cn-beijing.aliyuncs.com\n"
    (registry,) = parse(import_hosts(parse_hosts(text)).text).registries
    assert (registry.name, registry.provider) == ("cn-beijing", "generic")
    assert [(name.name, name.role) for name in registry.names] == [
        ("registry-vpc.cn-beijing.aliyuncs.com.", "registry"),
        ("dockerauth-vpc.cn-beijing.aliyuncs.com.", "auth"),
    ]


def test_two_instances_of_one_region() -> None:
    text = f"10.0.0.1 {REGISTRY}\n10.0.0.2 yyy-registry-vpc.cn-hangzhou.cr.aliyuncs.com\n10.0.0.3 {AUTH}\n"
    registries = parse(import_hosts(parse_hosts(text)).text).registries
    assert [(r.instance, r.auth) for r in registries] == [("xxxxxx", f"{AUTH}."), ("yyy", f"{AUTH}.")]


def test_several_addresses_of_a_name() -> None:
    text = f"10.0.0.1 {REGISTRY}\nfd00::1 {REGISTRY}\n10.0.0.1 {REGISTRY}\n"
    assert wanted(text, pin=True)[REGISTRY].addresses == ("10.0.0.1", "fd00::1")


@pytest.mark.parametrize("instance", ["123", "1e5", "0x1f", "on", "null", "y"])
def test_an_instance_that_yaml_would_take_for_something_else(instance: str) -> None:
    text = f"10.0.0.1 {instance}-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
    (registry,) = parse(import_hosts(parse_hosts(text)).text).registries
    assert registry.instance == instance


def test_nothing_to_import() -> None:
    assert import_hosts(parse_hosts("127.0.0.1 localhost")).text == "registries: []\n"


label = st.text("abcxyz0159-_", min_size=1, max_size=6)
suffixes = st.sampled_from(
    [
        *("-registry-vpc.cn-hangzhou.cr.aliyuncs.com", "-chart-vpc.us-east-1.cr.aliyuncs.com"),
        *(f".{OSS}", ".corp.example", ".oss-cn-hangzhou.aliyuncs.com"),
    ]
)
hosts_lines = st.builds(lambda a, n, s: f"{a} {n}{s}", st.ip_addresses().map(str), label, suffixes)


@given(lines=st.lists(hosts_lines, max_size=6), pin=st.booleans(), everything=st.booleans())
def test_what_is_printed_is_always_a_configuration(lines: list[str], *, pin: bool, everything: bool) -> None:
    wanted("\n".join(lines), pin=pin, everything=everything)


# -- export and audit


def entry(name: str, *addresses: str, age: float | None = 8.4) -> KnownName:
    return KnownName(f"{name}.", "registry", "hz", addresses, "helper-a", 7, age)


NAMES = (entry(REGISTRY, "10.0.0.1", "10.0.0.2"), entry(f"*.{OSS}", "100.118.28.43"), entry(AUTH))
KNOWN = Known("the proxy", True, 7, NAMES)


def test_exported_lines_say_what_they_are() -> None:
    lines = export_hosts(KNOWN, 1_764_000_000.0).splitlines()
    assert lines[0] == (
        "# dnsproxy hosts export, 2025-11-24T16:00:00Z, from the proxy, serial 7; "
        "the oldest confirmation is 8 s old."
    )
    assert lines[1].startswith("# LAST RESORT.")
    assert lines[3:] == [
        f"10.0.0.1 {REGISTRY} # hz, registry, confirmed 8 s ago",
        f"10.0.0.2 {REGISTRY} # hz, registry, confirmed 8 s ago",
        f"# *.{OSS}: a hosts file has no wildcards; list each bucket under `names`",
        f"# {AUTH}: no address is known",
    ]
    pinned = Known("x", True, 0, (entry("a.example", "10.0.0.1", age=None),))
    assert export_hosts(pinned, 0.0).splitlines()[-1] == "10.0.0.1 a.example # hz, registry"


def test_an_export_is_found_again_by_the_audit() -> None:
    found = audit_hosts(parse_hosts(export_hosts(KNOWN, 0.0)), KNOWN)
    assert [(line.number, line.rot) for line in found] == [(4, Rot.SHADOW), (5, Rot.SHADOW)]


def test_lines_that_rot() -> None:
    lines = [
        *("127.0.0.1 localhost", f"10.9.9.9 {REGISTRY} alias", f"100.118.28.43 b.{OSS}"),
        *(f"10.1.1.1 {CHART}", f"1.1.1.1 {AUTH}"),
    ]
    text = "\n".join(lines)
    found = audit_hosts(parse_hosts(text), KNOWN)
    assert [(line.number, line.rot, line.wrong) for line in found] == [
        (2, Rot.STALE, True),
        (3, Rot.SHADOW, True),
        (4, Rot.UNMANAGED, False),
        (5, Rot.STALE, True),
    ]
    assert found[0].text == f"10.9.9.9 {REGISTRY}: stale, the proxy answers 10.0.0.1, 10.0.0.2"
    assert found[3].text == f"1.1.1.1 {AUTH}: stale, the proxy answers nothing yet"
    assert "does not have" in found[2].text
