"""How helpers publish and how proxies learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dnsproxy.settings.values import Duration, Endpoint, Listen, Model, Ports, Resolver, system_resolvers


class TlsSettings(Model):
    """Files of a TLS server; both, or neither for plain HTTP."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give cert_file and key_file together")
        if self.client_ca_file and not self.cert_file:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class HelperSettings(Model):
    """The part that runs in the source region."""

    id: str = Field("helper", min_length=1, max_length=64)
    listen: Listen = Endpoint("127.0.0.1", 8953)
    tls: TlsSettings = TlsSettings()
    token_file: Path | None = None
    resolvers: list[Resolver] = Field(default_factory=system_resolvers, min_length=1)
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    signing_key_file: Path = Path("/etc/dnsproxy/helper.key")
    publish_file: Path | None = None


class SourceSettings(Model):
    """Where snapshots are pulled from."""

    url: str = Field(pattern=r"^(https?://[^/\s]+/\S*|file:///\S+)$")
    token_file: Path | None = None
    ca_file: Path | None = None


class VerifySettings(Model):
    """How the proxy makes sure that a learned address works. Without ports it does not."""

    ports: Ports = Field(default_factory=lambda: [443])
    tls: bool = True
    timeout: Annotated[Duration, Field(ge=0.1, le=30)] = 2.0
    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 30.0
    on_failure: Literal["keep", "accept"] = "keep"
    ca_file: Path | None = None


class LearnSettings(Model):
    """How the proxy learns."""

    sources: list[SourceSettings] = Field(default_factory=list)
    trusted_keys: list[Path] = Field(default_factory=list)
    state_file: Path = Path("/var/lib/dnsproxy/learned.jws")
    refresh: Annotated[Duration, Field(ge=0.1, le=3600)] = 15.0
    ttl: int = Field(30, ge=1, le=3600)
    max_stale: Duration = math.inf
    verify: VerifySettings = VerifySettings()
    on_change: Path | None = None
    history: int = Field(10, ge=0, le=1000)

    @model_validator(mode="after")
    def _trust(self) -> Self:
        if self.sources and not self.trusted_keys:
            raise ValueError("sources need trusted_keys to check what they publish")
        return self
