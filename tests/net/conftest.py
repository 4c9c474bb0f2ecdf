"""Every test of the sockets runs on both kinds of loop: asyncio's own, and the one that `serve` uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from dnsproxy.net.loop import HotLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "hot": HotLoop}
