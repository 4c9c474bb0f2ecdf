"""The registries to reach, and the names that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from dnsproxy.core.guard import Limits
from dnsproxy.core.registry import Override, Wanted, acr_names, with_overrides
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
    auth: Literal["regional", "none"] | Name = "regional"
    storage: Literal["regional", "none"] | Name = "regional"
    names: list[NameSettings] = Field(default_factory=list)
    network: NetworkSettings = NetworkSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider == "acr" and not (self.region and self.instance):
            raise ValueError("provider acr needs region and instance")
        if self.provider == "generic" and not self.names:
            raise ValueError("provider generic needs names")
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
        overrides = [Override(n.name, n.role, tuple(n.addresses), n.cname) for n in self.names]
        return with_overrides(self.name, expanded, overrides)

    def limits(self, allowed: Sequence[Network] = ()) -> Limits:
        """Return what holds for the addresses of a name of this registry with these ``allowed`` ranges."""
        network = self.network
        return Limits(
            tuple(network.routed), tuple(network.conflicts), tuple(allowed), internal=not network.allow_public
        )
