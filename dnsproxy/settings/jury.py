"""Whom a helper asks how new sets of addresses fare on trial."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from dnsproxy.settings.values import AdminUrl, Duration, Model


class JurySettings(Model):
    """Proxies that are asked how new sets of addresses fare on trial with them (`learn.canary`)."""

    proxies: list[AdminUrl] = Field(default_factory=list, max_length=1000)
    """Their admin endpoints, such as `https://10.0.0.1:9153`; `http://` for loopback addresses only, or any
    host on the way could vote. None: no proxy is asked. A set that they have rolled back is refused in the
    snapshot for 24 hours, so that all others drop it without waiting.
    """
    quorum: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many of them must have rolled a set back by their own probes; null: 2 where three or more are
    listed, else 1.
    """
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 15.0
    """Time between two rounds of questions."""
    read_token_file: Path | None = None
    """File with the token that they ask for (their `admin.read_token_file`). One that gives orders there is
    reported, and the vote does not count.
    """
    ca_file: Path | None = None
    """PEM file of the authority of https endpoints; null: the system's."""

    @property
    def votes_needed(self) -> int:
        """The quorum, or its default."""
        if self.quorum is not None:
            return self.quorum
        return 2 if len(self.proxies) > 2 else 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.proxies)) != len(self.proxies):
            raise ValueError("proxies: two are the same")
        for proxy in self.proxies:
            if not _is_protected(proxy):
                raise ValueError(
                    f"proxies: {proxy}: write https://, or a loopback address: any host could vote"
                )
        if self.proxies and self.votes_needed > len(self.proxies):
            raise ValueError(f"a quorum of {self.quorum} cannot be had of {len(self.proxies)} proxies")
        return self


def _is_protected(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
