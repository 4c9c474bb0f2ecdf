"""Amazon Elastic Container Registry, private registries, through VPC endpoints."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Partition, Provider, Variant

# api.ecr is where clients get the password of a registry (GetAuthorizationToken), for 12 hours.
_API = ("api.ecr.{region}.{domain}",)

_REGIONS = """
af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6
ap-southeast-7 ca-central-1 ca-west-1 cn-north-1 cn-northwest-1 eu-central-1 eu-central-2 eu-north-1
eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1 me-south-1
mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-1 us-west-2
"""

ECR = Provider(
    key="ecr",
    title="Amazon Elastic Container Registry (ECR), private registries",
    parameters=(
        # The isolated regions (us-iso-east-1 ...) have domains that nothing here was checked against.
        Parameter("region", "eu-central-1", "a region of AWS", r"[a-z]{2}(?:-gov)?-[a-z]+-[0-9]{1,2}"),
        Parameter("account", "'123456789012'", "an account id of 12 digits", r"[0-9]{12}"),
    ),
    variants={
        "standard": Variant(
            "{account}.dkr.ecr.{region}.{domain}",
            auth=_API,
            storage=("prod-{region}-starport-layer-bucket.s3.{region}.{domain}",),
            meaning="`dkr.ecr`, IPv4",
        ),
        "fips": Variant(
            "{account}.dkr.ecr-fips.{region}.{domain}",
            auth=("ecr-fips.{region}.{domain}",),
            meaning="`dkr.ecr-fips`, in the regions that have it",
        ),
        "dual-stack": Variant(
            "{account}.dkr-ecr.{region}.{dual}",
            auth=("ecr.{region}.{api}",),
            meaning="`dkr-ecr`, IPv4 and IPv6",
        ),
    },
    partitions=(
        Partition(
            r"cn-.*",
            {
                "domain": "amazonaws.com.cn",
                "dual": "on.amazonwebservices.com.cn",
                "api": "api.amazonwebservices.com.cn",
            },
            storage=False,
        ),
        Partition(
            r".*-gov-.*", {"domain": "amazonaws.com", "dual": "on.aws", "api": "api.aws"}, storage=False
        ),
        Partition(r".*", {"domain": "amazonaws.com", "dual": "on.aws", "api": "api.aws"}),
    ),
    # The challenge is Basic: there is no realm to be found out.
    auth="regional",
    storage=("regional", "discover"),
    storage_suffixes=("s3.{region}.{domain}", "s3.dualstack.{region}.{domain}"),
    basic="passwords come from api.ecr (`aws ecr get-login-password`), the auth name of this registry",
    regions=frozenset(_REGIONS.split()),
    notes="""
- `/v2/` answers 401 with a Basic challenge, so there is no token service. Clients get a password that
  lasts 12 hours from `api.ecr` (`aws ecr get-login-password`), which is owned as the auth name.
- VPC endpoints are answered by Amazon's DNS in their VPC only: the helper asks there.
- A gateway endpoint for S3 serves its own VPC alone and leaves the bucket's addresses public. From
  elsewhere layers come through an interface endpoint for S3, with private DNS for it.
- How the layer bucket is called in China and GovCloud, and for FIPS and dual-stack names, is not
  documented: there `storage` is `discover`, or a host.
- A pull-through cache may redirect to its upstream for an image that it does not hold yet.
""",
    sources=(
        "https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html",
        "https://docs.aws.amazon.com/general/latest/gr/ecr.html",
        "https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-requests.html",
        "https://github.com/awsdocs/amazon-ecr-user-guide/issues/24",
        "https://github.com/NVIDIA/enroot/issues/59",
        "https://github.com/aws/containers-roadmap/issues/2304",
    ),
)
