"""Where a helper publishes besides its HTTP endpoint. One model for each kind, told apart by ``type``.

Each has ``name``, which is unlike that of any other and holds no secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Tag

from dnsproxy.settings.etcd import EtcdTarget
from dnsproxy.settings.stores import KubernetesPlace, S3Place
from dnsproxy.settings.values import Model, by_type


class FileTarget(Model):
    """A file, replaced whole with each snapshot."""

    type: Literal["file"]
    """`file`: a file of this host."""
    path: Path
    """Where it is; its folder must be there and writable."""

    @property
    def name(self) -> str:
        """What logs and health call it."""
        return f"file://{self.path}"


class S3Target(S3Place):
    """An object of an S3-compatible store."""

    type: Literal["s3"]
    """`s3`: an object of an S3-compatible store, OSS for example; needs the extra `s3`."""

    @property
    def name(self) -> str:
        """What logs and health call it."""
        return self.place


class KubernetesTarget(KubernetesPlace):
    """An entry of a ConfigMap or Secret, which is made when it is not there."""

    type: Literal["kubernetes"]
    """`kubernetes`: an entry of a ConfigMap or Secret, at most 1 MiB; needs the extra
    `kubernetes`.
    """

    @property
    def name(self) -> str:
        """What logs and health call it."""
        return self.place


# One line for each type, here and in the list of their names.
TargetSettings = FileTarget | S3Target | EtcdTarget | KubernetesTarget
TargetEntry = Annotated[
    Annotated[FileTarget, Tag("type file")]
    | Annotated[S3Target, Tag("type s3")]
    | Annotated[EtcdTarget, Tag("type etcd")]
    | Annotated[KubernetesTarget, Tag("type kubernetes")],
    by_type("", "file", "s3", "etcd", "kubernetes"),
]
