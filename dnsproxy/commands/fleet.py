"""``dnsproxy fleet``: how many proxies stand, and who lags."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnsproxy.commands.options import JsonOption, fail

if TYPE_CHECKING:
    from dnsproxy.core.standings import Judged, Standing

_DURATION = "DURATION"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(fleet)


def _duration(value: str) -> str:
    from dnsproxy.settings.values import parse_duration  # noqa: PLC0415

    try:
        parse_duration(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return value


def fleet(  # noqa: PLR0913 - one for each option
    endpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="ENDPOINT", help="Admin endpoints: http://10.0.0.1:9153 or 10.0.0.1:9153."),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More endpoints, one a line; # begins a comment.")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this Prometheus, which scrapes the proxies.")
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(metavar="MATCHERS", help='Its targets; job=~".*dnsproxy.*" when not given.'),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer token for whoever is asked.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authorities to believe in place of the system's.")
    ] = None,
    max_lag: Annotated[
        str,
        typer.Option(
            metavar=_DURATION, callback=_duration, help="How long a proxy may lack the newest snapshot."
        ),
    ] = "60s",
    max_age: Annotated[
        str,
        typer.Option(
            metavar=_DURATION, callback=_duration, help="How long a name may be unconfirmed by helpers."
        ),
    ] = "10m",
    timeout: Annotated[
        str, typer.Option(metavar=_DURATION, callback=_duration, help="For each answer, at the most.")
    ] = "5s",
    at_once: Annotated[int, typer.Option(min=1, max=1000, help="Endpoints that are asked at one time.")] = 64,
    show_all: Annotated[bool, typer.Option("--all", help="Show those that are well, too.")] = False,
    as_json: JsonOption = False,
    watch: Annotated[
        str | None,
        typer.Option(metavar=_DURATION, help="Ask again and again, with this pause between, until Ctrl-C."),
    ] = None,
) -> None:
    """Show which proxies of a fleet lag, are stale or silent. Exit code 1 when one does or is."""
    from dnsproxy.core.standings import Limits, judge_fleet  # noqa: PLC0415
    from dnsproxy.ops.fleet_tables import shortcoming  # noqa: PLC0415
    from dnsproxy.settings.values import parse_duration  # noqa: PLC0415

    pause = None if watch is None else max(1.0, parse_duration(_duration(watch)))
    ask = _asker(
        endpoints or [], file, prometheus, selector, token_file, ca_file, parse_duration(timeout), at_once
    )
    limits = Limits(parse_duration(max_lag), parse_duration(max_age))
    while True:
        judged = judge_fleet(asyncio.run(_now(ask)), limits, time.time())
        _show(judged, show_all=show_all, as_json=as_json, clear=pause is not None)
        if pause is None:
            break
        time.sleep(pause)
    if not judged.is_well:
        fail(shortcoming(judged))


async def _now(ask: Callable[[], Awaitable[list[Standing]]]) -> list[Standing]:
    return await ask()


def _asker(
    endpoints: list[str],
    file: Path | None,
    prometheus: str | None,
    selector: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    timeout: float,
    at_once: int,
) -> Callable[[], Awaitable[list[Standing]]]:
    """Return what asks the fleet; anything wrong with the options is wrong usage."""
    from dnsproxy.authorities import client_context  # noqa: PLC0415
    from dnsproxy.errors import StartError  # noqa: PLC0415
    from dnsproxy.ops.fleet import ask_endpoints, parse_endpoint, read_endpoints  # noqa: PLC0415
    from dnsproxy.ops.fleet_prometheus import SELECTOR, ask_prometheus, check_selector  # noqa: PLC0415
    from dnsproxy.tokens import read_token  # noqa: PLC0415

    if prometheus is not None and (endpoints or file is not None):
        raise typer.BadParameter("give endpoints or --prometheus, not both")
    if prometheus is None and selector is not None:
        raise typer.BadParameter("--selector goes with --prometheus")
    try:
        token = None if token_file is None else read_token(token_file)
        context = None if ca_file is None else client_context(ca_file)
        if prometheus is not None:
            url, matchers = parse_endpoint(prometheus), check_selector(selector or SELECTOR)
            return lambda: ask_prometheus(url, matchers, token=token, context=context, timeout=timeout)
        listed = [parse_endpoint(endpoint) for endpoint in endpoints]
        listed += read_endpoints(file) if file is not None else []
    except (StartError, OSError, ValueError) as exc:
        raise typer.BadParameter(
            f"{ca_file}: {exc.strerror}" if isinstance(exc, OSError) else str(exc)
        ) from exc
    if not listed:
        raise typer.BadParameter("nobody to ask: give endpoints, --file or --prometheus")
    return lambda: ask_endpoints(listed, token=token, context=context, timeout=timeout, at_once=at_once)


def _show(judged: Judged, *, show_all: bool, as_json: bool, clear: bool) -> None:
    from dnsproxy.ops.fleet_tables import fleet_document, fleet_report  # noqa: PLC0415

    if as_json:
        typer.echo(json.dumps(fleet_document(judged, time.time()), indent=None if clear else 2))
        return
    from dnsproxy.ops.tables import open_console  # noqa: PLC0415

    console = open_console()
    if clear and console.is_terminal:
        console.clear()
    console.print(fleet_report(judged, show_all=show_all))
