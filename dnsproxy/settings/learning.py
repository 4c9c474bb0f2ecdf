"""How helpers publish and how proxies learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dnsproxy.core.fields import MAX_LABEL
from dnsproxy.core.text import is_label
from dnsproxy.settings.etcd import EtcdTarget
from dnsproxy.settings.jury import JurySettings
from dnsproxy.settings.publishing import TargetEntry
from dnsproxy.settings.sources import Source, SourceEntry, SourceSettings
from dnsproxy.settings.values import (
    Duration,
    Endpoint,
    HelperListen,
    Model,
    Ports,
    Resolver,
    Share,
    ShareText,
    SourceText,
    system_resolvers,
)

__all__ = ["HelperSettings", "LearnSettings", "Source", "SourceSettings", "TlsSettings", "VerifySettings"]


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


def _printable(value: str) -> str:
    if not is_label(value, MAX_LABEL):
        raise ValueError("not printable text")
    return value


class HelperSettings(Model):
    """The part that runs in the source region."""

    id: Annotated[str, AfterValidator(_printable)] = Field("helper", min_length=1, max_length=64)
    """Who signs. Give each helper its own."""
    listen: HelperListen = Endpoint("127.0.0.1", 8953)
    """Address and port of the HTTP endpoint that proxies pull from."""
    tls: TlsSettings = TlsSettings()
    """Files that make the endpoint HTTPS."""
    token_file: Path | None = None
    """File with the bearer token that proxies must send; null: everybody may read."""
    resolvers: list[Resolver] = Field(default_factory=system_resolvers, min_length=1)
    """Resolvers to ask: `10.0.0.2`, `10.0.0.2:53`, `[fd00::2]:53`, `tcp://10.0.0.2`, or `system` for those of
    /etc/resolv.conf: other servers in it are in force within seconds, and a file that cannot be read, or
    names none, changes nothing.
    """
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """Longest time between two looks at a name. Registries are asked every tenth time."""
    signing_key_file: Path = Path("/etc/dnsproxy/helper.key")
    """Private key to sign with, made by `dnsproxy keygen`. A file that others can read is refused."""
    publish_file: Path | None = None
    """Also write each snapshot to this file, for a channel other than HTTP."""
    publish: list[TargetEntry] = Field(default_factory=list)
    """Where each snapshot is put besides: files, and stores that many proxies read."""

    canary: JurySettings = JurySettings()
    """Whom to ask how new sets of addresses fare on trial."""

    @model_validator(mode="after")
    def _distinct_targets(self) -> Self:
        if len({target.name for target in self.publish}) != len(self.publish):
            raise ValueError("publish: two targets are the same")
        if sum(isinstance(target, EtcdTarget) and target.elect for target in self.publish) > 1:
            raise ValueError("publish: elect is for one target")
        return self

    @property
    def office(self) -> EtcdTarget | None:
        """The target with which helpers elect a leader; None without."""
        found = (target for target in self.publish if isinstance(target, EtcdTarget) and target.elect)
        return next(found, None)


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


class CanarySettings(Model):
    """A new set of addresses is answered by a share of the proxies before it is answered by all."""

    share: ShareText = Share(50_000)
    """Part of all proxies that answer with a new set at once, `0%` to `100%`. Which of them do is drawn by
    lot from `admin.identity` (or the name of the host), the name and the set: others for each change.
    """
    hold: Annotated[Duration, Field(ge=1, le=604_800)] = 600.0
    """How long the others keep the old set. They take the new one after it if its addresses have answered
    all probes, or at once when the old set works no more.
    """
    fall: int = Field(3, ge=2, le=100)
    """Failed probes in a row of one new address that roll a new set back: the old one is answered by all, and
    the new one is refused until another comes or `dnsproxy canary promote`.
    """


class KeySettings(Model):
    """A key that is believed about some registries only."""

    file: Path
    """The public key."""
    registries: list[str] = Field(min_length=1)
    """Labels of the registries whose names its helper may speak for, and no others."""


class LearnSettings(Model):
    """How the proxy learns."""

    sources: list[SourceEntry] = Field(default_factory=list)
    """Where to pull from. Several: the newest valid snapshot of each helper counts. Without any, only pinned
    names are owned.
    """
    trusted_keys: list[KeySettings | Path] = Field(default_factory=list)
    """Public keys of the helpers to believe, `helper.pub` of `dnsproxy keygen`. Needed with sources from
    elsewhere. Each is a file, whose helper may speak for every registry, or has `file` and `registries`:
    with helpers in several regions or clouds, a stolen key then speaks for its own names alone.
    """
    state_file: Path = Path("/var/lib/dnsproxy/learned.jws")
    """The last snapshots taken; what the proxy answers from after a restart without any helper."""
    refresh: Annotated[Duration, Field(ge=0.1, le=3600)] = 15.0
    """Time between two pulls of a source."""
    source_address: SourceText | None = None
    """What requests to sources leave from, as in `forward.source`: those over HTTP and to etcd, and what a
    `dns://` or embedded source asks resolvers and registries; null: as the routes have it. Sources of types
    `s3` and `kubernetes` cannot have one. Probes of learned addresses leave as the routes have it.
    """
    ttl: int = Field(30, ge=1, le=3600)
    """TTL given to clients for learned names, in seconds."""
    max_stale: Duration = math.inf
    """How long an address that no helper confirms any more is still answered."""
    verify: VerifySettings = VerifySettings()
    """How addresses are made sure of. A changed set of addresses is answered once one of them works; of a
    set, members that do not work are left out while another does. Queries never wait for this.
    """
    canary: CanarySettings | None = None
    """Try a new set on a share of the proxies first; null: all take it at once."""
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
        fixed = sorted({source.type for source in self.sources} & {"s3", "kubernetes"})
        if self.source_address is not None and fixed:
            raise ValueError(f"source_address: a source of type {fixed[0]} cannot have one; use a route")
        return self
