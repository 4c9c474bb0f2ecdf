from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.commands.options import ask
from dnsproxy.errors import ConfigError
from dnsproxy.ops.client import AdminError


def test_an_endpoint_that_is_given_needs_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match=r"http://127\.0\.0\.1:1: no usable answer"):
        ask(tmp_path / "none.yaml", "http://127.0.0.1:1", "GET", "/")


def test_else_the_configuration_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ask(tmp_path / "none.yaml", None, "GET", "/")
    path = tmp_path / "config.yaml"
    path.write_text("admin: {listen: null}\n")
    with pytest.raises(AdminError, match=r"admin\.listen is null"):
        ask(path, None, "GET", "/")
