"""Recognise a name of Alibaba Cloud's registry services: the inverse of `providers.acr`.

Names are matched whole, anchored at the end: `....aliyuncs.com.attacker.example` is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dnsproxy.core.vip_ranges import storage_region

_REGION = r"(?P<region>[a-z]{2}-[a-z0-9]+(?:-[a-z0-9]+)*)"
_INSTANCE = r"(?P<instance>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)"
# Each with the role it gives, the most telling first.
_PATTERNS = tuple(
    (role, re.compile(pattern))
    for role, pattern in (
        ("registry", rf"{_INSTANCE}-registry(?P<vpc>-vpc)?\.{_REGION}\.cr\.aliyuncs\.com"),
        ("chart", rf"{_INSTANCE}-chart(?P<vpc>-vpc)?\.{_REGION}\.cr\.aliyuncs\.com"),
        ("registry", rf"crpi-[a-z0-9]+(?P<vpc>-vpc)?\.{_REGION}\.personal\.cr\.aliyuncs\.com"),
        ("registry", rf"registry(?P<vpc>-vpc|-internal)?\.{_REGION}\.aliyuncs\.com"),
        ("registry", rf"registry-{_REGION}(?P<vpc>-vpc)\.ack\.aliyuncs\.com"),
        ("auth", rf"dockerauth(?:-ee)?(?P<vpc>-vpc)?\.{_REGION}\.aliyuncs\.com"),
        # Zhangjiakou alone writes its region with a hyphen.
        ("auth", rf"dockerauth(?:-ee)?-{_REGION}\.aliyuncs\.com"),
    )
)
_OSS_PUBLIC = re.compile(rf"(?:[^.]+\.)?oss-{_REGION}\.aliyuncs\.com")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a name says about itself.

    ``instance`` is set for the names of an Enterprise Edition instance. ``internal`` is
    False for a public name, which answers everywhere and is better left alone.
    """

    role: str
    region: str
    instance: str | None
    internal: bool


def recognise(name: str) -> Recognised | None:
    """Return what ``name`` (any case, with or without a trailing dot) is; None for another's name."""
    text = name.lower().removesuffix(".")
    region = storage_region(text)
    if region is not None:
        return Recognised("storage", region, None, internal=True)
    for role, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match is not None:
            groups = match.groupdict()
            return Recognised(role, groups["region"], groups.get("instance"), bool(groups.get("vpc")))
    public = _OSS_PUBLIC.fullmatch(text)
    return Recognised("storage", public["region"], None, internal=False) if public else None
