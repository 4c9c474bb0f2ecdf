"""Orders to a running proxy: pin, freeze, rollback, canary, history, reload, restart-workers and the like."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dnsproxy.commands.options import (
    DEFAULT_CONFIG,
    AdminOption,
    ConfigOption,
    JsonOption,
    ask,
    domain_name,
    fail,
    ip_addresses,
)
from dnsproxy.errors import ConfigError

NameArgument = Annotated[str, typer.Argument(callback=domain_name, help="A name of a configured registry.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (pin, unpin, freeze, unfreeze, rollback, canary, history, reload):
        app.command()(command)
    app.command("restart-workers")(restart_workers)


def pin(
    name: NameArgument,
    addresses: Annotated[list[str], typer.Argument(callback=ip_addresses, help="IPv4 or IPv6 addresses.")],
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
) -> None:
    """Answer NAME with these addresses only, until unpin; what is learned of it waits."""
    _order(config, admin, "pin", {"name": name, "addresses": addresses})


def unpin(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Answer NAME as it is learned again."""
    _order(config, admin, "unpin", {"name": name})


def freeze(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Keep the addresses in service: take no changes until unfreeze."""
    _order(config, admin, "freeze", {})


def unfreeze(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Follow what is learned again, after freeze or rollback."""
    _order(config, admin, "unfreeze", {})


def rollback(
    serial: Annotated[int, typer.Argument(min=1, help="A serial of `history`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
) -> None:
    """Go back to the addresses learned with SERIAL, and keep them until unfreeze."""
    _order(config, admin, "rollback", {"serial": serial})


class CanaryOrder(StrEnum):
    """What can be done with new addresses that are on trial."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


def canary(
    order: Annotated[
        CanaryOrder | None,
        typer.Argument(help="Put new addresses of NAME into service, or refuse them; else show all."),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(callback=domain_name, help="A name with new addresses on trial.")
    ] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the new addresses that are on trial or were rolled back; promote them, or roll them back.

    A set that is refused stays so until another one comes, or promote.
    """
    if (order is None) != (name is None):
        raise typer.BadParameter("give promote or rollback together with a name, or neither")
    if order is not None:
        _order(config, admin, f"canary/{order.value}", {"name": name}, tell=False)
    document = ask(config, admin, "GET", "/api/v1/canary")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    if document["canary"] is None:
        typer.echo("learn.canary is not configured: new addresses are taken at once")
        return
    for trial in document["canary"]["trials"]:
        _tell_trial(trial)
    if not document["canary"]["trials"]:
        typer.echo("no new addresses are on trial")


def _tell_trial(trial: Mapping[str, Any]) -> None:
    name = trial["name"].removesuffix(".")
    typer.echo(f"{name}: {', '.join(trial['old'])} → {', '.join(trial['new'])}")
    if trial["state"] == "rolled_back":
        typer.echo(f"    rolled back at {_clock(trial['ended_at'])}: {trial['detail']}")
        return
    to = {"all": "all clients", "none": "nobody yet"}
    span = f"{_clock(trial['started_at'])} to {_clock(trial['ends_at'])}"
    typer.echo(f"    on trial from {span}, answered to {to[trial['served_to']]}")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def history(
    *, config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None, as_json: JsonOption = False
) -> None:
    """Show the sets of addresses learned last, the newest first, and what each changed."""
    document = ask(config, admin, "GET", "/api/v1/history")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for record in document["history"]:
        typer.echo(
            f"{record['serial']}  {_clock(record['taken_at'])}  {record['issuer']}  {record['names']} names"
        )
        for change in record["changes"]:
            old, new = (", ".join(change[key]) or "-" for key in ("old", "new"))
            typer.echo(f"    {change['name'].removesuffix('.')}: {old} → {new}")
    if not document["history"]:
        typer.echo("nothing was learned yet")
    _tell(document)


def reload(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Have a running proxy take its changed configuration: all of it, or nothing and exit code 1."""
    try:
        document = ask(config, admin, "POST", "/api/v1/reload", {})
    except ConfigError as exc:
        # The proxy would say the same; where it can be asked stands in this very file.
        fail(*map(str, exc.problems))
    for key in document["changed"]:
        typer.echo(f"changed: {key}")
    for key in document["need_restart"]:
        typer.echo(f"changes at the next start: {key}")
    if not document["changed"] and not document["need_restart"]:
        typer.echo("nothing has changed")


def restart_workers(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Make a running proxy replace its workers, one after another; no query is lost."""
    ask(config, admin, "POST", "/api/v1/restart-workers", {})
    typer.echo("restart of the workers asked for")


def _order(config: Path, admin: str | None, order: str, body: dict[str, Any], *, tell: bool = True) -> None:
    document = ask(config, admin, "POST", f"/api/v1/{order}", body)
    if tell:
        _tell(document)
    if document["not_saved"]:
        fail(f"in force, but not kept over a restart: {document['not_saved']}")


def _tell(document: Mapping[str, Any]) -> None:
    for held in document["pinned"]:
        typer.echo(f"pinned: {held['name'].removesuffix('.')} to {', '.join(held['addresses'])}")
    frozen = document["frozen"]
    if frozen is None:
        typer.echo("not frozen")
    elif frozen["rolled_back_to"] is None:
        typer.echo(f"frozen: {frozen['names']} names keep what they have until `dnsproxy unfreeze`")
    else:
        back = f"rolled back to {frozen['rolled_back_to']}"
        typer.echo(f"frozen: {back}, {frozen['names']} names stay there until `dnsproxy unfreeze`")
