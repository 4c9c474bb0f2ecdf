"""Orders to a running proxy: pin, freeze, rollback, canary, history, reload, restart-workers and the like."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    with _order(config, admin, "pin", {"name": name, "addresses": addresses}) as done:
        typer.echo(f"pinned: {_plain(done)} to {', '.join(done['addresses'])}")


def unpin(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Answer NAME as it is learned again."""
    with _order(config, admin, "unpin", {"name": name}) as done:
        typer.echo(f"unpinned: {_plain(done)}, answered as it is learned")


def freeze(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Keep the addresses in service: take no changes until unfreeze."""
    with _order(config, admin, "freeze", {}) as done:
        typer.echo(_frozen(done))


def unfreeze(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Follow what is learned again, after freeze or rollback."""
    with _order(config, admin, "unfreeze", {}) as done:
        typer.echo(f"unfrozen: {done['names']} names follow what is learned")


def rollback(
    serial: Annotated[int, typer.Argument(min=1, help="A serial of `history`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
) -> None:
    """Go back to the addresses learned with SERIAL, and keep them until unfreeze."""
    with _order(config, admin, "rollback", {"serial": serial}) as done:
        typer.echo(_frozen(done))


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
        with _order(config, admin, f"canary/{order.value}", {"name": name}) as done:
            if as_json:
                typer.echo(json.dumps(done, indent=2))
            else:
                new, old = (", ".join(done[key]) for key in ("new", "old"))
                kept = f"new addresses of {_plain(done)}: {new}"
                typer.echo(
                    f"promoted: {kept} (before: {old or '-'})"
                    if order is CanaryOrder.PROMOTE
                    else f"rolled back: {kept} are refused, {old or '-'} stay"
                )
        return
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
    typer.echo(f"{_plain(trial)}: {', '.join(trial['old'])} → {', '.join(trial['new'])}")
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
            held = f" (held: {change['held']})" if change["held"] else ""
            typer.echo(f"    {_plain(change)}: {old} → {new}{held}")
    if not document["history"]:
        typer.echo("nothing was learned yet")
    _tell(document)


def reload(
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    pid: Annotated[
        int | None,
        typer.Option(min=1, help="Process to send SIGHUP to if its admin endpoint cannot be asked."),
    ] = None,
    *,
    helper: Annotated[bool, typer.Option("--helper", help="The helper of this host, not the proxy.")] = False,
) -> None:
    """Have a running proxy or helper take its changed configuration.

    All of it is put in force, or nothing, with every problem and exit code 1.
    """
    from dnsproxy.config import load  # noqa: PLC0415 - as in `options`
    from dnsproxy.ops.client import AdminError  # noqa: PLC0415 - the same

    if helper:
        if admin is not None or pid is not None:
            raise typer.BadParameter("--admin and --pid are a proxy's; --helper asks the helper of --config")
        _report_reload(_reload_helper(config))
        return
    try:
        if pid is not None:
            load(config)
        document = ask(config, admin, "POST", "/api/v1/reload", {})
    except ConfigError as exc:
        # The proxy would say the same; where it can be asked stands in this very file.
        fail(*map(str, exc.problems))
    except AdminError as exc:
        if pid is None or exc.answered:
            raise
        # The endpoint is off, or is another one in the changed file, which is free of mistakes.
        try:
            os.kill(pid, signal.SIGHUP)
        except OSError as failure:
            raise AdminError(f"process {pid}: {failure.strerror}") from exc
        typer.echo(f"sent SIGHUP to process {pid}, whose log has the outcome: {exc}")
        return
    _report_reload(document)


def _reload_helper(config: Path) -> dict[str, Any]:
    from dnsproxy.reload_socket import ask as ask_helper  # noqa: PLC0415 - other commands do not need it

    document = ask_helper(config)
    if document["problems"]:
        fail(*document["problems"])
    return document


def _report_reload(document: Mapping[str, Any]) -> None:
    files = document.get("changed_files", [])  # a proxy of an earlier version does not report them
    for key in (*document["changed"], *files):
        typer.echo(f"changed: {key}")
    for key in document["need_restart"]:
        typer.echo(f"changes at the next start: {key}")
    if not document["changed"] and not files and not document["need_restart"]:
        typer.echo("nothing has changed")


def restart_workers(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Make a running proxy replace its workers, one after another; no query is lost."""
    ask(config, admin, "POST", "/api/v1/restart-workers", {})
    typer.echo("restart of the workers asked for")


@contextmanager
def _order(config: Path, admin: str | None, order: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give an order; yield its result, which the caller prints, then fail if it is not kept over a restart.

    What is printed is the result and not what holds later, which another order may have changed.
    """
    document = ask(config, admin, "POST", f"/api/v1/{order}", body)
    yield document["result"]
    if document["not_saved"]:
        fail(f"in force, but not kept over a restart: {document['not_saved']}")


def _tell(document: Mapping[str, Any]) -> None:
    for held in document["pinned"]:
        typer.echo(f"pinned: {_plain(held)} to {', '.join(held['addresses'])}")
    frozen = document["frozen"]
    typer.echo("not frozen" if frozen is None else _frozen(frozen))


def _frozen(freeze: Mapping[str, Any]) -> str:
    if freeze["rolled_back_to"] is None:
        return f"frozen: {freeze['names']} names keep what they have until `dnsproxy unfreeze`"
    back = f"rolled back to {freeze['rolled_back_to']}"
    return f"frozen: {back}, {freeze['names']} names stay there until `dnsproxy unfreeze`"


def _plain(document: Mapping[str, Any]) -> str:
    return str(document["name"]).removesuffix(".")
