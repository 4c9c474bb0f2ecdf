"""Commands that look and change nothing: routes, doctor, explain."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from dnsproxy.commands.options import DEFAULT_CONFIG, AdminOption, ConfigOption


class RouteFormat(StrEnum):
    """What `routes` prints."""

    TABLE = "table"
    JSON = "json"
    TERRAFORM = "terraform"
    ALIYUN = "aliyun"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(routes)


def routes(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    output: Annotated[
        RouteFormat, typer.Option("--format", help="terraform and aliyun: what is missing only.")
    ] = RouteFormat.TABLE,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit code 1 when an address in service is not in network.routed."),
    ] = False,
) -> None:
    """Show the entries that the route tables of this side need, and which of them are missing."""
    from dnsproxy.config import load  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.ops.known import read_known, routed_ranges  # noqa: PLC0415
    from dnsproxy.ops.route_formats import to_aliyun, to_json, to_terraform  # noqa: PLC0415
    from dnsproxy.ops.routes import plan_routes  # noqa: PLC0415

    settings = load(config)
    plan = plan_routes(read_known(settings, admin, time.time()), routed_ranges(settings))
    if output is RouteFormat.JSON:
        typer.echo(json.dumps(to_json(plan), indent=2))
    elif output is RouteFormat.TERRAFORM:
        typer.echo(to_terraform(plan), nl=False)
    elif output is RouteFormat.ALIYUN:
        typer.echo(to_aliyun(plan), nl=False)
    else:
        from dnsproxy.ops.tables import open_console, routes_table  # noqa: PLC0415

        console = open_console()
        console.print(routes_table(plan))
        for note in plan.notes:
            console.print(f"note: {note}", soft_wrap=True, markup=False)
    if check and plan.uncovered:
        for entry in plan.uncovered:
            place = f"network.routed of registry {entry.registry}"
            print(f"{entry.name.removesuffix('.')}: {entry.address} is not in {place}", file=sys.stderr)  # noqa: T201 - a command's output
        raise typer.Exit(1)
