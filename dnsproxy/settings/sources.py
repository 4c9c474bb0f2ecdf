"""Where a proxy gets snapshots from. One model for each kind of source, told apart by ``type``.

Each has ``url``, which names the source and is unlike that of any other; ``is_local`` when this host
makes the snapshots itself; and ``can_wait`` when a request may be kept until something is new.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Tag, field_validator, model_validator

from dnsproxy.settings.etcd import EtcdSource
from dnsproxy.settings.stores import KubernetesPlace, S3Place
from dnsproxy.settings.values import Endpoint, Model, by_type, parse_endpoint

# What stands in place of a URL where there is none, so that every source has a name of its own.
EMBEDDED = "embedded:"
_DNS = "dns://"
_ZONE_ID = re.compile(r"https?://\[[^\]]*%")
_HTTP_OR_FILE = re.compile(r"https?://[^/\s]+/\S*|file:///\S+")


class SourceSettings(Model):
    """A URL, or a helper inside the proxy."""

    type: Literal["url", "embedded"] = "url"
    """`url`, or `embedded`: the proxy looks itself, through `helper.resolvers`; without `url`. Others have
    keys of their own, below.
    """
    url: str = ""
    """`http://`, `https://` or `file:///path` of a helper's snapshot; a file is also looked at whenever it is
    written or replaced. Or `dns://10.0.0.5` or `dns://10.0.0.5:53`, a resolver that gives the source region's
    answers: the proxy then looks itself, every `helper.interval`. What it sees is signed with a key that it
    makes beside `state_file`.
    """
    token_file: Path | None = None
    """File with the bearer token to send."""
    ca_file: Path | None = None
    """PEM file of the authority of an https source; null: the system's."""
    long_poll: bool = True
    """Whether an http source may keep a request until something is new; false where a cache or CDN stands in
    between: then it is asked every `learn.refresh`, and most of that the cache answers.
    """

    registries: Annotated[list[str], Field(min_length=1)] | None = None
    """Where the proxy looks itself: labels of the registries to look for, others being for other sources;
    null: all. For the helper of a URL, limit its key (`learn.trusted_keys`).
    """

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
        elif _ZONE_ID.match(url):
            raise ValueError(f"{url!r} has an IPv6 zone id, which is not supported")
        elif url not in {"", EMBEDDED} and not _HTTP_OR_FILE.fullmatch(url):
            raise ValueError("not an http://, https://, file:/// or dns:// URL")
        return url

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if not self.url or (self.type == "embedded") != (self.url == EMBEDDED):
            raise ValueError("give a url, or type: embedded without one")
        if self.is_local and (self.token_file or self.ca_file):
            raise ValueError("token_file and ca_file are for http sources")
        if self.registries and not self.is_local:
            raise ValueError("registries is for dns:// and embedded sources; limit the key in trusted_keys")
        return self

    @property
    def is_local(self) -> bool:
        """Whether this host looks itself."""
        return self.type == "embedded" or self.url.startswith(_DNS)

    @property
    def resolver(self) -> Endpoint | None:
        """The resolver of a ``dns://`` source; None for another."""
        return parse_endpoint(self.url.removeprefix(_DNS), 53) if self.url.startswith(_DNS) else None

    @property
    def can_wait(self) -> bool:
        """Whether a long poll may be asked for.

        Of a helper, elsewhere or inside this program; not of a file, nor where the URL has a
        query of its own, which may be signed as a whole (object stores).
        """
        return self.is_local or (self.long_poll and self.url.startswith("http") and "?" not in self.url)


class S3Source(S3Place):
    """An object of an S3-compatible store, looked at again every `learn.refresh`."""

    type: Literal["s3"]
    """`s3`: an object of an S3-compatible store, OSS for example; needs the extra `s3`."""

    is_local: ClassVar[bool] = False
    can_wait: ClassVar[bool] = False

    @property
    def url(self) -> str:
        """What logs and status call it."""
        return self.place


class KubernetesSource(KubernetesPlace):
    """An entry of a ConfigMap or Secret, watched through the API server."""

    type: Literal["kubernetes"]
    """`kubernetes`: an entry of a ConfigMap or Secret, watched through the API server; needs the extra
    `kubernetes`. Where it can be mounted, `url: file:///...` of the mounted file spares that.
    """

    is_local: ClassVar[bool] = False
    can_wait: ClassVar[bool] = True

    @property
    def url(self) -> str:
        """What logs and status call it."""
        return self.place


# One line for each type, here and in the list of their names.
Source = SourceSettings | S3Source | EtcdSource | KubernetesSource
SourceEntry = Annotated[
    Annotated[SourceSettings, Tag("type url")]
    | Annotated[SourceSettings, Tag("type embedded")]
    | Annotated[S3Source, Tag("type s3")]
    | Annotated[EtcdSource, Tag("type etcd")]
    | Annotated[KubernetesSource, Tag("type kubernetes")],
    by_type("url", "url", "embedded", "s3", "etcd", "kubernetes"),
]
