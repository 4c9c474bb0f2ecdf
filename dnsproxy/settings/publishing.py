"""Where a helper publishes besides its HTTP endpoint. One model for each kind, told apart by ``type``.

Each has ``name``, which is unlike that of any other and holds no secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dnsproxy.settings.values import Model


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


# One line for each type.
TargetSettings = FileTarget
TargetEntry = FileTarget
