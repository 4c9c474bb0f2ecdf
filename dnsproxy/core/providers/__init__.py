"""The registry services that are known, one file each."""

from __future__ import annotations

from dnsproxy.core.provider import by_key
from dnsproxy.core.providers.acr import ACR
from dnsproxy.core.providers.azure import AZURE
from dnsproxy.core.providers.ecr import ECR
from dnsproxy.core.providers.generic import GENERIC
from dnsproxy.core.providers.harbor import HARBOR
from dnsproxy.core.providers.swr import SWR
from dnsproxy.core.providers.tcr import TCR

PROVIDERS = by_key((ACR, ECR, AZURE, TCR, SWR, HARBOR, GENERIC))
