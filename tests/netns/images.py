"""Images made by hand, as OCI layouts: one layer with one file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import tarfile
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"


class Image:
    """An image that nobody has seen before: its file holds random octets.

    https://github.com/opencontainers/image-spec/blob/main/image-layout.md
    """

    def __init__(self, folder: Path) -> None:
        self.layout = folder
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        archive = _archive("hello", secrets.token_hex(512).encode())
        self.layer = self._add(f"{MEDIA}.layer.v1.tar+gzip", gzip.compress(archive, mtime=0))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}"]},
        }
        self.config = self._add(f"{MEDIA}.config.v1+json", _json(config))
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": self.config,
            "layers": [self.layer],
        }
        self.manifest = self._add(f"{MEDIA}.manifest.v1+json", _json(manifest))
        index = {"schemaVersion": 2, "manifests": [self.manifest]}
        (folder / "index.json").write_bytes(_json(index))
        (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))

    @property
    def digests(self) -> set[str]:
        """Hex digests of its three blobs."""
        return {part["digest"].removeprefix("sha256:") for part in (self.layer, self.config, self.manifest)}

    def is_whole_in(self, layout: Path) -> bool:
        """Tell whether another layout holds the same blobs, octet for octet."""
        copies = {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}
        return copies == {digest: (self._blobs / digest).read_bytes() for digest in self.digests}

    def _add(self, media_type: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _archive(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
