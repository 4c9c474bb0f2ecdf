"""The committed findings of each parser: one per line, packed and in base64."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read(parser: str) -> list[bytes]:
    """Return the findings of ``parser``; none before the first search."""
    path = FOLDER / f"{parser}.txt"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [zlib.decompress(base64.b64decode(line, validate=True)) for line in lines]


def write(parser: str, inputs: Iterable[bytes]) -> None:
    """Replace the findings of ``parser``."""
    FOLDER.mkdir(exist_ok=True)
    text = "".join(f"{base64.b64encode(zlib.compress(data, 9)).decode('ascii')}\n" for data in inputs)
    (FOLDER / f"{parser}.txt").write_text(text, encoding="ascii")
