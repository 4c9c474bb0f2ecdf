"""Kinds of sources and targets whose library comes as an extra of this package."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Final

# Not through the name of this project: the package of that name on PyPI is another program.
PACKAGES: Final = {"s3": "obstore>=0.11,<0.13", "kubernetes": "lightkube>=1.0.1,<2"}
_LIBRARIES: Final = {"s3": "obstore", "kubernetes": "lightkube"}


def needs_extra(kind: str) -> str:
    """Return what to say where the library of ``kind`` is not installed."""
    return f"{kind} needs another package: pip install '{PACKAGES[kind]}'"


def missing_extras(kinds: Collection[str]) -> list[str]:
    """Return those of ``kinds`` whose library is not installed; none is loaded for that."""
    return [kind for kind, library in _LIBRARIES.items() if kind in kinds and find_spec(library) is None]
