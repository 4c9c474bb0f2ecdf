"""Where a snapshot is in a store that both ends know: what sources and targets of one kind have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dnsproxy.settings.values import Model

_ENDPOINT = re.compile(r"https?://[^/\s?#@]+/?")
# Names as the API server takes them (RFC 1123): of objects, of namespaces, keys of their data.
_OBJECT = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_NAMESPACE = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DATA_KEY = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$"


class S3Place(Model):
    """An object of an S3-compatible store."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """Bucket, which must be there."""
    key: Annotated[str, Field(min_length=1, max_length=1024)] = "dnsproxy/snapshot.jws"
    """Key of the object."""
    endpoint: str | None = None
    """`https://oss-cn-hangzhou-internal.aliyuncs.com` or the like, without the bucket; null: that of AWS in
    `region`.
    """
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "us-east-1"
    """Region that requests are signed for. Stores with one region take any."""
    addressing: Literal["virtual", "path"] = "virtual"
    """`virtual`: the bucket is part of the host name, which OSS and AWS want; `path`: of the path, for stores
    without names of that kind (MinIO, Ceph, SeaweedFS as installed).
    """
    credentials_file: Path | None = None
    """File like `~/.aws/credentials`, read again when it changes; null: AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY of the environment, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN),
    or the role of the container or EC2 instance.
    """
    profile: Annotated[str, Field(min_length=1, max_length=64)] = "default"
    """Section of `credentials_file`."""
    ca_file: Path | None = None
    """PEM file of the authority of an https endpoint, besides the system's."""

    @field_validator("endpoint")
    @classmethod
    def _plain_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
            raise ValueError("write for example https://oss-cn-hangzhou.aliyuncs.com, without a path")
        return endpoint

    @field_validator("key")
    @classmethod
    def _plain_key(cls, key: str) -> str:
        if any(part in {"", ".", ".."} for part in key.split("/")) or not key.isprintable():
            raise ValueError("not a key; write for example dnsproxy/snapshot.jws")
        return key

    @model_validator(mode="after")
    def _addressable(self) -> Self:
        host = urlsplit(self.endpoint or "").hostname or ""
        if self.addressing == "virtual" and (":" in host or host.replace(".", "").isdecimal()):
            raise ValueError("endpoint: an address has no names below it; give addressing: path")
        if self.ca_file is not None and (self.endpoint or "").startswith("http://"):
            raise ValueError("ca_file is for an https endpoint")
        return self

    @property
    def place(self) -> str:
        """A URL that names the object and holds no secret."""
        host = urlsplit(self.endpoint).netloc + "/" if self.endpoint else ""
        return f"s3://{host}{self.bucket}/{self.key}"


class KubernetesPlace(Model):
    """An entry of a ConfigMap or Secret."""

    kind: Literal["ConfigMap", "Secret"] = "ConfigMap"
    """`ConfigMap` or `Secret`; a snapshot is signed and no secret, so the former will do."""
    object: Annotated[str, Field(pattern=_OBJECT)] = "dnsproxy-snapshot"
    """Name of the object."""
    namespace: Annotated[str, Field(pattern=_NAMESPACE)] | None = None
    """Its namespace; null: that of this pod, or of the kubeconfig's context."""
    key: Annotated[str, Field(pattern=_DATA_KEY)] = "snapshot.jws"
    """Key of its data."""
    kubeconfig: Path | None = None
    """File with cluster and credentials; null: the service account of this pod."""
    context: str | None = None
    """Context of `kubeconfig`; null: its current one."""

    @model_validator(mode="after")
    def _context_of_a_file(self) -> Self:
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context: give kubeconfig as well")
        return self

    @property
    def place(self) -> str:
        """A URL that names the entry and holds no secret."""
        place = f"kubernetes://{self.namespace or '-'}/{self.kind.lower()}/{self.object}/{self.key}"
        return place if self.kubeconfig is None else f"{place}?{self.kubeconfig}#{self.context or ''}"
