"""The registries to reach, and the names that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dnsproxy.core.addresses.filter import Limits
from dnsproxy.core.provider import PARAMETERS, Provider
from dnsproxy.core.providers import PROVIDERS
from dnsproxy.core.registry import Override, Sought, Wanted, with_overrides
from dnsproxy.settings.discovery import DiscoverSettings
from dnsproxy.settings.suggestions import suggestion
from dnsproxy.settings.values import Addresses, Model, Name, Network, Ports, Range, Role, misplaced


def _in_quotes(value: object) -> object:
    if isinstance(value, int):
        # 012345678901 is another number to YAML, if it is one at all.
        raise ValueError("put it in quotes: zeros in front of a number count")  # noqa: TRY004 - pydantic collects ValueError
    return value


Parameter = Annotated[str, BeforeValidator(_in_quotes)] | None


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
        if self.cname == self.name:
            raise ValueError("an alias of itself")
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
    """Answer public addresses too; not for acr, whose names are internal."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a registry says of a name; ``place`` is its key path below the registry."""

    role: str
    addresses: tuple[str, ...]
    cname: str | None
    allowed: tuple[Network, ...]
    ports: tuple[int, ...] | None
    place: tuple[str | int, ...] = field(compare=False)

    def agrees_with(self, other: Claim) -> bool:
        """Tell whether two registries may have the name: a service that both use, and say the same of."""
        return self == other and self.role not in {"registry", "chart"}


class RegistrySettings(Model):
    """A registry instance and the names that belong to it."""

    name: str = Field(min_length=1, max_length=64)
    """Label in status, logs and metrics; no two alike."""
    provider: Literal["acr", "ecr", "azure", "tcr", "swr", "harbor", "generic"] = "acr"
    """Whose service it is, which says what its names are: `acr` (Alibaba Cloud Container Registry, Enterprise
    Edition), `ecr` (Amazon), `azure` (Azure Container Registry), `tcr` (Tencent), `swr` (Huawei) or
    `harbor`; `generic` has those under `names` only. docs/providers.md tells what each needs.
    """
    variant: str | None = None
    """Which of the provider's names: ecr has `standard`, `fips` and `dual-stack`; azure `global` and
    `regional`; tcr `vpc` and `default`, swr `basic` and `enterprise`; null: the first of these.
    """
    region: Parameter = None
    """The region, as the provider writes it; must be given for all but harbor and generic. The host of an acr
    instance is `<instance>-registry-vpc.<region>.cr.aliyuncs.com`.
    """
    instance: Parameter = None
    """acr, tcr: name of the instance; azure: of the registry; swr, enterprise: the first label of its host.
    Must be given there.
    """
    account: Parameter = None
    """ecr: must be given, the 12 digits of the account, in quotes."""
    hostname: Parameter = None
    """harbor: must be given, as in harbor.yml: the host that clients know."""
    endpoint: Parameter = None
    """harbor: the host of the object store that it redirects to."""
    bucket: Parameter = None
    """harbor: the bucket, where its name stands in front of the endpoint's."""
    chart: bool = False
    """acr: also `<instance>-chart-vpc.<region>.cr.aliyuncs.com`, for Helm charts."""
    auth: Literal["discover", "regional", "none"] | Name = "discover"
    """The host that hands out tokens. `discover`: the helper asks `https://<registry>/v2/` and takes the host
    that it names, or none when the registry does that itself. `regional`, for acr:
    `dockerauth-vpc.<region>.aliyuncs.com`, right for most instances, not for all; for ecr, and its
    default: `api.ecr.<region>.amazonaws.com`, where passwords come from. `none`: nothing to
    learn; the default for generic. Or a host, as the WWW-Authenticate header of `/v2/` names it.
    """
    storage: Literal["regional", "discover", "none"] | Name = "regional"
    """Where image layers come from. `regional`: the names that the provider's rule makes; for acr
    `oss-<region>-internal.aliyuncs.com` and every bucket below it. `discover`: one bucket, where a layer of
    `discover.repository` is redirected to; for acr, without a repository, the default bucket of the instance
    whose id the registry tells; the default for tcr and swr. `none`: nothing to learn; the default for
    generic, and for harbor without `endpoint`. Or a host: one bucket.
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
    def _defaults_of_provider(cls, given: Any) -> Any:  # noqa: ANN401 - not validated yet
        provider = PROVIDERS.get(str(given.get("provider", "acr"))) if isinstance(given, dict) else None
        if provider is None:
            return given
        values = {key: value for key in PARAMETERS if isinstance(value := given.get(key), str)}
        variant = given.get("variant") or provider.default_variant
        if variant not in provider.variants:
            return given
        discover = given.get("discover", {})
        if isinstance(discover, dict):
            realms, storages = provider.suffixes("auth", values), provider.suffixes("storage", values)
            discover = {"realm_suffixes": realms, "storage_suffixes": storages, **discover}
        storage = provider.default_storage(values, variant)
        return {"auth": provider.auth, "storage": storage, **given, "discover": discover}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        provider, variant = self._provider, self._variant
        if variant not in provider.variants:
            known = ", ".join(provider.variants)
            raise misplaced({("variant",): f"{variant!r} is none of provider {provider.key}: it has {known}"})
        wrong = provider.complaints(self._given, variant)
        needed = provider.needed(variant)
        if not all(self._given.get(key) for key in needed):
            wrong[""] = f"provider {provider.key} needs {' and '.join(needed)}"
        wrong |= self._beyond_provider()
        if wrong:
            raise misplaced({(key,) if key else (): reason for key, reason in wrong.items()})
        seen: dict[str, int] = {}
        for index, entry in enumerate(self.names):
            first = seen.setdefault(entry.name, index)
            if first != index:
                reason = f"{entry.name.removesuffix('.')} is names[{first}] already"
                raise misplaced({("names", index, "name"): reason})
        if provider.key == "generic" and not self.names:
            raise ValueError("provider generic needs names")
        if self.sought() and not self.host:
            raise ValueError("discover needs a name with role registry, or discover.host")
        if not provider.public and self.network.allow_public:
            raise ValueError(
                f"network.allow_public: {provider.key} names are internal; give the one name `allowed` ranges"
            )
        self.wanted()  # raises ValueError when the values do not make valid names
        return self

    def _beyond_provider(self) -> dict[str, str]:
        """Return the keys that ask for what the provider does not have."""
        provider, wrong = self._provider, {}
        if self.chart and not provider.variants[self._variant].chart:
            wrong["chart"] = f"provider {provider.key} has no names of their own for charts"
        for role, value in (("auth", self.auth), ("storage", self.storage)):
            if value == "regional" and not provider.has_regional(role, self._given, self._variant):
                wrong[role] = f"provider {provider.key} makes no {role} names here: regional cannot be had"
        if self.storage == "discover" and not (provider.tells_bucket or self.discover.repository):
            wrong["storage"] = (
                f"storage discover needs discover.repository: provider {provider.key} tells where layers are"
                " by redirecting one only; or write storage: none, or a host"
            )
        return wrong

    @property
    def _provider(self) -> Provider:
        return PROVIDERS[self.provider]

    @property
    def _variant(self) -> str:
        return self.variant or self._provider.default_variant

    @property
    def _given(self) -> dict[str, str]:
        return {key: value for key in PARAMETERS if (value := getattr(self, key)) is not None}

    @property
    def region_doubt(self) -> str | None:
        """What makes one doubt the region; None where it is known, or the provider has none."""
        known = self._provider.regions
        if self.region is None or not known or self.region.lower() in known:
            return None
        return f"no region of {self.provider} that is known here{suggestion(self.region, known)}"

    def wanted(self) -> list[Wanted]:
        """Return the names to learn or pin for this registry."""
        expanded = self._provider.wanted(
            self.name,
            self._given,
            self._variant,
            chart=self.chart,
            auth=self.auth,
            storage=self.storage,
        )
        overrides = [Override(n.name, n.role, tuple(n.addresses), n.cname) for n in self.names]
        return with_overrides(self.name, expanded, overrides)

    def claims(self) -> dict[str, Claim]:
        """Return what this registry says of each of its names, and below which of its keys."""
        listed = {entry.name: (index, entry) for index, entry in enumerate(self.names)}
        hosts = {self.auth: "auth", self.storage: "storage"}
        found = {}
        for entry in self.wanted():
            index, held = listed.get(entry.name, (None, None))
            place = (hosts[entry.name],) if entry.name in hosts else ()
            found[entry.name] = Claim(
                entry.role,
                entry.addresses,
                entry.cname,
                tuple(held.allowed) if held else (),
                tuple(held.ports) if held and held.ports is not None else None,
                place if index is None else ("names", index, "name"),
            )
        return found

    def limits(self, allowed: Sequence[Network] = ()) -> Limits:
        """Return what holds for the addresses of a name of this registry with these ``allowed`` ranges."""
        network = self.network
        return Limits(
            tuple(network.routed), tuple(network.conflicts), tuple(allowed), internal=not network.allow_public
        )

    @property
    def host(self) -> str | None:
        """The canonical name under which clients know the registry; None when no name has that role."""
        told = self.discover.host or self._provider.host(self._given, self._variant)
        if told:
            return told
        listed = (entry.name for entry in self.names if entry.role == "registry" and "*" not in entry.name)
        return next(listed, None)

    def sought(self) -> list[Sought]:
        """Return the roles whose names the registry itself is asked for."""
        roles = (
            ("auth", self.auth, self.discover.realm_suffixes),
            ("storage", self.storage, self.discover.storage_suffixes),
        )
        return [
            Sought(self.name, role, tuple(suffixes), self._provider.reserved_for(role, self._given))
            for role, value, suffixes in roles
            if value == "discover"
        ]
