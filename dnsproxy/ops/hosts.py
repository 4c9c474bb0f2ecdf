"""From copies in hosts files to a configuration, and back as a last resort; and finding copies that rot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address

from dnsproxy.core.acr_patterns import Recognised, recognise
from dnsproxy.core.vip_ranges import storage_region
from dnsproxy.ops.hostsfile import HostsLine, UnreadLine
from dnsproxy.ops.known import Known, KnownName

# What YAML takes without quotes, and reads as text: starts with a letter, and is more than one word.
_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9]*(?:[.-][A-Za-z0-9]+)+|acr|generic|regional|none|true"
    r"|registry|chart|auth|storage"
)
# Longest label of a registry in the configuration.
_MAX_LABEL = 64


# -- import -----------------------------------------------------------------------


@dataclass(slots=True)
class _Copied:
    """A name with the addresses that the file gives it; ``what`` is None when nobody recognises it."""

    name: str
    what: Recognised | None
    addresses: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """A ``registries`` section as YAML text, and the names that are not in it, each with the reason.

    ``unread`` are lines, or parts of them, that could not be read.
    """

    text: str
    left_out: tuple[str, ...]
    unread: tuple[UnreadLine, ...] = ()


def import_hosts(
    lines: Iterable[HostsLine | UnreadLine], *, pin: bool = False, everything: bool = False
) -> Imported:
    """Return the configuration that does what the hosts file did.

    Names of the registry services are learned, or pinned to the file's addresses with
    ``pin``. Others are left out; with ``everything`` they are pinned.
    """
    listed = list(lines)
    unread = tuple(line for line in listed if isinstance(line, UnreadLine))
    left_out: list[str] = []
    copied = _collect((line for line in listed if isinstance(line, HostsLine)), left_out)
    used = []
    for entry in copied:
        reason = _reason_to_leave(entry, pin=pin, everything=everything)
        if reason is None:
            used.append(entry)
        else:
            left_out.append(f"{_shown(entry.name)}: {reason}")
    recognised = [entry for entry in used if entry.what is not None]
    others = [entry for entry in used if entry.what is None]
    registries = list(_registries(recognised, pin=pin))
    if others:
        registries.append(
            {"name": "hosts", "provider": "generic", "names": [_entry(e, pin=True) for e in others]}
        )
    return Imported(_yaml(registries), tuple(left_out), unread)


def _collect(lines: Iterable[HostsLine], left_out: list[str]) -> list[_Copied]:
    by_name: dict[str, _Copied] = {}
    for line in lines:
        # localhost, ip6-allnodes and the like.
        kind = _special(line.address)
        if kind is not None:
            shown = " ".join(map(_shown, line.names))
            left_out.append(f"line {line.number}: {shown}: {line.address} is {kind}")
            continue
        for name in line.names:
            entry = by_name.setdefault(name, _Copied(name, recognise(name)))
            if line.address not in entry.addresses:
                entry.addresses.append(line.address)
    return list(by_name.values())


def _special(text: str) -> str | None:
    address = ip_address(text)
    if address.is_loopback:
        return "a loopback address"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_multicast:
        return "a multicast address"
    return "a link-local address" if address.is_link_local else None


def _reason_to_leave(entry: _Copied, *, pin: bool, everything: bool) -> str | None:
    if entry.what is None:
        return None if everything else "no name of a registry service; --all pins it"
    if not entry.what.internal and not pin:
        return "a public name, which would be learned with its public addresses; --pin keeps the file's"
    return None


def _registries(copied: Sequence[_Copied], *, pin: bool) -> Iterator[dict[str, object]]:
    for region in dict.fromkeys(entry.what.region for entry in copied if entry.what):
        mine = [entry for entry in copied if entry.what and entry.what.region == region]
        instances = dict.fromkeys(instance for entry in mine if (instance := _instance_of(entry)))
        rest = [entry for entry in mine if not _instance_of(entry)]
        for instance in instances:
            own = [entry for entry in mine if _instance_of(entry) == instance]
            yield _instance(region, instance, own, rest, pin=pin)
        if not instances:
            yield {"name": region, "provider": "generic", "names": [_entry(e, pin=pin) for e in rest]}


def _instance_of(entry: _Copied) -> str | None:
    """Return the instance whose internal name it is, if it is one."""
    return entry.what.instance if entry.what and entry.what.internal else None


def _instance(
    region: str, instance: str, own: Sequence[_Copied], rest: Sequence[_Copied], *, pin: bool
) -> dict[str, object]:
    registry: dict[str, object] = {
        "name": f"{instance}-{region}"[:_MAX_LABEL],
        "provider": "acr",
        "region": region,
        "instance": instance,
    }
    if any(entry.what and entry.what.role == "chart" for entry in own):
        registry["chart"] = True
    names = [_entry(entry, pin=True) for entry in own] if pin else []
    for role in ("auth", "storage"):
        hosts = [entry for entry in rest if entry.what and entry.what.role == role]
        if hosts:
            first = hosts[0]
            endpoint = role == "storage" and first.name.startswith(f"oss-{storage_region(first.name)}-")
            registry[role] = "regional" if endpoint else _shown(first.name)
            names += [_entry(entry, pin=pin) for entry in (hosts if pin else hosts[1:])]
    names += [_entry(e, pin=pin) for e in rest if e.what and e.what.role not in ("auth", "storage")]
    if names:
        registry["names"] = names
    return registry


def _entry(entry: _Copied, *, pin: bool) -> dict[str, object]:
    made: dict[str, object] = {"name": _shown(entry.name)}
    if entry.what is not None:
        made["role"] = entry.what.role
    return made | ({"addresses": entry.addresses} if pin else {})


def _yaml(registries: Sequence[dict[str, object]]) -> str:
    # Written by hand: one fixed shape, and only `config` knows YAML.
    if not registries:
        return "registries: []\n"
    return "registries:\n" + "".join(_mapping(registry, "  ") for registry in registries)


def _mapping(mapping: dict[str, object], indent: str) -> str:
    text = ""
    for place, (key, value) in enumerate(mapping.items()):
        text += f"{indent}{'- ' if place == 0 else '  '}{key}:"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text += "\n" + "".join(_mapping(item, f"{indent}    ") for item in value)
        elif isinstance(value, list):
            text += f" [{', '.join(map(_scalar, value))}]\n"
        else:
            text += f" {_scalar(value)}\n"
    return text


def _scalar(value: object) -> str:
    text = "true" if value is True else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


# -- export -----------------------------------------------------------------------


def export_hosts(known: Known, wall_now: float) -> str:
    """Return lines for a hosts file; ``wall_now`` is Unix seconds."""
    when = datetime.fromtimestamp(wall_now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ages = [entry.age for entry in known.names if entry.age is not None]
    oldest = f"; the oldest confirmation is {max(ages):.0f} s old" if ages else ""
    lines = [
        f"# dnsproxy hosts export, {when}, from {known.origin}, serial {known.serial}{oldest}.",
        "# LAST RESORT. These addresses change without notice, and a line here beats every DNS server.",
        "# Take them out as soon as the proxy can be asked; `dnsproxy hosts audit` finds what is left.",
    ]
    for entry in known.names:
        lines += _export(entry)
    return "\n".join(lines) + "\n"


def _export(entry: KnownName) -> Iterator[str]:
    name = _shown(entry.name)
    if entry.name.startswith("*."):
        yield f"# {name}: a hosts file has no wildcards; list each bucket under `names`"
    elif not entry.addresses:
        yield f"# {name}: no address is known"
    else:
        age = "" if entry.age is None else f", confirmed {entry.age:.0f} s ago"
        yield from (f"{address} {name} # {entry.registry}, {entry.role}{age}" for address in entry.addresses)


# -- audit ------------------------------------------------------------------------


class Rot(StrEnum):
    """What is wrong with a line."""

    STALE = "stale"
    SHADOW = "shadow"
    UNMANAGED = "unmanaged"


@dataclass(frozen=True, slots=True)
class Audited:
    """A line and a name in it; ``serving`` is what the proxy answers."""

    number: int
    address: str
    name: str
    rot: Rot
    serving: tuple[str, ...]

    @property
    def wrong(self) -> bool:
        """Whether it stands before the proxy's answer."""
        return self.rot is not Rot.UNMANAGED

    @property
    def text(self) -> str:
        """The line in words."""
        line = f"{self.address} {_shown(self.name)}"
        if self.rot is Rot.STALE:
            return f"{line}: stale, the proxy answers {', '.join(self.serving) or 'nothing yet'}"
        if self.rot is Rot.SHADOW:
            return f"{line}: shadows the proxy's answer, which is the same for now"
        return f"{line}: a registry's name that the configuration does not have"


def audit_hosts(lines: Iterable[HostsLine], known: Known) -> list[Audited]:
    """Return the lines that stand before an owned name, and those of other registries for information."""
    return [found for line in lines for name in line.names if (found := _audit(line, name, known))]


def _audit(line: HostsLine, name: str, known: Known) -> Audited | None:
    entry = known.find(name)
    if entry is not None:
        rot = Rot.SHADOW if line.address in entry.addresses else Rot.STALE
        return Audited(line.number, line.address, name, rot, entry.addresses)
    return Audited(line.number, line.address, name, Rot.UNMANAGED, ()) if recognise(name) else None


def _shown(name: str) -> str:
    return name.removesuffix(".")
