"""What registries of several clouds answer, as documents and captures show it; signatures are made up.

`docs/providers.md` names the sources. Where none shows a response, ``unproven`` says which part was put
together from the forms that the parts have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SIGNED = "s1gned"
_DIGEST = "sha256:526e51f1c889e6e9ef66e398aac57c388d1305c2490f0d235ff9c8346ab42ec1"
_BLOB = "docker/registry/v2/blobs/sha256/52/526e51f1c889e6e9/data"


@dataclass(frozen=True)
class Shape:
    """A registry: how it is configured, what ``/v2/`` asks for, and where a layer is redirected to.

    ``{port}`` in the challenge is where the test listens in place of 443. ``location`` is None for a registry
    that hands out layers itself. ``auth`` and ``storage`` are what is found out.
    """

    name: str
    registry: dict[str, Any]
    host: str
    challenge: str
    location: str | None
    auth: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    token: str = "token"  # noqa: S105 - the key of the answer
    unproven: str = ""
    # A realm and a redirect of somebody else's, to be refused.
    foreign: tuple[str, str] = field(
        default=("https://auth.attacker.example/token", "https://s3.attacker.example/x")
    )


def _registry(provider: str, **keys: Any) -> dict[str, Any]:
    return {
        "name": "far",
        "provider": provider,
        "auth": "discover",
        "storage": "discover",
        "discover": {"repository": "team/app:1.0"},
        **keys,
    }


_ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
_STARPORT = "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com"
_COS = "harbor-1250000000.cos.ap-guangzhou.myqcloud.com"
_OBS = "op-svc-swr-b051-10-38-19-62-3az.obs.cn-north-4.myhuaweicloud.com"
_OSS = "harbor.oss-cn-hangzhou-internal.aliyuncs.com"


def _aws(bucket: str, region: str) -> str:
    return (
        f"https://{bucket}/e501-123456789012-9cb60dc0-7284-5643-3987-da6dac0465f0/04620aac-66a5-4167-8232-55ee7ef6d565"
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20190814T220617Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600"
        f"&X-Amz-Credential=ASIA%2F20190814%2F{region}%2Fs3%2Faws4_request&X-Amz-Signature={SIGNED}"
    )


def _azure(host: str, data: str) -> str:
    return f"https://{data}/?t=63F0223F&h={host}&c=114c2ff3&r=app&d={_DIGEST}&p=pqVpMgk5_1A&s={SIGNED}&v=1&l=false"


def _blob(account: str) -> str:
    return (
        f"https://{account}/dd5ad9c9c29f04b4-46d325e77acf422cbc239cd963f8d78d-4643a09878//{_BLOB}"
        f"?se=2023-09-20T01%3A15%3A41Z&sig={SIGNED}%3D&sp=r&spr=https&sr=b&sv=2018-03-28&regid=46d325e7"
    )


SHAPES = (
    Shape(
        "ecr",
        _registry("ecr", region="eu-central-1", account="123456789012"),
        _ECR,
        f'Basic realm="https://{_ECR}/",service="ecr.amazonaws.com"',
        _aws(_STARPORT, "eu-central-1"),
        storage=(f"{_STARPORT}.",),
        # Another region's bucket is not this registry's.
        foreign=("https://auth.attacker.example/token", _aws("x.s3.us-east-1.amazonaws.com", "us-east-1")),
    ),
    Shape(
        "ecr in China",
        _registry("ecr", region="cn-north-1", account="123456789012"),
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        'Basic realm="https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/",service="ecr.amazonaws.com"',
        _aws("prod-cn-north-1-starport-layer-bucket.s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        storage=("prod-cn-north-1-starport-layer-bucket.s3.cn-north-1.amazonaws.com.cn.",),
        unproven="the host of the bucket in China",
        foreign=("https://auth.attacker.example/token", _aws(_STARPORT, "eu-central-1")),
    ),
    Shape(
        "azure with dedicated data endpoints",
        _registry("azure", region="westeurope", instance="contoso"),
        "contoso.azurecr.io",
        'Bearer realm="https://contoso.azurecr.io:{port}/oauth2/token",service="contoso.azurecr.io"',
        _azure("contoso.azurecr.io", "contoso.westeurope.data.azurecr.io"),
        storage=("contoso.westeurope.data.azurecr.io.",),
        token="access_token",  # noqa: S106 - the key of the answer
        foreign=("https://contoso.azurecr.io.attacker.example/oauth2/token", "https://data.azurecr.io/x"),
    ),
    Shape(
        "azure with managed storage",
        _registry("azure", region="westeurope", instance="contoso"),
        "contoso.azurecr.io",
        'Bearer realm="https://contoso.azurecr.io:{port}/oauth2/token",service="contoso.azurecr.io"',
        _blob("weureplstore28.blob.core.windows.net"),
        storage=("weureplstore28.blob.core.windows.net.",),
        token="access_token",  # noqa: S106 - the same
        foreign=(
            "http://contoso.azurecr.io/oauth2/token",
            _blob("store.blob.core.windows.net.attacker.example"),
        ),
    ),
    Shape(
        "azure in China",
        _registry("azure", region="chinaeast2", instance="contoso"),
        "contoso.azurecr.cn",
        'Bearer realm="https://contoso.azurecr.cn:{port}/oauth2/token",service="contoso.azurecr.cn"',
        _blob("ce2replstore1.blob.core.chinacloudapi.cn"),
        storage=("ce2replstore1.blob.core.chinacloudapi.cn.",),
        token="access_token",  # noqa: S106 - the same
        unproven="the whole response: the global cloud's, with the domains of the documentation for China",
        # The global cloud is another one.
        foreign=("https://contoso.azurecr.io/oauth2/token", _blob("weureplstore28.blob.core.windows.net")),
    ),
    Shape(
        "tcr",
        _registry("tcr", region="ap-guangzhou", instance="harbor-community", variant="default"),
        "harbor-community.tencentcloudcr.com",
        'Bearer realm="https://harbor-community.tencentcloudcr.com:{port}/service/token",service="harbor-registry"',
        f"https://{_COS}/{_BLOB}?q-sign-algorithm=sha1&q-ak=AKID&q-sign-time=1;2&q-signature={SIGNED}",
        storage=(f"{_COS}.",),
        unproven="that layers are redirected to COS, and the bucket's name",
        foreign=(
            "https://tencentcloudcr.com.attacker.example/service/token",
            "https://b.cos.ap-tokyo.myqcloud.com/x",
        ),
    ),
    Shape(
        "tcr by its private name",
        _registry("tcr", region="ap-guangzhou", instance="demo"),
        "demo-vpc.tencentcloudcr.com",
        'Bearer realm="https://demo-vpc.tencentcloudcr.com:{port}/service/token",service="harbor-registry"',
        None,
        unproven="the realm, which may as well be on the instance's own name",
        foreign=("http://demo-vpc.tencentcloudcr.com/service/token", "https://myqcloud.com/x"),
    ),
    Shape(
        "swr",
        _registry("swr", region="cn-north-4"),
        "swr.cn-north-4.myhuaweicloud.com",
        'Bearer realm="https://swr.cn-north-4.myhuaweicloud.com:{port}/swr/auth/v2/registry/auth/",service="dockyard"',
        f"https://{_OBS}:443/{_BLOB}?AccessKeyId=AK&Expires=1736312525&Signature={SIGNED}",
        storage=(f"{_OBS}.",),
        foreign=("https://swr.attacker.example/auth", "https://b.obs.cn-south-1.myhuaweicloud.com/x"),
    ),
    Shape(
        "harbor before OSS",
        _registry(
            "harbor",
            hostname="harbor.corp.example",
            endpoint="oss-cn-hangzhou-internal.aliyuncs.com",
            bucket="harbor",
        ),
        "harbor.corp.example",
        'Bearer realm="https://harbor.corp.example:{port}/service/token",service="harbor-registry"',
        f"https://{_OSS}/{_BLOB}?Expires=1&OSSAccessKeyId=AK&Signature={SIGNED}",
        storage=(f"{_OSS}.",),
        # An external_url that was never changed from http, or to the clients' name.
        foreign=("http://harbor.corp.example/service/token", "https://minio.corp.example/x"),
    ),
    Shape(
        "harbor that hands out layers itself",
        _registry("harbor", hostname="harbor.corp.example"),
        "harbor.corp.example",
        'Bearer realm="https://harbor.corp.example:{port}/service/token",service="harbor-registry"',
        None,
        foreign=("https://harbor.internal.example/service/token", "https://minio.corp.example/x"),
    ),
)
