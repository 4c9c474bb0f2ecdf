"""How helpers publish and how proxies learn."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dnsproxy.settings.values import (
    Duration,
    Endpoint,
    Listen,
    Model,
    Ports,
    Resolver,
    parse_endpoint,
    system_resolvers,
)


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


# What stands in place of a URL where there is none, so that every source has a name of its own.
EMBEDDED = "embedded:"
_DNS = "dns://"
_HTTP_OR_FILE = re.compile(r"https?://[^/\s]+/\S*|file:///\S+")


class SourceSettings(Model):
    """Where snapshots come from; ``is_local`` when this host makes them itself."""

    type: Literal["url", "embedded"] = "url"
    url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_of_embedded(cls, given: Any) -> Any:  # noqa: ANN401 - not validated yet
        if isinstance(given, dict) and given.get("type") == "embedded" and "url" not in given:
            return {**given, "url": EMBEDDED}
        return given

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if url.startswith(_DNS):
            host = url.removeprefix(_DNS)
            if "://" in host:
                raise ValueError("write for example dns://10.0.0.5 or dns://10.0.0.5:53")
            parse_endpoint(host, 53)
        elif url not in {"", EMBEDDED} and not _HTTP_OR_FILE.fullmatch(url):
            raise ValueError("not an http://, https://, file:/// or dns:// URL")
        return url

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if not self.url or (self.type == "embedded") != (self.url == EMBEDDED):
            raise ValueError("give a url, or type: embedded without one")
        if self.is_local and (self.token_file or self.ca_file):
            raise ValueError("token_file and ca_file are for http sources")
        return self

    @property
    def is_local(self) -> bool:
        """Whether this host looks itself."""
        return self.type == "embedded" or self.url.startswith(_DNS)

    @property
    def resolver(self) -> Endpoint | None:
        """The resolver of a ``dns://`` source; None for another."""
        return parse_endpoint(self.url.removeprefix(_DNS), 53) if self.url.startswith(_DNS) else None


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
    history: int = Field(10, ge=0, le=100)

    @model_validator(mode="after")
    def _trust(self) -> Self:
        if not all(source.is_local for source in self.sources) and not self.trusted_keys:
            raise ValueError("sources need trusted_keys to check what they publish")
        if len({source.url for source in self.sources}) != len(self.sources):
            raise ValueError("two sources are the same")
        return self
