from __future__ import annotations

import pytest

from dnsproxy.core.provider import PARAMETERS, Parameter, Partition, Provider, Variant, by_key

CLOUD = Provider(
    key="cloud",
    title="A cloud",
    parameters=(
        Parameter("instance", "demo", "an instance", r"[a-z]+", variants=("own",)),
        Parameter("region", "eu-1", "a region", r"[a-z]{2}-[0-9]"),
        Parameter("endpoint", "s3.example", required=False),
        Parameter("bucket", "b", required=False),
    ),
    variants={
        "shared": Variant("registry.{region}.{domain}", storage=("{endpoint}", "{bucket}.{endpoint}")),
        "own": Variant("{instance}.{domain}", chart="charts.{instance}.{domain}", auth=("auth.{domain}",)),
    },
    partitions=(
        Partition("cn-.*", {"domain": "cloud.cn"}, storage=False),
        Partition(".*", {"domain": "cloud.example"}),
    ),
    storage=("regional", "discover"),
    realm_suffixes=("{domain}",),
    storage_suffixes=("{endpoint}", "store.{domain}"),
)
EU = {"region": "eu-1"}


def test_the_region_says_which_domain_and_the_variant_which_name() -> None:
    assert CLOUD.default_variant == "shared"
    assert CLOUD.host(EU, "shared") == "registry.eu-1.cloud.example."
    assert CLOUD.host({"region": "CN-1"}, "shared") == "registry.cn-1.cloud.cn."
    assert CLOUD.host({**EU, "instance": "Demo"}, "own") == "demo.cloud.example."
    assert CLOUD.suffixes("auth", {"region": "cn-1"}) == ["cloud.cn"]


def test_what_must_be_given_depends_on_the_variant() -> None:
    assert CLOUD.needed("shared") == ["region"]
    assert CLOUD.needed("own") == ["region", "instance"]


def test_values_that_are_wrong() -> None:
    given = {"region": "eu 1", "instance": "demo", "account": "1"}
    assert CLOUD.complaints(given, "shared") == {
        "region": "'eu 1' is not a region; write for example eu-1",
        "instance": "only for variant own of provider cloud",
        "account": "provider cloud has no such key",
    }
    # The whole value, in any case.
    assert CLOUD.complaints({"region": "EU-1"}, "shared") == {}
    assert set(CLOUD.complaints({"region": "eu-1x"}, "shared")) == {"region"}


def test_storage_names_are_made_of_what_is_given() -> None:
    def storage(**given: str) -> list[str]:
        wanted = CLOUD.wanted("c", {**EU, **given}, "shared", chart=False, auth="none", storage="regional")
        return [entry.name for entry in wanted if entry.role == "storage"]

    assert storage(endpoint="s3.example") == ["s3.example."]
    assert storage(endpoint="s3.example", bucket="b") == ["s3.example.", "b.s3.example."]


def test_regional_storage_can_be_had_where_its_names_are_known() -> None:
    full = {**EU, "endpoint": "s3.example"}
    assert CLOUD.has_regional("storage", full, "shared")
    assert not CLOUD.has_regional("storage", EU, "shared")
    assert not CLOUD.has_regional("storage", {**full, "region": "cn-1"}, "shared")
    assert not CLOUD.has_regional("storage", full, "own")
    assert [CLOUD.has_regional("auth", EU, variant) for variant in CLOUD.variants] == [False, True]


def test_the_default_of_storage_is_the_first_that_can_be_had() -> None:
    assert CLOUD.default_storage({**EU, "endpoint": "s3.example"}, "shared") == "regional"
    assert CLOUD.default_storage(EU, "shared") == "discover"
    alone = Provider(
        "alone", "", {"one": Variant("{hostname}", storage=("{endpoint}",))}, storage=("regional",)
    )
    assert alone.default_storage({}, "one") == "regional"
    optional = Provider(
        "o", "", alone.variants, (Parameter("endpoint", "e", required=False),), storage=("regional",)
    )
    assert optional.default_storage({}, "one") == "none"


def test_suffixes_whose_parameters_are_not_given_are_left_out() -> None:
    assert CLOUD.suffixes("storage", EU) == ["store.cloud.example"]
    assert CLOUD.suffixes("storage", {**EU, "endpoint": "s3.example"}) == [
        "s3.example",
        "store.cloud.example",
    ]


def test_all_names_in_order() -> None:
    given = {**EU, "instance": "demo"}
    wanted = CLOUD.wanted("c", given, "own", chart=True, auth="regional", storage="Bucket.Example")
    assert [(entry.name, entry.role, entry.registry) for entry in wanted] == [
        ("demo.cloud.example.", "registry", "c"),
        ("charts.demo.cloud.example.", "chart", "c"),
        ("auth.cloud.example.", "auth", "c"),
        ("bucket.example.", "storage", "c"),
    ]


@pytest.mark.parametrize("value", ["none", "discover"])
def test_none_and_discover_give_no_names(value: str) -> None:
    wanted = CLOUD.wanted("c", EU, "shared", chart=True, auth=value, storage=value)
    assert [entry.role for entry in wanted] == ["registry"]


def test_values_that_make_no_name() -> None:
    with pytest.raises(ValueError, match="white space"):
        CLOUD.host({"region": "a b"}, "shared")


@pytest.mark.parametrize(
    ("providers", "complaint"),
    [
        ((CLOUD, CLOUD), "two providers are called cloud"),
        ((Provider("x", "", {}),), "no variant"),
        ((Provider("x", "", {"a": Variant("{region}.example")}),), "nothing is known of region"),
        (
            (Provider("x", "", {"a": Variant(None)}, (Parameter("tenant", "t"),)),),
            "nothing is known of tenant",
        ),
        (
            (
                Provider(
                    "x",
                    "",
                    {"a": Variant("{domain}")},
                    partitions=(Partition("a", {"domain": "a"}), Partition(".*", {"other": "b"})),
                ),
            ),
            "nothing is known of domain",
        ),
    ],
)
def test_a_provider_that_is_not_consistent(providers: tuple[Provider, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        by_key(providers)


def test_providers_are_found_by_their_keys() -> None:
    assert by_key([CLOUD]) == {"cloud": CLOUD}
    assert len(set(PARAMETERS)) == len(PARAMETERS)
