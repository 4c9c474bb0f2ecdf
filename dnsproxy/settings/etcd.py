"""etcd as source and as target: the cluster, who we are there, and the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dnsproxy.settings.values import Duration, Model

_ENDPOINT = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?")


def _endpoint(value: str) -> str:
    match = _ENDPOINT.fullmatch(value)
    # No message may show more: a user name or password may be in it.
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError("not the URL of a member; write for example https://10.0.0.10:2379")
    return value.rstrip("/")


class EtcdTls(Model):
    """Files for TLS with the members."""

    ca_file: Path | None = None
    """PEM file of the authority of the members' certificates; null: the system's."""
    cert_file: Path | None = None
    """PEM file of our certificate, for clusters that ask for one (`--client-cert-auth`). It must have no
    common name: etcd's gateway refuses those.
    """
    key_file: Path | None = None
    """PEM file of its private key; together with `cert_file`."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give cert_file and key_file together")
        return self


class EtcdConnection(Model):
    """What source and target have in common."""

    endpoints: list[Annotated[str, AfterValidator(_endpoint)]] = Field(min_length=1)
    """URLs of the members, such as `https://10.0.0.10:2379`. One that fails is followed by the next."""
    key: str = Field(min_length=1, max_length=1024)
    """The key that holds the snapshot, such as `/dnsproxy/hangzhou`."""
    tls: EtcdTls = EtcdTls()
    """Files for https endpoints."""
    user: str | None = None
    """User of etcd's own authentication; null: none is asked for."""
    password_file: Path | None = None
    """File with the user's password; together with `user`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("give user and password_file together")
        if self.tls != EtcdTls() and not all(url.startswith("https:") for url in self.endpoints):
            raise ValueError("tls is for https endpoints")
        return self

    @property
    def url(self) -> str:
        """What logs, status and metrics call it."""
        members = ",".join(url.partition("://")[2] for url in self.endpoints)
        return f"etcd://{members}/{self.key.removeprefix('/')}"


class EtcdSource(EtcdConnection):
    """A key that is watched."""

    type: Literal["etcd"]
    """`etcd`: a key of an etcd cluster (version 3.4 or later), which is watched: a change is here at once."""

    @property
    def is_local(self) -> bool:
        """Never: a helper has put it there."""
        return False

    @property
    def can_wait(self) -> bool:
        """Always: it is watched."""
        return True


class EtcdTarget(EtcdConnection):
    """A key that is written, by one helper of several where they elect one."""

    type: Literal["etcd"]
    """`etcd`: a key of an etcd cluster (version 3.4 or later)."""
    elect: bool = False
    """Helpers with the same `helper.id` and this key elect one of them, which alone publishes: here, and by
    its other targets. The others give by HTTP what it has published, and one of them follows it when its
    lease is over. The election is at the key with `/leader` behind it.
    """
    lease: Annotated[Duration, Field(ge=3, le=300)] = 10.0
    """With `elect`: how long a leader that says nothing more keeps its office."""
    peer_keys: list[Path] = Field(default_factory=list)
    """With `elect`: public keys of helpers of the group that sign with keys of their own."""

    @model_validator(mode="after")
    def _elects(self) -> Self:
        if self.peer_keys and not self.elect:
            raise ValueError("peer_keys is for elect: true")
        return self

    @property
    def name(self) -> str:
        """What logs and health call it."""
        return self.url
