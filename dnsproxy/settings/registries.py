"""The registries to reach, and the names that belong to them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dnsproxy.core.registry import Override, Wanted, acr_names, with_overrides
from dnsproxy.settings.values import Addresses, Model, Name, Role


class NameSettings(Model):
    """A name listed by hand: learned when neither addresses nor cname is given."""

    name: Name
    role: Role = "other"
    addresses: Addresses = Field(default_factory=list)
    cname: Name | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.addresses and self.cname:
            raise ValueError("give addresses or cname, not both")
        if self.cname and self.name.startswith("*."):
            raise ValueError("a wildcard cannot have a cname")
        return self


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

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider == "acr" and not (self.region and self.instance):
            raise ValueError("provider acr needs region and instance")
        if self.provider == "generic" and not self.names:
            raise ValueError("provider generic needs names")
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
