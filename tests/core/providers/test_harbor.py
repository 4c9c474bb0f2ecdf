from __future__ import annotations

import pytest

from dnsproxy.core.providers.harbor import HARBOR

GIVEN = {"hostname": "harbor.corp.example"}


def names(storage: str, **given: str) -> list[str]:
    wanted = HARBOR.wanted("h", {**GIVEN, **given}, "standard", chart=False, auth="discover", storage=storage)
    return [entry.name for entry in wanted]


def test_harbor_alone() -> None:
    assert HARBOR.default_storage(GIVEN, "standard") == "none"
    assert names("none") == ["harbor.corp.example."]
    # Only Harbor itself is believed to be its token service.
    assert HARBOR.suffixes("auth", GIVEN) == HARBOR.suffixes("storage", GIVEN) == []


@pytest.mark.parametrize(
    ("endpoint", "bucket", "storage"),
    [
        ("minio.corp.example", None, ["minio.corp.example."]),
        ("oss-cn-hangzhou-internal.aliyuncs.com", "h", ["h.oss-cn-hangzhou-internal.aliyuncs.com."]),
        ("s3.eu-central-1.amazonaws.com", "h", ["h.s3.eu-central-1.amazonaws.com."]),
        ("cos.ap-guangzhou.myqcloud.com", "h-125", ["h-125.cos.ap-guangzhou.myqcloud.com."]),
        ("obs.cn-north-4.myhuaweicloud.com", "h", ["h.obs.cn-north-4.myhuaweicloud.com."]),
    ],
)
def test_harbor_before_an_object_store(endpoint: str, bucket: str | None, storage: list[str]) -> None:
    given = {"endpoint": endpoint} | ({"bucket": bucket} if bucket else {})
    assert HARBOR.default_storage({**GIVEN, **given}, "standard") == "regional"
    assert names("regional", **given)[1:] == list(dict.fromkeys([f"{endpoint}.", *storage]))
    assert HARBOR.suffixes("storage", {**GIVEN, **given}) == [endpoint]


@pytest.mark.parametrize(
    "hostname", ["https://harbor.example", "harbor.example:8443", "harbor", "10.0.0.1/x"]
)
def test_what_is_no_host_name(hostname: str) -> None:
    assert set(HARBOR.complaints({"hostname": hostname}, "standard")) == {"hostname"}
