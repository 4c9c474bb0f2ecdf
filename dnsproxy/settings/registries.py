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
    role: Role = "other"
    addresses: Addresses = Field(default_factory=list)
    cname: Name | None = None
    allowed: list[Range] = Field(default_factory=list)
    ports: Ports | None = None

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
    conflicts: list[Range] = Field(default_factory=list)
    allow_public: bool = False


class RegistrySettings(Model):
    """A registry instance and the names that belong to it."""

    name: str = Field(min_length=1, max_length=64)
    provider: Literal["acr", "generic"] = "acr"
    region: str | None = None
    instance: str | None = None
    chart: bool = False
    auth: Literal["discover", "regional", "none"] | Name = "discover"
    storage: Literal["regional", "discover", "none"] | Name = "regional"
    discover: DiscoverSettings = DiscoverSettings()
    names: list[NameSettings] = Field(default_factory=list)
    network: NetworkSettings = NetworkSettings()

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
