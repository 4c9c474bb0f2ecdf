"""Whom a helper asks how new sets of addresses fare on trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from dnsproxy.settings.values import AdminUrl, Duration, Model


class JurySettings(Model):
    """Proxies that are asked how new sets of addresses fare on trial with them (`learn.canary`)."""

    proxies: list[AdminUrl] = Field(default_factory=list, max_length=1000)
    """Their admin endpoints, such as `http://10.0.0.1:9153`; none: nobody is asked. A set that they have
    rolled back is refused in the snapshot, so that all others drop it without waiting.
    """
    quorum: int = Field(1, ge=1, le=1000)
    """How many of them must have rolled a set back by their own probes."""
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 15.0
    """Time between two rounds of questions."""
    token_file: Path | None = None
    """File with the bearer token that they ask for (their `admin.token_file`)."""
    ca_file: Path | None = None
    """PEM file of the authority of https endpoints; null: the system's."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.proxies)) != len(self.proxies):
            raise ValueError("proxies: two are the same")
        if self.proxies and self.quorum > len(self.proxies):
            raise ValueError(f"a quorum of {self.quorum} cannot be had of {len(self.proxies)} proxies")
        return self
