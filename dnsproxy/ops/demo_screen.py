"""What the person at the terminal sees of the demo: an introduction, then a live table or the checks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic, strftime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dnsproxy import logs
from dnsproxy.admin.status import status_document
from dnsproxy.app import Proxy
from dnsproxy.ops.demo_checks import Check, checks, results_table, run_checks, wait_for_change
from dnsproxy.ops.demo_world import AUTH, BUCKET, OTHER, REGISTRY, STORAGE, SourceRegion
from dnsproxy.ops.tables import names_table
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint

# What the registry's name gets with --change-after.
NEW_ADDRESS = "10.94.205.199"
# Seconds for the first snapshot to arrive before `--once` asks anyway.
READY_TIMEOUT = 10.0
# Seconds between two looks at the table.
_REFRESH = 0.5
_POLL = 0.05


class DemoScreen:
    """Shows ``proxy``; ``change_after`` is in seconds, None for no change at the source."""

    def __init__(
        self, proxy: Proxy, region: SourceRegion, console: Console, change_after: float | None
    ) -> None:
        self._proxy = proxy
        self._server = _reachable(proxy.settings.serve.listen[0])
        self._region = region
        self._console = console
        self._change_after = change_after
        self._shown: dict[str, str] = {}

    async def ask_once(self) -> int:
        """Ask every question once, with a change at the source in between when one is wanted."""
        await self._wait_ready()
        results = await run_checks(self._server, checks(self._region.lookup))
        if self._change_after is not None:
            await asyncio.sleep(self._change_after)
            self._change()
            check = Check("registry, after the change", REGISTRY, (NEW_ADDRESS,))
            results.append(await wait_for_change(self._server, check))
        self._console.print(names_table(self._status()))
        self._console.print(results_table(results))
        failed = sum(not result.passed for result in results)
        self._console.print(f"{failed} of {len(results)} checks failed" if failed else "every check passed")
        return 1 if failed else 0

    def _status(self) -> dict[str, Any]:
        return status_document(self._proxy.facts())

    async def _wait_ready(self) -> None:
        deadline = monotonic() + READY_TIMEOUT
        while not self._status()["ready"] and monotonic() < deadline:  # noqa: ASYNC110 - the proxy has no such event
            await asyncio.sleep(_POLL)

    async def watch(self, stop: asyncio.Event) -> int:
        """Show the table (on a terminal) and each change of it until ``stop`` is set."""
        change_at = None if self._change_after is None else monotonic() + self._change_after
        with self._live() as live:
            while not stop.is_set():
                if change_at is not None and monotonic() >= change_at:
                    change_at = None
                    self._change()
                status = self._status()
                self._say_changes(status)
                if live is not None:
                    live.update(Group(names_table(status), _footer(change_at)), refresh=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH):
                        await stop.wait()
        return 0

    @contextmanager
    def _live(self) -> Iterator[Live | None]:
        if not self._console.is_terminal:
            yield None
            return
        both = sys.stderr.isatty()
        with Live(console=self._console, auto_refresh=False, redirect_stderr=both) as live:
            # Again, for the stream that now prints above the table.
            logs.configure("warning")
            yield live

    def _change(self) -> None:
        self._region.change(REGISTRY, NEW_ADDRESS)
        self._say(f"source region: {REGISTRY} is now {NEW_ADDRESS}")

    def _say_changes(self, status: Mapping[str, Any]) -> None:
        for entry in status["names"]:
            name, addresses = entry["name"].removesuffix("."), ", ".join(entry["addresses"])
            before = self._shown.get(name)
            if addresses and addresses != before:
                self._shown[name] = addresses
                # The table on a terminal has the first addresses; a log needs them too.
                if before or not self._console.is_terminal:
                    was = f" (was {before})" if before else ""
                    self._say(f"proxy: {name} is {addresses}{was}")

    def _say(self, text: str) -> None:
        self._console.print(Text(f"{strftime('%H:%M:%S')} {text}"), soft_wrap=True)


def _reachable(listen: Endpoint) -> Endpoint:
    """Return where a client of this host asks a proxy on ``listen``."""
    return Endpoint({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host), listen.port)


def introduction(settings: Settings, source: Endpoint) -> Text:
    """Return what runs where; ``source`` is the simulated resolver."""
    rows = [
        (source, "simulated resolver of the source region: knows three names"),
        (settings.helper.listen, "helper: asks it each second, publishes what it sees, signed"),
        (settings.serve.listen[0], "proxy: answers these names itself, forwards all others"),
        (settings.forward.upstreams[0], "simulated upstream: knows what is below example"),
        (settings.admin.listen, "status page and metrics of the proxy, HTTP"),
    ]
    lines = [
        "dnsproxy demo: everything runs in this process and talks over loopback only.",
        "",
        *(f"  {endpoint!s:<17} {role}" for endpoint, role in rows),
        "",
    ]
    return Text("\n".join(lines))


def suggestions(settings: Settings) -> Text:
    """Return what to try in another terminal, ready to copy, and how to stop."""
    server = _reachable(settings.serve.listen[0])
    dig = f"  dig @{server.host} -p {server.port}"
    lines = [
        "Try in another terminal:",
        *(f"{dig} {name}" for name in (REGISTRY, AUTH, BUCKET)),
        f"{dig} +tcp {STORAGE}",
        f"{dig} {REGISTRY} AAAA",
        f"{dig} {OTHER}",
        f"  curl http://{settings.admin.listen}/api/v1/status",
        f"or look at http://{settings.admin.listen}/ in a browser.",
        "With --change-after 10 an address changes at the source after 10 seconds.",
        "Stop with Ctrl-C.",
        "",
    ]
    return Text("\n".join(lines))


def _footer(change_at: float | None) -> Text:
    waiting = "" if change_at is None else f"An address changes in {max(0, change_at - monotonic()):.0f} s. "
    return Text(f"{waiting}Ctrl-C stops the demo.", style="dim")
