"""`dnsproxy hosts`: take a hosts file over, write one as a last resort, find lines that rot."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dnsproxy.commands.options import (
    DEFAULT_CONFIG,
    AdminOption,
    ConfigOption,
    JsonOption,
    admin_files,
    fail,
    is_config_given,
)
from dnsproxy.core.text import printable

hosts = typer.Typer(no_args_is_help=True, help="Hosts files: import, export, audit.")
_DEFAULT = Path("/etc/hosts")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(hosts, name="hosts")


@hosts.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Hosts file to take over.")],
    *,
    pin: Annotated[bool, typer.Option("--pin", help="Pin the addresses, not learn them.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also pin names that belong to no registry service.")
    ] = False,
) -> None:
    """Print the `registries` section of a configuration that does what a hosts file did.

    Exit code 1 when a line cannot be read, with its number and the reason; the others are printed.
    """
    from dnsproxy.ops.hosts import import_hosts  # noqa: PLC0415 - `check` and `--version` start faster without
    from dnsproxy.ops.hostsfile import read_text, split_hosts  # noqa: PLC0415

    imported = import_hosts(split_hosts(read_text(file)), pin=pin, everything=everything)
    typer.echo(f"# From {file} by dnsproxy hosts import. Check regions, instances and storage.")
    typer.echo(imported.text, nl=False)
    for line in imported.left_out:
        typer.echo(f"# left out: {line}")
    problems = []
    for unread in imported.unread:
        text, reason = printable(unread.text), printable(unread.reason)
        typer.echo(f"# not read: line {unread.number}: {text}: {reason}")
        problems.append(f"{file}:{unread.number}: {text}: {reason}")
    if problems:
        fail(*problems)


@hosts.command()
def export(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Print hosts lines for nodes that cannot ask the proxy at all: a last resort, for they go stale."""
    from dnsproxy.config import load  # noqa: PLC0415
    from dnsproxy.ops.hosts import export_hosts  # noqa: PLC0415
    from dnsproxy.ops.known import ask_known, read_known  # noqa: PLC0415

    now = time.time()
    if admin is not None and not is_config_given(context):
        known = ask_known(admin, admin_files())
    else:
        known = read_known(load(config), admin, now, admin_files())
    typer.echo(export_hosts(known, now), nl=False)


@hosts.command()
def audit(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Hosts file to look at.")
    ] = _DEFAULT,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find lines that stand before the proxy's answers. Exit code 1 when there are any."""
    from dnsproxy.config import load  # noqa: PLC0415
    from dnsproxy.ops.hosts import audit_hosts  # noqa: PLC0415
    from dnsproxy.ops.hostsfile import read_hosts  # noqa: PLC0415
    from dnsproxy.ops.known import NothingKnownError, ask_known, configured, read_known  # noqa: PLC0415

    if admin is not None and not is_config_given(context):
        known = ask_known(admin, admin_files())
    else:
        settings = load(config)
        try:
            known = read_known(settings, admin, time.time(), admin_files())
        except NothingKnownError:
            # Which names are owned is known all the same; every line for one of them counts as stale.
            known = configured(settings)
    found = audit_hosts(read_hosts(file), known)
    wrong = any(line.wrong for line in found)
    if as_json:
        lines = [asdict(line) for line in found]
        typer.echo(json.dumps({"file": str(file), "ok": not wrong, "lines": lines}, indent=2))
    else:
        for line in found:
            typer.echo(f"{file}:{line.number}: {line.text}")
        if not wrong:
            typer.echo(f"{file}: no line stands before the answers of {known.origin}")
    if wrong:
        count = sum(line.wrong for line in found)
        fail(f"{file}: {count} of its lines are used in place of the answers of {known.origin}")
