"""The command line.

Exit codes: 0 ok, 1 a check or a start failed, 2 bad usage or configuration, 3 the host refuses a system call.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated, NoReturn

import typer

from dnsproxy import output
from dnsproxy.commands import control, diagnose, fleet, health, hosts
from dnsproxy.commands.options import (
    DEFAULT_CONFIG,
    AdminCaOption,
    AdminOption,
    AdminTokenOption,
    ConfigOption,
    JsonOption,
    ask,
    domain_name,
    fail,
    set_admin_files,
)
from dnsproxy.errors import ConfigError, DnsproxyError, HostError
from dnsproxy.version import __version__

# What a write to standard output or standard error fails with.
_OUTPUT_FAILURES = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO})
# 128 + SIGINT, as shells have it.
_INTERRUPTED = 130
# Seconds. The proxy answers within 15, whatever its sources do.
_REFRESH_SECONDS = 20.0


class _Role(StrEnum):
    SERVE = "serve"
    HELPER = "helper"


app = typer.Typer(
    name="dnsproxy",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="DNS proxy for container registries that live in another cloud region.",
)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if value:
        typer.echo(f"dnsproxy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    admin_ca_file: AdminCaOption = None,
    admin_token_file: AdminTokenOption = None,
) -> None:
    """Options of the program as a whole."""
    set_admin_files(admin_token_file, admin_ca_file)


@app.command()
def serve(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    expect_sockets: Annotated[
        bool,
        typer.Option(
            "--expect-sockets", help="Warn of each address for which the service manager gives no socket."
        ),
    ] = False,
) -> None:
    """Run the proxy in the remote VPC or data centre."""
    from dnsproxy import logs  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.config import examine  # noqa: PLC0415
    from dnsproxy.daemon import Service  # noqa: PLC0415
    from dnsproxy.host_calls import check_calls  # noqa: PLC0415

    output.queue_standard_error(logs.report_lost)
    # No variable here holds the settings: this frame lives as long as the process, and they until a reload.
    checked = examine(config)
    service = Service(checked.settings, config, expects_sockets=expect_sockets)
    logs.configure(service.settings.log.level, service.settings.log.format, clock=monotonic)
    logs.report_warnings(checked.warnings)
    del checked
    check_calls()
    if service.settings.serve.workers != 1:
        from dnsproxy.workers.start import serve_in_workers, worker_count  # noqa: PLC0415

        count = worker_count(service.settings.serve.workers)
        if count > 1:
            serve_in_workers(service, count)
            return
    from dnsproxy.daemon import run_proxy  # noqa: PLC0415
    from dnsproxy.net.doors import proxy_doors  # noqa: PLC0415 - workers must be forked before more is there
    from dnsproxy.net.loop import open_loop  # noqa: PLC0415

    keeper = service.open(proxy_doors(service.settings))
    with asyncio.Runner(loop_factory=open_loop) as runner:
        runner.run(run_proxy(service, keeper))


@app.command()
def helper(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the helper in the source region: resolve the names there and publish them."""
    from dnsproxy import logs  # noqa: PLC0415
    from dnsproxy.config import examine  # noqa: PLC0415
    from dnsproxy.daemon import Service, run_helper  # noqa: PLC0415
    from dnsproxy.host_calls import check_calls, open_service_loop  # noqa: PLC0415
    from dnsproxy.net.doors import helper_doors  # noqa: PLC0415

    output.queue_standard_error(logs.report_lost)
    # As in `serve`: no variable here holds the settings.
    checked = examine(config)
    service = Service(checked.settings, config)
    logs.configure(service.settings.log.level, service.settings.log.format, clock=monotonic)
    logs.report_warnings(checked.warnings)
    del checked
    check_calls()
    with asyncio.Runner(loop_factory=open_service_loop) as runner:
        runner.run(run_helper(service, service.open(helper_doors(service.settings))))


@app.command()
def check(
    *,
    file: Annotated[Path, typer.Argument(help="Configuration file.")] = DEFAULT_CONFIG,
    role: Annotated[
        _Role | None,
        typer.Option(help="Command that this host runs: files that it needs must be there."),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also print how much memory the proxy may take, and for what.")
    ] = False,
) -> None:
    """Check a configuration file and print every problem with its line and key path.

    Exit code 2 with problems. Warnings are printed too: what may be a mistake, and key, token and certificate
    files that cannot be read here. With --role these are problems, and files of the other command do not
    matter.
    """
    from dnsproxy.config import examine  # noqa: PLC0415
    from dnsproxy.config_files import missing_files  # noqa: PLC0415

    checked = examine(file)
    settings = checked.settings
    missing = [checked.place(place, reason) for place, reason in missing_files(settings, role and role.value)]
    for warning in (*checked.warnings, *(missing if role is None else ())):
        output.print_error(f"{warning.place}: warning: {warning.text}")
    if role is not None and missing:
        raise ConfigError(missing)
    sought = len(settings.sought())
    more = f", {sought} more to be discovered" if sought else ""
    typer.echo(f"{file}: ok, {len(settings.wanted())} names of {len(settings.registries)} registries{more}")
    if memory:
        from dnsproxy.commands.memory import memory_table  # noqa: PLC0415

        typer.echo("\n".join(memory_table(settings)))


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration file."""
    from dnsproxy.settings import schema as json_schema  # noqa: PLC0415

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def keygen(folder: Annotated[Path, typer.Argument(help="Folder for helper.key and helper.pub.")]) -> None:
    """Make the key pair that helpers sign with and proxies trust."""
    from dnsproxy.keys import write_key_pair  # noqa: PLC0415

    private, public = write_key_pair(folder)
    typer.echo(f"{private}: for helpers, keep it secret")
    typer.echo(f"{public}: for proxies, list it in learn.trusted_keys")


@app.command()
def status(
    *, config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None, as_json: JsonOption = False
) -> None:
    """Show what a running proxy has learned. Exit code 1, with the reason, when a name has no address."""
    document = ask(config, admin, "GET", "/api/v1/status")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        from dnsproxy.ops import tables  # noqa: PLC0415

        console = tables.open_console()
        console.print(tables.names_table(document, wide=console.width >= tables.WIDE))
        if document["sources"]:
            console.print(tables.sources_table(document))
        if document.get("workers"):  # one of an earlier version does not tell
            console.print(tables.workers_table(document))
    if not document["ready"]:
        from dnsproxy.ops.health import not_ready  # noqa: PLC0415

        fail(not_ready(document))


@app.command()
def refresh(config: ConfigOption = DEFAULT_CONFIG, admin: AdminOption = None) -> None:
    """Make a running proxy pull from all its sources now. Exit code 1 when one of them fails."""
    document = ask(config, admin, "POST", "/api/v1/refresh", {}, seconds=_REFRESH_SECONDS)
    for source in document["sources"]:
        if source["error"] is None:
            typer.echo(f"{source['url']}: serial {source['serial']} of {source['issuer']}")
    if not document["sources"]:
        typer.echo("no sources are configured")
    failed = [f"{source['url']}: {source['error']}" for source in document["sources"] if source["error"]]
    if failed:
        fail(*failed)


@app.command()
def flush(
    name: Annotated[
        str | None, typer.Argument(callback=domain_name, help="Forget this name only; else everything.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = None,
) -> None:
    """Empty the answer cache of a running proxy; learned addresses stay."""
    document = ask(config, admin, "POST", "/api/v1/flush", {"name": name} if name else {})
    typer.echo(f"{document['flushed']} cached answers forgotten")


@app.command()
def demo(
    *,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Address and port of the proxy.")
    ] = "127.0.0.1:5353",
    change_after: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time after which an address changes at the source.", min=0),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Ask, print the table, exit 0 or 1.")] = False,
) -> None:
    """Run the whole thing on loopback: a source-region resolver, a helper, a proxy."""
    from dnsproxy.ops.demo import run_demo  # noqa: PLC0415

    if asyncio.run(run_demo(listen, change_after=change_after, once=once)):
        fail("dnsproxy: a check of the demo failed, or the demo was stopped before every check")


control.register(app)
diagnose.register(app)
fleet.register(app)
health.register(app)
hosts.register(app)


def main() -> NoReturn:
    """Run the command; turn errors that are the operator's to mend into lines on standard error."""
    output.open_standard_descriptors()
    code = _run()
    failure = output.finish_standard_output()
    if failure is not None:
        output.print_error(f"dnsproxy: standard output: {failure}")
        code = code or 1
    if output.is_queued() and not isinstance(code, str):
        # A daemon's threads are not waited for (see `ServiceLoop`); the interpreter would join them.
        output.flush()
        os._exit(code or 0)
    sys.exit(code)


def _run() -> str | int | None:
    try:
        app()
    except SystemExit as exc:
        if exc.code == _INTERRUPTED:  # typer's, which prints nothing
            output.print_error("dnsproxy: interrupted")
        return exc.code
    except ConfigError as exc:
        for problem in exc.problems:
            output.print_error(str(problem))
        return 2
    except DnsproxyError as exc:
        output.print_error(f"dnsproxy: {exc}")
        return 3 if isinstance(exc, HostError) else 1
    except KeyboardInterrupt:
        output.print_error("dnsproxy: interrupted")
        return _INTERRUPTED
    except OSError as exc:
        if exc.errno not in _OUTPUT_FAILURES or output.is_queued():
            raise
        # Of standard output or standard error: a file of the operator's is named by one of the errors above.
        output.print_error(f"dnsproxy: {exc.strerror}")
        return 1
    return 0
