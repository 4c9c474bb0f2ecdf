from __future__ import annotations

import pytest

from dnsproxy.core.providers.ecr import ECR

GIVEN = {"account": "123456789012", "region": "eu-central-1"}


def names(variant: str = "standard", storage: str = "regional", **given: str) -> list[tuple[str, str]]:
    wanted = ECR.wanted("f", {**GIVEN, **given}, variant, chart=False, auth="regional", storage=storage)
    return [(entry.role, entry.name) for entry in wanted]


def test_the_names_of_the_user_guide() -> None:
    assert names() == [
        ("registry", "123456789012.dkr.ecr.eu-central-1.amazonaws.com."),
        ("auth", "api.ecr.eu-central-1.amazonaws.com."),
        ("storage", "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com."),
    ]


@pytest.mark.parametrize(
    ("variant", "region", "registry", "auth"),
    [
        (
            "fips",
            "us-gov-west-1",
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com.",
            "ecr-fips.us-gov-west-1.amazonaws.com.",
        ),
        ("dual-stack", "us-east-2", "123456789012.dkr-ecr.us-east-2.on.aws.", "ecr.us-east-2.api.aws."),
        (
            "standard",
            "cn-north-1",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn.",
            "api.ecr.cn-north-1.amazonaws.com.cn.",
        ),
        (
            "dual-stack",
            "cn-north-1",
            "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn.",
            "ecr.cn-north-1.api.amazonwebservices.com.cn.",
        ),
    ],
)
def test_partitions_and_variants(variant: str, region: str, registry: str, auth: str) -> None:
    assert names(variant, "none", region=region) == [("registry", registry), ("auth", auth)]
    # Nobody has told how the bucket is called there.
    assert not ECR.has_regional("storage", {**GIVEN, "region": region}, variant)
    assert ECR.default_storage({**GIVEN, "region": region}, variant) == "discover"


@pytest.mark.parametrize("account", ["12345678901", "1234567890123", "12345678901x", "١٢٣٤٥٦٧٨٩٠١٢"])
def test_what_is_no_account(account: str) -> None:
    assert set(ECR.complaints({**GIVEN, "account": account}, "standard")) == {"account"}


@pytest.mark.parametrize(
    "region", ["eu-central", "us-iso-east-1", "us-isob-east-1", "eu central-1", "eu_central_1"]
)
def test_what_is_no_region_that_is_known(region: str) -> None:
    assert set(ECR.complaints({**GIVEN, "region": region}, "standard")) == {"region"}


@pytest.mark.parametrize(
    "region", ["eu-central-1", "us-gov-east-1", "ap-southeast-7", "cn-northwest-1", "il-central-1"]
)
def test_regions(region: str) -> None:
    assert ECR.complaints({**GIVEN, "region": region}, "standard") == {}


def test_only_buckets_of_the_region_are_believed() -> None:
    assert ECR.suffixes("auth", GIVEN) == []
    assert ECR.suffixes("storage", GIVEN) == [
        "s3.eu-central-1.amazonaws.com",
        "s3.dualstack.eu-central-1.amazonaws.com",
    ]
