"""``dnsproxy health``: for the health checks of containers and service managers."""

from __future__ import annotations

from typing import Annotated

import typer

from dnsproxy.commands.options import DEFAULT_CONFIG, ConfigOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(health)


def health(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    helper: Annotated[bool, typer.Option("--helper", help="Ask the helper, not the proxy.")] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Also: every name has an address; the helper has a snapshot.")
    ] = False,
) -> None:
    """Ask the program that runs with this configuration how it is. Exit code 1 when it is not well."""
    from dnsproxy.config import load  # noqa: PLC0415 - `--version` starts faster without these
    from dnsproxy.ops.health import helper_health, proxy_health  # noqa: PLC0415

    ask = helper_health if helper else proxy_health
    typer.echo(ask(load(config), ready=ready))
