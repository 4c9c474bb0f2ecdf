"""Harbor, run by yourself, before an object store or none."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Provider, Variant

_HOST = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+"

HARBOR = Provider(
    key="harbor",
    title="Harbor",
    parameters=(
        Parameter("hostname", "harbor.example.com", "Harbor's host name", _HOST),
        Parameter(
            "endpoint",
            "oss-cn-hangzhou-internal.aliyuncs.com",
            "the host of an object store",
            _HOST,
            required=False,
        ),
        Parameter("bucket", "harbor", "a bucket", r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", required=False),
    ),
    variants={"standard": Variant("{hostname}", storage=("{endpoint}", "{bucket}.{endpoint}"))},
    storage=("regional",),
    storage_suffixes=("{endpoint}",),
    notes="""
- The token service is Harbor itself (`/service/token`, at its external_url). A realm on another host is
  an external_url that is not the clients' name: it is refused unless `discover.realm_suffixes` admits it.
- With redirects on, layers come from the object store: from `endpoint` itself with path-style addresses
  (MinIO), from `<bucket>.<endpoint>` otherwise (OSS, S3, COS, OBS). With `storage.redirect.disable`,
  Harbor hands them out itself: leave `endpoint` out.
""",
    sources=(
        "https://goharbor.io/docs/latest/install-config/configure-yml-file/",
        "https://distribution.github.io/distribution/about/configuration/",
        "https://github.com/containerd/containerd/issues/10374",
    ),
)
