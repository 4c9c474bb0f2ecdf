"""Azure Container Registry, through private endpoints. `acr` is Alibaba's."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Partition, Provider, Variant

_DATA = ("{instance}.{region}.data.{domain}",)

_REGIONS = """
australiacentral australiacentral2 australiaeast australiasoutheast austriaeast belgiumcentral
brazilsouth brazilsoutheast canadacentral canadaeast centralindia centralus chilecentral chinaeast
chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3 denmarkeast eastasia eastus eastus2
francecentral francesouth germanynorth germanywestcentral indonesiacentral israelcentral italynorth
japaneast japanwest jioindiacentral jioindiawest koreacentral koreasouth malaysiawest mexicocentral
newzealandnorth northcentralus northeurope norwayeast norwaywest polandcentral qatarcentral
southafricanorth southafricawest southcentralus southeastasia southindia spaincentral swedencentral
swedensouth switzerlandnorth switzerlandwest uaecentral uaenorth uksouth ukwest usdodcentral
usdodeast usgovarizona usgovtexas usgovvirginia westcentralus westeurope westindia westus westus2
westus3
"""

AZURE = Provider(
    key="azure",
    title="Azure Container Registry",
    parameters=(
        Parameter("region", "westeurope", "a region of Azure without spaces", r"[a-z][a-z0-9]*"),
        # With a domain name label the login server's name ends in a hash.
        Parameter("instance", "contoso", "the name of a registry", r"[a-z0-9]{5,50}(?:-[a-z0-9]+)?"),
    ),
    variants={
        "global": Variant("{instance}.{domain}", storage=_DATA, meaning="the login server"),
        "regional": Variant(
            "{instance}.{region}.geo.{domain}", storage=_DATA, meaning="the endpoint of one geo-replica"
        ),
    },
    partitions=(
        Partition(r"china.*", {"domain": "azurecr.cn", "blob": "blob.core.chinacloudapi.cn"}),
        Partition(r"(?:usgov|usdod).*", {"domain": "azurecr.us", "blob": "blob.core.usgovcloudapi.net"}),
        Partition(r".*", {"domain": "azurecr.io", "blob": "blob.core.windows.net"}),
    ),
    storage=("regional",),
    realm_suffixes=("{domain}",),
    storage_suffixes=("data.{domain}", "{blob}"),
    regions=frozenset(_REGIONS.split()),
    notes="""
- The token service is the login server itself (`/oauth2/token`).
- With a private endpoint, or with dedicated data endpoints, layers come from
  `<registry>.<region>.data.azurecr.io`; without, from some account below `blob.core.windows.net`: then
  `storage` is `discover`.
- Each geo-replica has a data endpoint. The global name may lead to any of them: list those of the other
  regions under `names`.
- Inside the virtual network the names are aliases into `privatelink.azurecr.io`; the helper follows them.
""",
    sources=(
        "https://learn.microsoft.com/en-us/azure/container-registry/container-registry-endpoint-reference",
        "https://learn.microsoft.com/en-us/azure/container-registry/container-registry-dedicated-data-endpoints",
        "https://learn.microsoft.com/en-us/azure/container-registry/container-registry-firewall-rules",
        "https://learn.microsoft.com/en-us/azure/container-registry/container-registry-private-link",
        "https://docs.azure.cn/en-us/container-registry/container-registry-dedicated-data-endpoints",
    ),
)
