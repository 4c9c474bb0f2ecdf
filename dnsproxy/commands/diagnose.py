"""Commands that look and change nothing: routes, doctor, explain."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlencode

import typer

from dnsproxy.commands.options import (
    DEFAULT_CONFIG,
    AdminOption,
    ConfigOption,
    JsonOption,
    admin_files,
    ask,
    domain_name,
    fail,
    ip_addresses,
    is_config_given,
)


class RouteFormat(StrEnum):
    """What `routes` prints."""

    TABLE = "table"
    JSON = "json"
    TERRAFORM = "terraform"
    ALIYUN = "aliyun"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(routes)
    app.command()(doctor)
    app.command()(explain)


def routes(
    context: typer.Context,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    output: Annotated[
        RouteFormat, typer.Option("--format", help="terraform and aliyun: what is missing only.")
    ] = RouteFormat.TABLE,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Exit code 1 when an address is not in network.routed or not probed, or a name is unknown.",
        ),
    ] = False,
) -> None:
    """Show the entries that the route tables of this side need, and which of them are missing.

    With --admin and without --config everything is asked of the proxy.
    """
    from dnsproxy.config import load  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.ops.known import read_known  # noqa: PLC0415
    from dnsproxy.ops.proxy_settings import from_proxy, from_settings  # noqa: PLC0415
    from dnsproxy.ops.route_formats import to_aliyun, to_json, to_terraform  # noqa: PLC0415
    from dnsproxy.ops.routes import plan_routes  # noqa: PLC0415

    if admin is not None and not is_config_given(context):
        proxy, known = from_proxy(admin, admin_files())
    else:
        settings = load(config)
        proxy, known = from_settings(settings), read_known(settings, admin, time.time(), admin_files())
    plan = plan_routes(known, proxy.routed)
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
        console.print(f"from {plan.origin}, serial {plan.serial}", soft_wrap=True, markup=False)
        for note in (*plan.unknown, *plan.notes):
            console.print(f"note: {note}", soft_wrap=True, markup=False)
    problems = [*map(str, plan.uncovered), *plan.unknown, *plan.unprobed]
    if check and problems:
        fail(*problems)


def doctor(
    context: typer.Context,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    resolver: Annotated[
        list[str] | None,
        typer.Option(
            "--resolver",
            metavar="ADDRESS",
            help="Server to ask in place of those of resolv.conf; may be repeated.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=30, help="Time for each attempt.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Follow a pull hop by hop from this host or container, and name the hop that is broken.

    The last line is the verdict. Exit code 1 when a hop is broken. Nothing is changed anywhere. With --admin
    and without --config the names are asked of the proxy.
    """
    from dnsproxy.config import load  # noqa: PLC0415
    from dnsproxy.errors import DnsproxyError  # noqa: PLC0415
    from dnsproxy.ops.doctor import Site, examine  # noqa: PLC0415
    from dnsproxy.ops.doctor_verdict import fold, verdict  # noqa: PLC0415
    from dnsproxy.ops.known import Known, read_known  # noqa: PLC0415
    from dnsproxy.ops.proxy_settings import from_proxy, from_settings  # noqa: PLC0415
    from dnsproxy.settings.values import parse_endpoint  # noqa: PLC0415

    try:
        servers = tuple(parse_endpoint(text, 53) for text in resolver or ())
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--resolver") from exc
    known: Known | None
    reason = ""
    if admin is not None and not is_config_given(context):
        proxy, known = from_proxy(admin, admin_files())
    else:
        settings = load(config)
        proxy, known = from_settings(settings), None
        try:
            known = read_known(settings, admin, time.time(), admin_files())
        except DnsproxyError as exc:
            reason = str(exc)
    findings = asyncio.run(examine(proxy, known, reason, Site(servers, timeout)))
    failed = [finding.hop for finding in findings if finding.failed]
    if as_json:
        document = {
            "verdict": verdict(findings),
            "failed": list(dict.fromkeys(failed)),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        from dnsproxy.ops.tables import findings_table, open_console  # noqa: PLC0415

        open_console().print(findings_table(fold(findings)))
    if failed:
        fail(verdict(findings))
    if not as_json:
        typer.echo(verdict(findings))


def _type(value: str) -> str:
    from dnsproxy.core.explain import type_code  # noqa: PLC0415

    try:
        type_code(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return value


def _client(value: str | None) -> str | None:
    return None if value is None else ip_addresses([value])[0]


def explain(
    name: Annotated[str, typer.Argument(callback=domain_name, help="Name to explain.")],
    qtype: Annotated[
        str, typer.Argument(metavar="[TYPE]", callback=_type, help="A, AAAA, HTTPS, TYPE65 ...")
    ] = "A",
    *,
    client: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            callback=_client,
            help="Address of a client: may it ask at all? Default: not looked at.",
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a running proxy would do with a query, and why. Nothing is asked and nothing is changed."""
    asked = {"name": name, "type": qtype} | ({"client": client} if client else {})
    document = ask(config, admin, "GET", f"/api/v1/explain?{urlencode(asked)}")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{document['name']} {document['type']}")
    for number, step in enumerate(document["steps"], start=1):
        typer.echo(f"  {number}. {step}")
