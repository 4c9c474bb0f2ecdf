"""What a configuration makes, and what it takes over from the one before."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import StartError
from dnsproxy.outfit import Outfit, build_engine
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from tests.certificates import make_certificate
from tests.messages import answer, forward, query, read
from tests.test_server import free_port, settings


def test_an_upstream_that_is_this_proxy_is_refused() -> None:
    port = free_port()
    with pytest.raises(StartError, match="own listening address"):
        build_engine(settings(f"127.0.0.1:{port}", port))


@pytest.mark.parametrize("upstream", ["tls://{own}", "https://{own}/dns-query#dns.example"])
def test_an_upstream_that_is_this_proxys_own_tls_listener_is_refused(upstream: str) -> None:
    tls = {"listen": ["127.0.0.1:8853"], "cert_file": "/c.pem", "key_file": "/k.pem"}
    forward = {"upstreams": [upstream.format(own="127.0.0.1:8853")]}
    with pytest.raises(StartError, match="own listening address"):
        build_engine(Settings.model_validate({"serve": {"tls": tls}, "forward": forward}))


def test_bootstrap_resolvers_are_not_this_proxy() -> None:
    port = free_port()
    given = settings("127.0.0.1:9", port)
    forward = given.forward.model_copy(update={"bootstrap": [Endpoint("127.0.0.1", port)]})
    with pytest.raises(StartError, match="own listening address"):
        Outfit(given.model_copy(update={"forward": forward}))


def test_an_authority_of_upstreams_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    forward = {"upstreams": ["tls://10.0.0.5"], "ca_file": str(tmp_path / "none.pem")}
    with pytest.raises(StartError, match=r"forward\.ca_file: .*No such file"):
        Outfit(Settings.model_validate({"forward": forward}))


def test_zones_have_their_own_upstreams_and_share_what_they_have_in_common() -> None:
    other = settings("127.0.0.1:8").forward.upstreams
    given = settings("127.0.0.1:9")
    zones = {"corp.example.": [*other, *given.forward.upstreams], "one.example.": other}
    forward = given.forward.model_copy(update={"zones": zones})
    engine = build_engine(given.model_copy(update={"forward": forward}))
    assert [upstream.name for upstream in engine.upstreams()] == ["127.0.0.1:9", "127.0.0.1:8"]
    assert len(engine.groups) == 3


def forwarding(upstreams: list[str], zones: dict[str, list[str]] | None = None, **probe: int) -> Settings:
    forward = {"upstreams": upstreams, "zones": zones or {}, "probe": probe}
    return Settings.model_validate({"forward": forward, "serve": {"listen": ["127.0.0.1:5353"]}})


def test_counts_and_the_health_of_upstreams_go_on() -> None:
    before = Outfit(forwarding(["192.0.2.1", "192.0.2.2"]))
    before.engine.stats.cache_hits = 7
    for upstream in before.engine.upstreams():
        upstream.record_response(0.25)
    after = Outfit(forwarding(["192.0.2.2", "192.0.2.3", "tcp://192.0.2.1"]), before)
    assert after.engine.stats is before.engine.stats
    known = {upstream.name: upstream.stats.rtt for upstream in after.engine.upstreams()}
    assert known == {"192.0.2.2:53": 0.25, "192.0.2.3:53": None, "tcp://192.0.2.1:53": None}


def test_every_upstream_has_the_source_and_another_source_is_another_upstream() -> None:
    def made(source: str | None, earlier: Outfit | None = None) -> Outfit:
        forward = {
            "upstreams": ["192.0.2.1"],
            "zones": {"corp.example": ["tcp://192.0.2.2"]},
            "bootstrap": ["192.0.2.3"],
            "source": source,
        }
        serve = {"listen": ["127.0.0.1:5353"]}
        return Outfit(Settings.model_validate({"forward": forward, "serve": serve}), earlier)

    before = made("10.0.0.5")
    held = list(before.engine.upstreams())
    assert {upstream.source for upstream in (*held, *before.bootstrap)} == {Source("10.0.0.5")}
    assert list(made("10.0.0.5", before).engine.upstreams()) == held
    assert not set(made("eth0", before).engine.upstreams()) & set(held)
    assert {upstream.source for upstream in made(None).engine.upstreams()} == {None}


def test_an_upstream_that_is_judged_otherwise_is_another_one() -> None:
    before = Outfit(forwarding(["192.0.2.1"], fall=3))
    (held,) = before.engine.upstreams()
    (same,) = Outfit(forwarding(["192.0.2.1"], fall=3), before).engine.upstreams()
    (other,) = Outfit(forwarding(["192.0.2.1"], fall=5), before).engine.upstreams()
    assert same is held
    assert other is not held


@pytest.mark.parametrize(
    ("before", "after", "outdated"),
    [
        ((["192.0.2.1"], {}), (["192.0.2.1"], {}), set()),
        ((["192.0.2.1", "192.0.2.2"], {}), (["192.0.2.2", "192.0.2.3"], {}), set()),
        ((["192.0.2.1"], {}), (["192.0.2.3"], {}), {(".", ".")}),
        ((["192.0.2.1"], {"corp": ["192.0.2.2"]}), (["192.0.2.1"], {}), {("corp", ".")}),
        ((["192.0.2.1"], {}), (["192.0.2.1"], {"corp": ["192.0.2.2"]}), {(".", "corp")}),
        ((["192.0.2.1"], {}), (["192.0.2.1"], {"corp": ["192.0.2.1"]}), set()),
        (
            (["192.0.2.1"], {"corp": ["192.0.2.2"], "a.corp": ["192.0.2.3"]}),
            (["192.0.2.1"], {"corp": ["192.0.2.2"]}),
            {("a.corp", "."), ("a.corp", "corp")},
        ),
    ],
)
def test_which_cached_answers_came_from_elsewhere(
    before: tuple[list[str], dict[str, list[str]]],
    after: tuple[list[str], dict[str, list[str]]],
    outdated: set[tuple[str, str]],
) -> None:
    found = Outfit(forwarding(*after)).outdated_zones(Outfit(forwarding(*before)))
    assert found == {(names.to_key(old), names.to_key(new)) for old, new in outdated}


def test_every_reason_is_told(tmp_path: Path) -> None:
    make_certificate(tmp_path, "dns.example")
    tls = {"listen": ["127.0.0.1:8853"], "cert_file": str(tmp_path / "no.pem"), "key_file": "/no.key"}
    forward = {"upstreams": ["tls://10.0.0.5"], "ca_file": str(tmp_path / "none.pem")}
    with pytest.raises(StartError) as caught:
        Outfit(Settings.model_validate({"serve": {"tls": tls}, "forward": forward}))
    first, second = caught.value.reasons
    assert first.startswith("serve.tls: ")
    assert second.startswith("forward.ca_file: ")


def test_p37_the_listeners_of_the_configuration_are_designated_by_the_name_of_the_certificate(
    tmp_path: Path,
) -> None:
    file = make_certificate(tmp_path, "dns.example")
    tls = {"listen": ["127.0.0.1:8853"], "cert_file": str(file), "key_file": str(file)}
    given = {"serve": {"tls": tls}, "forward": {"upstreams": ["127.0.0.1:9"]}}
    made = build_engine(Settings.model_validate(given))
    (records,) = read(answer(made, query("_dns.resolver.arpa.", "SVCB"))).answer
    assert {record.target.to_text() for record in records} == {"dns.example."}
    assert len(records) == 2


def test_p42_names_of_a_role_are_reserved_until_it_is_discovered() -> None:
    registry = {"name": "hz", "region": "cn-hangzhou", "instance": "i"}
    given = {"registries": [registry], "forward": {"upstreams": ["127.0.0.1:9"]}}
    made = Outfit(Settings.model_validate(given))
    host = "dockerauth-ee-vpc.cn-shanghai.aliyuncs.com."
    assert read(answer(made.engine, query(host))).rcode() == 2
    # What is discovered may need no name at all.
    table = replace(made.table, discovered=frozenset({("hz", "auth")}))
    made.update(table, [])
    assert forward(made.engine, query(host)).is_new
    made.swap_table(ServedTable(), made.engine)
    assert read(answer(made.engine, query(host))).rcode() == 2
    again = Outfit(Settings.model_validate(given), made, table=table)
    assert forward(again.engine, query(host)).is_new
    plain = Outfit(Settings.model_validate({**given, "registries": [{**registry, "auth": "regional"}]}))
    assert forward(plain.engine, query(host)).is_new


def test_the_engine_knows_the_load_balancers() -> None:
    def made(*ranges: str) -> AccessList | None:
        serve = {"listen": ["127.0.0.1:5353"], "proxy_protocol": list(ranges)}
        forward = {"upstreams": ["192.0.2.1"]}
        return Outfit(Settings.model_validate({"forward": forward, "serve": serve})).engine.features.proxies

    assert made() is None
    proxies = made("10.0.0.5/32", "fd00::/64")
    assert proxies is not None
    assert [proxies.allows(ip_address(text).packed) for text in ("10.0.0.5", "fd00::1", "10.0.0.6")] == [
        *(True, True, False),
    ]
