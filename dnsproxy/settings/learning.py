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
    """PEM file of the certificate, with intermediate ones; null: plain HTTP. Snapshots are signed all the
    same.
    """
    key_file: Path | None = None
    """PEM file of its private key; together with `cert_file`."""
    client_ca_file: Path | None = None
    """PEM file of an authority; each proxy is then asked for a certificate of it."""

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
    """Who signs. Give each helper its own."""
    listen: Listen = Endpoint("127.0.0.1", 8953)
    """Address and port of the HTTP endpoint that proxies pull from."""
    tls: TlsSettings = TlsSettings()
    """Files that make the endpoint HTTPS."""
    token_file: Path | None = None
    """File with the bearer token that proxies must send; null: everybody may read."""
    resolvers: list[Resolver] = Field(default_factory=system_resolvers, min_length=1)
    """Resolvers to ask: `10.0.0.2`, `10.0.0.2:53`, `[fd00::2]:53`, `tcp://10.0.0.2`, or `system` for those of
    /etc/resolv.conf.
    """
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """Longest time between two looks at a name. Registries are asked every tenth time."""
    signing_key_file: Path = Path("/etc/dnsproxy/helper.key")
    """Private key to sign with, made by `dnsproxy keygen`. A file that others can read is refused."""
    publish_file: Path | None = None
    """Also write each snapshot to this file, for a channel other than HTTP."""


# What stands in place of a URL where there is none, so that every source has a name of its own.
EMBEDDED = "embedded:"
_DNS = "dns://"
_HTTP_OR_FILE = re.compile(r"https?://[^/\s]+/\S*|file:///\S+")


class SourceSettings(Model):
    """Where snapshots come from; ``is_local`` when this host makes them itself."""

    type: Literal["url", "embedded"] = "url"
    """`url`, or `embedded`: the proxy looks itself, through `helper.resolvers`; without `url`."""
    url: str = ""
    """`http://`, `https://` or `file:///path` of a helper's snapshot; or `dns://10.0.0.5` or
    `dns://10.0.0.5:53`, a resolver that gives the source region's answers: the proxy then looks itself,
    every `helper.interval`. What it sees is signed with a key that it makes beside `state_file`.
    """
    token_file: Path | None = None
    """File with the bearer token to send."""
    ca_file: Path | None = None
    """PEM file of the authority of an https source; null: the system's."""

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
    """TCP ports that an address must answer on, all of them; none: nothing is probed."""
    tls: bool = True
    """Also ask for the name's certificate, on all ports but 80. Without `ca_file` it must be for the name,
    whoever signed it.
    """
    timeout: Annotated[Duration, Field(ge=0.1, le=30)] = 2.0
    """Longest time of one probe."""
    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 30.0
    """Time between two probes of one address."""
    on_failure: Literal["keep", "accept"] = "keep"
    """What a changed set of addresses does when none of it works: `keep` the old one, if that works, or
    `accept` the new one.
    """
    ca_file: Path | None = None
    """PEM file: the certificate must then be this authority's and in time."""


class LearnSettings(Model):
    """How the proxy learns."""

    sources: list[SourceSettings] = Field(default_factory=list)
    """Where to pull from. Several: the newest valid snapshot of each helper counts. Without any, only pinned
    names are owned.
    """
    trusted_keys: list[Path] = Field(default_factory=list)
    """Public keys of the helpers to believe, `helper.pub` of `dnsproxy keygen`. Needed with sources from
    elsewhere.
    """
    state_file: Path = Path("/var/lib/dnsproxy/learned.jws")
    """The last snapshots taken; what the proxy answers from after a restart without any helper."""
    refresh: Annotated[Duration, Field(ge=0.1, le=3600)] = 15.0
    """Time between two pulls of a source."""
    ttl: int = Field(30, ge=1, le=3600)
    """TTL given to clients for learned names, in seconds."""
    max_stale: Duration = math.inf
    """How long an address that no helper confirms any more is still answered."""
    verify: VerifySettings = VerifySettings()
    """How addresses are made sure of. A changed set of addresses is answered once one of them works; of a
    set, members that do not work are left out while another does. Queries never wait for this.
    """
    on_change: Path | None = None
    """Program to run when addresses change, with JSON on standard input; for at most 30 s, one at a time."""
    history: int = Field(10, ge=0, le=100)
    """Sets of learned addresses kept for `dnsproxy rollback`."""

    @model_validator(mode="after")
    def _trust(self) -> Self:
        if not all(source.is_local for source in self.sources) and not self.trusted_keys:
            raise ValueError("sources need trusted_keys to check what they publish")
        if len({source.url for source in self.sources}) != len(self.sources):
            raise ValueError("two sources are the same")
        return self
