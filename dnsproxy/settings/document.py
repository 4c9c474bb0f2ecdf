"""The whole file: its sections, and what must hold between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from dnsproxy.core.addresses.filter import Limits, LimitTable
from dnsproxy.core.registry import Sought, Wanted, lies_below
from dnsproxy.settings.learning import HelperSettings, KeySettings, LearnSettings
from dnsproxy.settings.logging import LogSettings
from dnsproxy.settings.registries import RegistrySettings
from dnsproxy.settings.schema import json_schema
from dnsproxy.settings.serving import (
    AdminSettings,
    CacheSettings,
    ForwardSettings,
    ServeSettings,
)
from dnsproxy.settings.sources import SourceSettings
from dnsproxy.settings.values import Endpoint, Model

# A key path.
Place = tuple[str | int, ...]
# A name as useradd(8) takes it.
Account = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$")]


class Settings(Model):
    """The whole file."""

    registries: list[RegistrySettings] = Field(default_factory=list)
    """The registries to reach, and the names that belong to them. Helper and proxy need the same list: the
    helper resolves these names, and the proxy believes a helper about no others.
    """
    helper: HelperSettings = HelperSettings()
    """`dnsproxy helper`: runs in the source region, resolves the names there, publishes them signed."""
    learn: LearnSettings = LearnSettings()
    """How the proxy learns what helpers have seen."""
    serve: ServeSettings = ServeSettings()
    """`dnsproxy serve`: the DNS listeners."""
    forward: ForwardSettings = ForwardSettings()
    """Where every name that is not learned is resolved."""
    cache: CacheSettings = CacheSettings()
    """Cached answers of forwarded queries. Learned names are not in here and never evicted."""
    admin: AdminSettings = AdminSettings()
    """Health, metrics and the commands that ask or order a running proxy, over HTTP. Without a token, orders
    (pin, freeze, rollback ...) are taken from this host only.
    """
    log: LogSettings = LogSettings()
    """What is logged, on standard error."""
    user: Account | None = None
    """User to become once all addresses are bound, when started as root; null: nobody else. Of root's rights
    one is kept, to bind ports below 1024 that a reload adds. Keys, certificates and state must be readable
    for this user.
    """
    group: Account | None = None
    """Group to become a member of; null: that of `user`."""
    reload: Literal["signal", "watch"] = "signal"
    """When a changed file is taken: `signal`, on SIGHUP or `dnsproxy reload`; `watch`, also within some
    seconds of the change. Anything wrong in it leaves everything as it was.
    """

    @model_validator(mode="after")
    def _group_of_user(self) -> Self:
        if self.group is not None and self.user is None:
            raise ValueError("group: give user as well")
        return self

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [registry.name for registry in self.registries]
        if len(set(labels)) != len(labels):
            raise ValueError("registries: two have the same name")
        return self

    @model_validator(mode="after")
    def _disjoint_names(self) -> Self:
        claimed: dict[str, int] = {}
        claims = [registry.claims() for registry in self.registries]
        wrong = []
        for index, found in enumerate(claims):
            for name, claim in found.items():
                earlier = claimed.setdefault(name, index)
                if not claim.agrees_with(claims[earlier][name]) and earlier != index:
                    first = ("registries", earlier, *claims[earlier][name].place)
                    label = self.registries[earlier].name
                    reason = f"{name.removesuffix('.')} is a name of registry {label} already"
                    wrong.append(_misplaced(("registries", index, *claim.place), reason, first))
        if wrong:
            raise ValidationError.from_exception_data("Settings", wrong)
        return self

    @model_validator(mode="after")
    def _separate_addresses(self) -> Self:
        """Refuse addresses of which one holds the other: the second could not be bound."""
        wrong = []
        places = list(self._listens())
        for index, (place, at, kinds) in enumerate(places):
            for first, other, others in places[:index]:
                if kinds & others and _is_shared(at, other):
                    same = "given already" if at == other else f"overlaps {other}"
                    wrong.append(_misplaced(place, f"{at}: {same}", first))
                    break
        if wrong:
            raise ValidationError.from_exception_data("Settings", wrong)
        return self

    def _listens(self) -> Iterator[tuple[Place, Endpoint, frozenset[str]]]:
        """Yield where `dnsproxy serve` listens, with the key path and the transports."""
        serve, admin = self.serve, self.admin
        is_default = "listen" not in admin.model_fields_set
        if admin.listen is not None and is_default:  # the other one is the mistake, which the file has
            yield ("admin", "listen"), admin.listen, frozenset({"tcp"})
        for index, at in enumerate(serve.listen):
            yield ("serve", "listen", index), at, frozenset({"udp", "tcp"})
        for index, at in enumerate(serve.tls.listen):
            yield ("serve", "tls", "listen", index), at, frozenset({"tcp"})
        if admin.listen is not None and not is_default:
            yield ("admin", "listen"), admin.listen, frozenset({"tcp"})

    def doubts(self) -> Iterator[tuple[Place, str]]:
        """Yield what is allowed and may be a mistake, with its key path."""
        for index, registry in enumerate(self.registries):
            doubt = registry.region_doubt
            if doubt is not None:
                yield ("registries", index, "region"), doubt
        lists: dict[Place, Sequence[Endpoint | str]] = {("forward", "upstreams"): self.forward.upstreams}
        lists |= {("forward", "zones", zone): hosts for zone, hosts in self.forward.zones.items()}
        for place, hosts in lists.items():
            for index, at in enumerate(hosts):
                if isinstance(at, Endpoint) and any(_leads_to(at, own) for own in self.serve.listen):
                    yield (*place, index), f"{at} is an address of serve.listen: this proxy would ask itself"

    @model_validator(mode="after")
    def _separate_keys(self) -> Self:
        """Let keys be limited to registries that there are, and apart from what others might be told."""
        labels = {registry.name for registry in self.registries}
        wrong = []
        for place, limited in self._limited():
            absent = [label for label in limited if label not in labels]
            wrong += [_misplaced((*place, "registries"), f"there is no registry {label}") for label in absent]
            if place[1] == "trusted_keys":
                wrong += [_misplaced(place, reason) for reason in self._told_by_others(limited)]
        if wrong:
            raise ValidationError.from_exception_data("Settings", wrong)
        return self

    def _limited(self) -> Iterator[tuple[Place, list[str]]]:
        """Yield where the file limits something to registries, and to which."""
        for index, key in enumerate(self.learn.trusted_keys):
            if isinstance(key, KeySettings):
                yield ("learn", "trusted_keys", index), key.registries
        for index, source in enumerate(self.learn.sources):
            if isinstance(source, SourceSettings) and source.registries is not None:
                yield ("learn", "sources", index), source.registries

    def _told_by_others(self, limited: list[str]) -> Iterator[str]:
        mine = [registry for registry in self.registries if registry.name in limited]
        others = [registry for registry in self.registries if registry.name not in limited]
        for one, other, domain in _shared_domains(mine, others):
            yield (
                f"registries {one} and {other} both believe hosts below {domain.removesuffix('.')}, so this"
                f" key could tell names of {other}: narrow their discover.realm_suffixes or storage_suffixes"
            )

    def of_registries(self, labels: Collection[str] | None) -> Settings:
        """Return these settings with the registries called ``labels`` only; None: all."""
        if labels is None:
            return self
        chosen = [registry for registry in self.registries if registry.name in labels]
        return self.model_copy(update={"registries": chosen})

    def uses_system_resolvers(self) -> bool:
        """Tell whether ``dnsproxy serve`` uses the resolvers of resolv.conf."""
        embedded = any(
            isinstance(source, SourceSettings) and source.is_local for source in self.learn.sources
        )
        lists = [self.forward.upstreams, *self.forward.zones.values()]
        return any("system" in hosts for hosts in (*lists, *([self.helper.resolvers] if embedded else [])))

    def wanted(self) -> list[Wanted]:
        """Return the names of all registries; of several that use a service, the first owns its name."""
        by_name: dict[str, Wanted] = {}
        for registry in self.registries:
            for entry in registry.wanted():
                by_name.setdefault(entry.name, entry)
        return list(by_name.values())

    def sought(self) -> list[Sought]:
        """Return the roles of all registries whose names the registries themselves tell."""
        return [entry for registry in self.registries for entry in registry.sought()]

    def limits(self) -> LimitTable:
        """Return what holds for the addresses of each name."""
        by_name: dict[str, Limits] = {}
        for registry in self.registries:
            allowed = {entry.name: entry.allowed for entry in registry.names}
            for entry in registry.wanted():
                by_name.setdefault(entry.name, registry.limits(allowed.get(entry.name, ())))
        return LimitTable(by_name, {registry.name: registry.limits() for registry in self.registries})

    def probed_ports(self) -> dict[str, tuple[int, ...]]:
        """Return the ports of the names that have their own in place of ``learn.verify.ports``."""
        owners = {entry.name: entry.registry for entry in self.wanted()}
        return {
            entry.name: tuple(entry.ports)
            for registry in self.registries
            for entry in registry.names
            if entry.ports is not None and owners[entry.name] == registry.name
        }


def _shared_domains(
    mine: Iterable[RegistrySettings], others: Iterable[RegistrySettings]
) -> Iterator[tuple[str, str, str]]:
    """Yield the pairs of registries that may be told names below one domain, once each, and the domain."""
    for one, other in product(mine, others):
        pairs = product(_domains(one), _domains(other))
        shared = next((max(pair, key=len) for pair in pairs if _overlap(*pair)), None)
        if shared is not None:
            yield one.name, other.name, shared


def _domains(registry: RegistrySettings) -> list[str]:
    return [suffix for sought in registry.sought() for suffix in sought.suffixes]


def _overlap(one: str, other: str) -> bool:
    return one == other or lies_below(one, [other]) or lies_below(other, [one])


def _leads_to(upstream: Endpoint, own: Endpoint) -> bool:
    """Tell whether ``upstream`` is the listener ``own``, as far as that can be known without the host."""
    if upstream.transport not in {"udp", "tcp"} or not _is_shared(upstream, own):
        return False
    return upstream.host == own.host or ip_address(upstream.host).is_loopback


def _is_shared(one: Endpoint, other: Endpoint) -> bool:
    """Tell whether two sockets of one transport cannot have these addresses. IPv6 ones take no IPv4."""
    first, second = ip_address(one.host), ip_address(other.host)
    return (
        one.port == other.port
        and first.version == second.version
        and (first == second or first.is_unspecified or second.is_unspecified)
    )


def _misplaced(place: Place, reason: str, first: Place | None = None) -> InitErrorDetails:
    facts: dict[str, object] = {"reason": reason} if first is None else {"reason": reason, "first": first}
    error = PydanticCustomError("value_error", "{reason}", facts)
    return InitErrorDetails(type=error, loc=place, input=None)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    return json_schema(Settings)
