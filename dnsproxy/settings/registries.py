"""The registries to reach, and the names that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dnsproxy.core.guard import Limits
from dnsproxy.core.registry import NAMELESS, Override, Sought, Wanted, acr_host, acr_names, with_overrides
from dnsproxy.settings.discovery import DiscoverSettings
from dnsproxy.settings.values import Addresses, Model, Name, Network, Ports, Range, Role


class NameSettings(Model):
    """A name listed by hand: learned when neither addresses nor cname is given."""

    name: Name
    """The name; `*.` in front covers everything below it, not the name itself."""
    role: Role = "other"
    """A label for status, logs and metrics. The first name whose role is registry is also the one that
    discovery asks, for generic.
    """
    addresses: Addresses = Field(default_factory=list)
    """Pinned: always these IPv4 or IPv6 addresses, never learned. Not together with `cname`."""
    cname: Name | None = None
    """Learned through this other name, such as a PrivateLink endpoint. Not together with `addresses`, nor for
    a wildcard.
    """
    allowed: list[Range] = Field(default_factory=list)
    """The ranges that its addresses may be in, public ones too. By default the internal ranges: RFC 1918,
    100.64.0.0/10 and fc00::/7.
    """
    ports: Ports | None = None
    """TCP ports that it must answer on, in place of `learn.verify.ports`; an empty list: it is not probed.
    null: as there.
    """

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.addresses and self.cname:
            raise ValueError("give addresses or cname, not both")
        if self.cname and self.name.startswith("*."):
            raise ValueError("a wildcard cannot have a cname")
        return self


class NetworkSettings(Model):
    """What this side's network makes of the addresses of a registry."""

    routed: list[Range] = Field(default_factory=list)
    """Ranges that the route tables of this side reach. A learned address outside them is reported, not
    refused. Without any, nothing is reported.
    """
    conflicts: list[Range] = Field(default_factory=list)
    """Ranges that this side uses itself. An address in one of them is refused, unless a more specific range
    of `routed` holds it.
    """
    allow_public: bool = False
    """Answer public addresses too; for generic registries only."""


class RegistrySettings(Model):
    """A registry instance and the names that belong to it."""

    name: str = Field(min_length=1, max_length=64)
    """Label in status, logs and metrics; no two alike."""
    provider: Literal["acr", "generic"] = "acr"
    """`acr` (Alibaba Cloud Container Registry, Enterprise Edition) knows its names from region and instance;
    `generic` has those under `names` only.
    """
    region: str | None = None
    """acr: must be given. The instance's host is `<instance>-registry-vpc.<region>.cr.aliyuncs.com`."""
    instance: str | None = None
    """acr: must be given; see `region`."""
    chart: bool = False
    """acr: also `<instance>-chart-vpc.<region>.cr.aliyuncs.com`, for Helm charts."""
    auth: Literal["discover", "regional", "none"] | Name = "discover"
    """The host that hands out tokens. `discover`: the helper asks `https://<registry>/v2/` and takes the host
    that it names, or none when the instance has taken over its own authentication. `regional`, for acr:
    `dockerauth-vpc.<region>.aliyuncs.com`, right for most instances, not for all. `none`: nothing to
    learn; the default for generic. Or a host, as the WWW-Authenticate header of `/v2/` names it.
    """
    storage: Literal["regional", "discover", "none"] | Name = "regional"
    """Where image layers come from. `regional`, for acr: `oss-<region>-internal.aliyuncs.com` and every
    bucket below it. `discover`: one bucket, where a layer of `discover.repository` is redirected to; for
    acr, without a repository, the default bucket of the instance whose id the registry tells. `none`:
    nothing to learn; the default for generic. Or a host: one bucket.
    """
    discover: DiscoverSettings = DiscoverSettings()
    """How the helper asks the registry, over HTTPS; used for what is set to `discover`."""
    names: list[NameSettings] = Field(default_factory=list)
    """Further names, or others in place of the above. A name that has neither `addresses` nor `cname` is
    learned.
    """
    network: NetworkSettings = NetworkSettings()
    """What this side's network makes of the addresses of this registry."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_generic(cls, given: Any) -> Any:  # noqa: ANN401 - not validated yet
        if not isinstance(given, dict) or given.get("provider") != "generic":
            return given
        discover = given.get("discover", {})
        if isinstance(discover, dict):
            discover = {"realm_suffixes": [], "storage_suffixes": [], **discover}
        return {"auth": "none", "storage": "none", **given, "discover": discover}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider == "acr" and not (self.region and self.instance):
            raise ValueError("provider acr needs region and instance")
        if self.provider == "generic" and not self.names:
            raise ValueError("provider generic needs names")
        if self.provider == "generic" and "regional" in {self.auth, self.storage}:
            raise ValueError("regional is for provider acr")
        if self.sought() and not self.host:
            raise ValueError("discover needs a name with role registry, or discover.host")
        if self.provider == "acr" and self.network.allow_public:
            raise ValueError(
                "network.allow_public: acr names are internal; give the one name `allowed` ranges"
            )
        self.wanted()  # raises ValueError when region and instance do not make valid names
        return self

    def wanted(self) -> list[Wanted]:
        """Return the names to learn or pin for this registry."""
        expanded: list[Wanted] = []
        if self.provider == "acr":
            expanded = acr_names(
                self.name,
                str(self.instance),
                str(self.region),
                chart=self.chart,
                auth=self.auth,
                storage=self.storage,
            )
        elif self.provider == "generic":
            hosts = (("auth", self.auth), ("storage", self.storage))
            expanded = [Wanted(host, role, self.name) for role, host in hosts if host not in NAMELESS]
        overrides = [Override(n.name, n.role, tuple(n.addresses), n.cname) for n in self.names]
        return with_overrides(self.name, expanded, overrides)

    def limits(self, allowed: Sequence[Network] = ()) -> Limits:
        """Return what holds for the addresses of a name of this registry with these ``allowed`` ranges."""
        network = self.network
        return Limits(
            tuple(network.routed), tuple(network.conflicts), tuple(allowed), internal=not network.allow_public
        )

    @property
    def host(self) -> str | None:
        """The canonical name under which clients know the registry; None when no name has that role."""
        if self.discover.host or self.provider == "acr":
            return self.discover.host or acr_host(str(self.instance), str(self.region))
        listed = (entry.name for entry in self.names if entry.role == "registry" and "*" not in entry.name)
        return next(listed, None)

    def sought(self) -> list[Sought]:
        """Return the roles whose names the registry itself is asked for."""
        roles = (
            ("auth", self.auth, self.discover.realm_suffixes),
            ("storage", self.storage, self.discover.storage_suffixes),
        )
        return [
            Sought(self.name, role, tuple(suffixes)) for role, value, suffixes in roles if value == "discover"
        ]
