"""Names that are owned by pattern until a registry has been asked."""

from __future__ import annotations

import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.provider import Provider
from dnsproxy.core.providers import PROVIDERS
from dnsproxy.core.reserved import ReservedNames
from tests.core.test_engine import ede
from tests.messages import addresses, answer, engine, forward, query, read, resolve

PATTERNS = PROVIDERS["acr"].reserved_for("auth", {"region": "cn-hangzhou", "instance": "i"})
BUCKETS = PROVIDERS["acr"].reserved_for("storage", {"region": "cn-hangzhou", "instance": "i"})
RESERVED = [
    *("dockerauth-vpc.cn-hangzhou.aliyuncs.com.", "dockerauth-ee-vpc.eu-central-1.aliyuncs.com."),
    *("DockerAuth-VPC.cn-Shanghai.aliyuncs.com.", "dockerauth-ee-vpc-cn-zhangjiakou.aliyuncs.com."),
]
OTHERS = [
    *(
        "dockerauth.cn-hangzhou.aliyuncs.com.",
        "www.aliyuncs.com.",
        "aliyuncs.com.",
        "dockerauth-vpc.example.",
    ),
    *("a.dockerauth-vpc.cn-hangzhou.aliyuncs.com.", "dockerauth-vpc.cn-hangzhou.notaliyuncs.com."),
    *(
        "dockerauth-vpc.cn-hangzhou.aliyuncs.com.example.",
        r"dockerauth\.x-vpc.cn-hangzhou.aliyuncs.com.",
        ".",
    ),
    r"dockerauth\255-vpc.cn-hangzhou.aliyuncs.com.",
]


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS"])
def test_p42_a_reserved_name_is_servfail_and_never_forwarded(name: str, qtype: str) -> None:
    made = engine()
    made.swap_rules(Ruleset(reserved=PATTERNS))
    for _ in range(2):
        response = answer(made, query(name, qtype, use_edns=0))
        assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [14])
    assert made.in_flight == 0


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("wild", [False, True])
def test_p42_names_beside_them_are_forwarded(name: str, wild: bool) -> None:
    made = engine()
    owned = [Owned("*.oss-cn-hangzhou-internal.aliyuncs.com.", addresses=("10.0.0.1",))] if wild else []
    made.swap_rules(Ruleset(owned, reserved=PATTERNS))
    assert forward(made, query(name)).is_new


def test_p42_a_rule_of_the_region_answers_where_there_is_one() -> None:
    made = engine()
    owned = Owned("*.oss-cn-hangzhou-internal.aliyuncs.com.", addresses=("10.0.0.1",))
    made.swap_rules(Ruleset([owned], reserved=BUCKETS))
    assert addresses(answer(made, query("bucket.oss-cn-hangzhou-internal.aliyuncs.com."))) == ["10.0.0.1"]
    made.swap_rules(Ruleset(reserved=BUCKETS))
    for name in ("bucket.oss-cn-hangzhou-internal.aliyuncs.com.", "oss-cn-hangzhou-internal.aliyuncs.com."):
        assert read(answer(made, query(name))).rcode() == wire.SERVFAIL
    assert forward(made, query("bucket.oss-cn-shanghai-internal.aliyuncs.com.")).is_new


def test_p42_names_of_many_labels_are_found_too() -> None:
    made = Ruleset([Owned("*.owned.example.")], reserved=["a*.b.example."])
    long = names.to_key(f"a{'x' * 60}.b.example.")
    found = made.find_owned(long)
    assert found is not None
    assert found.at(0.0) is None
    assert made.find_owned(names.to_key(f"{'x' * 63}.b.example.")) is None


def test_p42_what_is_learned_takes_the_place_of_the_reservation() -> None:
    made = engine()
    made.swap_rules(Ruleset(reserved=PATTERNS))
    made.update_rules({RESERVED[0]: Owned(RESERVED[0], addresses=("10.0.0.1",))})
    assert addresses(answer(made, query(RESERVED[0]))) == ["10.0.0.1"]
    assert read(answer(made, query(RESERVED[1]))).rcode() == wire.SERVFAIL
    made.rules.reserve(())
    assert forward(made, query(RESERVED[1])).is_new


def test_p42_an_alias_of_a_reserved_name_is_not_answered_by_the_upstream() -> None:
    made = engine()
    made.swap_rules(Ruleset(reserved=PATTERNS))
    response = resolve(made, query("alias.example."), [f"alias.example. 60 IN CNAME {RESERVED[0]}"], rcode=3)
    assert read(response).rcode() == wire.SERVFAIL


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_patterns_of_providers_lie_below_the_domains_that_are_believed(provider: Provider) -> None:
    given = {parameter.key: "x" for parameter in provider.parameters}
    for role in provider.reserved:
        for pattern in provider.reserved_for(role, given):
            assert "*" not in pattern.split(".", 1)[1].rpartition("*.")[2]
            assert any(pattern.endswith(f".{suffix}.") for suffix in provider.suffixes(role, given))
            assert ReservedNames([pattern]).has(names.to_key(pattern.replace("*", "a")))
