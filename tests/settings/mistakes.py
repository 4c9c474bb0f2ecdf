"""What the models say about values that are not allowed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dnsproxy.settings import Settings

ACR = {"name": "hz", "region": "cn-hangzhou", "instance": "corp"}


def complaints(**sections: Any) -> str:
    """Return the messages of every problem with ``sections``."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(sections)
    return "; ".join(error["msg"] for error in caught.value.errors())
