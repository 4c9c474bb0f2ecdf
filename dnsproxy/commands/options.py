"""Options that several commands share, and the way to a running proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_CONFIG = Path("/etc/dnsproxy/config.yaml")
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="DNSPROXY_CONFIG", help="Configuration file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
AdminOption = Annotated[
    str | None,
    typer.Option("--admin", help="Admin endpoint, as http://127.0.0.1:9153; else the one of --config."),
]


def ask(
    config: Path, admin: str | None, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the running proxy answers; ``admin`` is used in place of the configuration's endpoint.

    Raises:
        AdminError: no usable answer.
        ConfigError: the configuration is needed and cannot be used.
    """
    from dnsproxy.config import load  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.ops.client import AdminClient  # noqa: PLC0415

    client = AdminClient(admin) if admin else AdminClient.from_settings(load(config).admin)
    return client.call(method, path, body)
