"""``dnsproxy demo``: the real helper and proxy between a simulated source region and upstream."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import aiohttp

from dnsproxy import config, logs
from dnsproxy.app import Proxy
from dnsproxy.errors import ConfigError, Problem, StartError
from dnsproxy.helper.server import serve_helper
from dnsproxy.keys import write_key_pair
from dnsproxy.lifecycle import stop_on_signals
from dnsproxy.ops.demo_screen import DemoScreen, introduction, suggestions
from dnsproxy.ops.demo_world import SimulatedResolver, SourceRegion, lookup_example
from dnsproxy.ops.tables import open_console
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint, parse_endpoint

# Seconds. Short in the source region, so that a change is soon seen; usual for the rest.
SOURCE_TTL = 2
UPSTREAM_TTL = 300

_POLL = 0.02

_CONFIG = """\
registries:
  - {{name: hangzhou, provider: acr, region: cn-hangzhou, instance: xxxxxx, auth: regional}}
helper:
  id: demo-helper
  listen: 127.0.0.1:{helper}
  resolvers: ["{source}"]
  interval: 1s
  signing_key_file: {private_key}
learn:
  sources: [{{url: "http://127.0.0.1:{helper}/v1/snapshot"}}]
  trusted_keys: [{public_key}]
  state_file: {state}
  refresh: 1s
  # The simulated addresses are nobody's here: nothing is to leave this host for them.
  verify: {{ports: []}}
  ttl: 5
serve: {{listen: ["{listen}"]}}
forward: {{upstreams: ["{upstream}"]}}
admin: {{listen: "127.0.0.1:{admin}"}}
"""

_T = TypeVar("_T")


async def run_demo(listen: str, *, change_after: float | None = None, once: bool = False) -> int:
    """Run the demo with the proxy on ``listen`` until SIGINT or SIGTERM; return the exit code.

    After ``change_after`` seconds an address changes at the source. ``once``
    asks a fixed set of questions in place of the live table, and ends: 0 when
    each answer was right, else 1.

    Raises:
        ConfigError: ``listen`` is not a numeric address with a port.
        StartError: a port, most likely ``listen``, cannot be had.
    """
    logs.configure("warning")
    stop = stop_on_signals().asked
    region = SourceRegion()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="dnsproxy-demo-"))
        source = await stack.enter_async_context(SimulatedResolver(region.lookup, SOURCE_TTL))
        upstream = await stack.enter_async_context(SimulatedResolver(lookup_example, UPSTREAM_TTL))
        settings = _settings(Path(folder), _endpoint(listen), source.endpoint, upstream.endpoint)
        proxy = Proxy(settings)
        await _start(proxy)
        stack.push_async_callback(proxy.close)
        console = open_console()
        console.print(introduction(settings, source.endpoint), soft_wrap=True)
        if not once:
            console.print(suggestions(settings), soft_wrap=True)
        screen = DemoScreen(proxy, region, console, change_after)
        watching = _unless(stop, screen.ask_once()) if once else screen.watch(stop)
        return await _run_parts(settings, proxy, watching, stop)


def _endpoint(listen: str) -> Endpoint:
    try:
        endpoint = parse_endpoint(listen, None)
    except ValueError as exc:
        raise ConfigError([Problem("--listen", 0, "", str(exc))]) from exc
    return Endpoint(endpoint.host, endpoint.port)


def _settings(folder: Path, listen: Endpoint, source: Endpoint, upstream: Endpoint) -> Settings:
    private_key, public_key = write_key_pair(folder)
    helper_port, admin_port = _free_ports(2)
    text = _CONFIG.format(
        helper=helper_port,
        admin=admin_port,
        listen=listen,
        source=source,
        upstream=upstream,
        # A JSON text is a YAML text, whatever the folder is called.
        private_key=json.dumps(str(private_key)),
        public_key=json.dumps(str(public_key)),
        state=json.dumps(str(folder / "learned.jws")),
    )
    return config.parse(text, "demo.yaml")


def _free_ports(count: int) -> list[int]:
    # All held together, or the kernel might give one twice.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


async def _start(proxy: Proxy) -> None:
    listen = proxy.settings.serve.listen[0]
    try:
        await proxy.start()
    except StartError as exc:
        other = Endpoint("127.0.0.1", 5454 if listen.port != 5454 else 5455)
        raise StartError(f"{exc}; choose another port, for example --listen {other}") from exc


async def _run_parts(
    settings: Settings, proxy: Proxy, watching: Awaitable[int | None], stop: asyncio.Event
) -> int:
    """Run helper, proxy and ``watching`` until one of them ends or ``stop`` is set; return the exit code.

    It is what ``watching`` returns; None, for questions that were not all asked, gives 1.
    """
    listening = asyncio.Event()

    async def learn() -> None:
        await _unless(stop, _first_snapshot(listening, settings.helper.listen))
        await proxy.run(stop)

    helper = serve_helper(settings, stop, lambda _endpoint: listening.set())
    watched = asyncio.ensure_future(_ending(stop, watching))
    outcomes = await asyncio.gather(
        _ending(stop, helper), _ending(stop, learn()), watched, return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    code = watched.result()
    return 1 if code is None else code


async def _first_snapshot(listening: asyncio.Event, helper: Endpoint) -> None:
    """Return once there is something to pull; before that, a pull would count as a failure."""
    await listening.wait()
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://{helper}/health") as response:
                    if (await response.json())["serial"] is not None:
                        return
            await asyncio.sleep(_POLL)


async def _ending(stop: asyncio.Event, part: Awaitable[_T]) -> _T:
    """Run ``part``; the end of one part is the end of all."""
    try:
        return await part
    finally:
        stop.set()


async def _unless(stop: asyncio.Event, work: Awaitable[_T]) -> _T | None:
    """Return the result of ``work``, or None when ``stop`` came first."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None
