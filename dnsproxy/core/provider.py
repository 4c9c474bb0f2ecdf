"""What makes a cloud's registry service: the names it has, and whom to believe about further ones.

A `Provider` is data, one file each in `core/providers`. Templates are names with the values of the
registry in braces (``{instance}-registry-vpc.{region}.cr.aliyuncs.com``); besides the parameters there may
stand what a `Partition` gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from types import MappingProxyType

from dnsproxy.core import names
from dnsproxy.core.registry import NAMELESS, Wanted

# The keys that a registry may have for its provider, in the order in which complaints name them.
PARAMETERS = ("region", "instance", "account", "hostname", "endpoint", "bucket")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A key that the user gives, one of `PARAMETERS`.

    ``pattern`` matches whole values, whatever their case; None leaves it to the rules of names. ``form`` says
    the same in words. With ``variants`` it must be given for these and for no other.
    """

    key: str
    example: str
    form: str = ""
    pattern: str | None = None
    required: bool = True
    variants: tuple[str, ...] = ()

    def applies_to(self, variant: str) -> bool:
        """Tell whether registries of ``variant`` may have it."""
        return not self.variants or variant in self.variants


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to reach the service, as templates; ``registry`` is None where the user lists all names.

    ``auth`` and ``storage`` are for the value ``regional``; empty where no name can be made. The first of
    ``storage`` must have its parameters, further ones are left out where theirs are not given.
    """

    registry: str | None
    chart: str | None = None
    auth: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """Regions (a pattern) with domains of their own, for the templates.

    Without ``storage`` nobody has told how the buckets of these regions are called.
    """

    regions: str
    values: Mapping[str, str]
    storage: bool = True


@dataclass(frozen=True, slots=True)
class Provider:
    """A registry service. ``variants`` has the default first, ``partitions`` the special ones.

    ``auth`` is the default of that key; ``storage`` has what to take for that one, the first that can be had.
    The suffixes (templates) are the domains that hosts which the registry tells must be below.
    ``public`` admits ``network.allow_public``. ``tells_bucket``: the challenge names the default bucket.
    ``regions`` are those that are known, for a warning: clouds add some every year.
    ``notes`` and ``sources`` are for documents, ``basic`` for those who wonder where a password comes from.
    """

    key: str
    title: str
    variants: Mapping[str, Variant]
    parameters: tuple[Parameter, ...] = ()
    partitions: tuple[Partition, ...] = ()
    auth: str = "discover"
    storage: tuple[str, ...] = ("discover",)
    realm_suffixes: tuple[str, ...] = ()
    storage_suffixes: tuple[str, ...] = ()
    public: bool = True
    tells_bucket: bool = False
    regions: frozenset[str] = field(default=frozenset(), repr=False)
    basic: str = ""
    notes: str = ""
    sources: tuple[str, ...] = field(default=(), repr=False)

    # -- what was given ---------------------------------------------------------------

    @property
    def default_variant(self) -> str:
        """The variant of a registry that names none."""
        return next(iter(self.variants))

    def needed(self, variant: str) -> list[str]:
        """Return the keys that must be given for ``variant``."""
        ordered = sorted(self.parameters, key=lambda parameter: PARAMETERS.index(parameter.key))
        return [p.key for p in ordered if p.required and p.applies_to(variant)]

    def complaints(self, given: Mapping[str, str], variant: str) -> dict[str, str]:
        """Return what is wrong with the values in ``given``, by key."""
        known = {parameter.key: parameter for parameter in self.parameters}
        wrong = {}
        for key, value in given.items():
            parameter = known.get(key)
            if parameter is None:
                wrong[key] = f"provider {self.key} has no such key"
            elif not parameter.applies_to(variant):
                wrong[key] = f"only for variant {' or '.join(parameter.variants)} of provider {self.key}"
            elif parameter.pattern and not re.fullmatch(parameter.pattern, value, re.IGNORECASE):
                wrong[key] = f"{value!r} is not {parameter.form}; write for example {parameter.example}"
        return wrong

    # -- what it makes ----------------------------------------------------------------

    def values(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Return what templates may hold: ``given`` and what the region's partition adds."""
        partition = self._partition(given)
        return MappingProxyType({**(partition.values if partition else {}), **given})

    def _partition(self, given: Mapping[str, str]) -> Partition | None:
        region = given.get("region", "").lower()
        return next((each for each in self.partitions if re.fullmatch(each.regions, region)), None)

    def has_regional(self, role: str, given: Mapping[str, str], variant: str) -> bool:
        """Tell whether ``regional`` can be had for ``role``, ``auth`` or ``storage``."""
        held = self.variants[variant]
        if role == "auth":
            return bool(held.auth)
        partition = self._partition(given)
        optional = {parameter.key for parameter in self.parameters if not parameter.required}
        return (
            bool(held.storage)
            and (partition is None or partition.storage)
            and all(given.get(key) for key in _placeholders(held.storage[0]) & optional)
        )

    def default_storage(self, given: Mapping[str, str], variant: str) -> str:
        """Return the first value of ``storage`` that can be had, ``none`` without one."""
        regional = self.has_regional("storage", given, variant)
        return next((value for value in self.storage if value != "regional" or regional), "none")

    def suffixes(self, role: str, given: Mapping[str, str]) -> list[str]:
        """Return the domains that a host of ``role`` must be below, those whose parameters are given."""
        templates = self.realm_suffixes if role == "auth" else self.storage_suffixes
        return _filled(templates, self.values(given))

    def host(self, given: Mapping[str, str], variant: str) -> str | None:
        """Return the canonical name of the registry; None where the user lists it.

        Raises:
            ValueError: the values make no name.
            KeyError: one that is needed is missing.
        """
        template = self.variants[variant].registry
        return None if template is None else names.canonical(template.format_map(self.values(given)))

    def wanted(
        self, label: str, given: Mapping[str, str], variant: str, *, chart: bool, auth: str, storage: str
    ) -> list[Wanted]:
        """Return the names of the registry called ``label``.

        ``auth`` and ``storage`` are ``regional`` or a host; ``none`` and ``discover`` give no name.

        Raises:
            ValueError: the values make no name.
            KeyError: one that is needed is missing.
        """
        held = self.variants[variant]
        values = self.values(given)
        listed = [(held.registry, "registry"), (held.chart if chart else None, "chart")]
        wanted = [(template.format_map(values), role) for template, role in listed if template]
        for role, value, templates in (("auth", auth, held.auth), ("storage", storage, held.storage)):
            if value == "regional":
                wanted += [(name, role) for name in _filled(templates, values)]
            elif value not in NAMELESS:
                wanted.append((value, role))
        return [Wanted(names.canonical(name), role, label) for name, role in wanted]


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def _filled(templates: Sequence[str], values: Mapping[str, str]) -> list[str]:
    return [t.format_map(values) for t in templates if all(values.get(key) for key in _placeholders(t))]


def by_key(providers: Iterable[Provider]) -> Mapping[str, Provider]:
    """Return ``providers`` by their keys.

    Raises:
        ValueError: two have the same key, or one is not consistent in itself.
    """
    found: dict[str, Provider] = {}
    for provider in providers:
        if provider.key in found:
            raise ValueError(f"two providers are called {provider.key}")
        _check(provider)
        found[provider.key] = provider
    return MappingProxyType(found)


def _check(provider: Provider) -> None:
    keys = {parameter.key for parameter in provider.parameters}
    given = [set(partition.values) for partition in provider.partitions]
    known = keys | (set.intersection(*given) if given else set())
    templates = [*provider.realm_suffixes, *provider.storage_suffixes]
    for variant in provider.variants.values():
        templates += [template for template in (variant.registry, variant.chart) if template]
        templates += [*variant.auth, *variant.storage]
    strange = (keys - set(PARAMETERS)) | (set().union(*map(_placeholders, templates)) - known)
    if strange:
        raise ValueError(f"provider {provider.key}: nothing is known of {', '.join(sorted(strange))}")
    if not provider.variants:
        raise ValueError(f"provider {provider.key}: no variant")
