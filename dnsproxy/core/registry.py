"""From a configured registry to the names that must be learned for it.

Name patterns are those of Alibaba ACR Enterprise Edition inside a VPC; a
``generic`` registry lists its names itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dnsproxy.core import names


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name that somebody must learn, or that the configuration pins.

    ``name`` is canonical text and may start with ``*.``; ``ask`` is the name
    to send to a resolver for it: a wildcard cannot be asked for, so its parent
    stands for it (OSS serves every bucket of a region from the addresses of
    the regional endpoint). ``cname`` is set when the addresses are those of
    another name (PrivateLink). ``addresses`` is not empty for a pinned name.
    """

    name: str
    role: str
    registry: str
    cname: str | None = None
    addresses: tuple[str, ...] = field(default=())

    @property
    def ask(self) -> str:
        """The name to resolve."""
        return self.cname or self.name.removeprefix("*.")


@dataclass(frozen=True, slots=True)
class Override:
    """A name that a registry lists by hand."""

    name: str
    role: str
    addresses: tuple[str, ...] = ()
    cname: str | None = None


def acr_names(
    label: str, instance: str, region: str, *, chart: bool, auth: str, storage: str
) -> list[Wanted]:
    """Return the names of an ACR Enterprise instance as seen inside its VPC.

    ``auth`` is ``regional`` (``dockerauth-vpc.<region>.aliyuncs.com``),
    ``none`` (the instance has taken over its auth domain) or a host.
    ``storage`` is ``regional`` (the OSS endpoint and every bucket below it),
    ``none`` or a bucket host.
    """
    wanted = [(f"{instance}-registry-vpc.{region}.cr.aliyuncs.com", "registry")]
    if chart:
        wanted.append((f"{instance}-chart-vpc.{region}.cr.aliyuncs.com", "chart"))
    if auth == "regional":
        wanted.append((f"dockerauth-vpc.{region}.aliyuncs.com", "auth"))
    elif auth != "none":
        wanted.append((auth, "auth"))
    if storage == "regional":
        endpoint = f"oss-{region}-internal.aliyuncs.com"
        wanted += [(endpoint, "storage"), (f"*.{endpoint}", "storage")]
    elif storage != "none":
        wanted.append((storage, "storage"))
    return [Wanted(names.canonical(name), role, label) for name, role in wanted]


def with_overrides(label: str, wanted: list[Wanted], overrides: list[Override]) -> list[Wanted]:
    """Return ``wanted`` with the names listed by hand added, or put in place of their namesakes."""
    by_name = {entry.name: entry for entry in wanted}
    for override in overrides:
        name = names.canonical(override.name)
        cname = names.canonical(override.cname) if override.cname else None
        by_name[name] = Wanted(name, override.role, label, cname, override.addresses)
    return list(by_name.values())
