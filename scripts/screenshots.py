"""Takes the pictures of the status page for the documentation; started by ``make pictures``.

A real helper, a real proxy, real probes and a real Chromium, in a network namespace of their own in which
the addresses of the source region exist. Clients ask for a minute and a half, which the charts take for an
hour. Needs root, iproute2, Chromium and, for pictures that do not depend on the machine, fonts-inter.
"""

# ruff: noqa: T201, S311 - a tool for developers, with a clock of its own

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from dnslib import DNSRecord
from PIL import Image
from playwright.async_api import Browser, async_playwright

import dnsproxy.app
from dnsproxy import config, logs
from dnsproxy.app import Proxy
from dnsproxy.helper.server import serve_helper
from dnsproxy.keys import write_key_pair
from dnsproxy.ops.demo_world import AUTH, BUCKET, REGISTRY, STORAGE, SimulatedResolver, lookup_example
from dnsproxy.settings.values import Endpoint

IMAGES = Path(__file__).parents[1] / "docs" / "images"
INSIDE = "--inside"
# The clock of the charts runs so much faster.
SPEED = 40.0
HOUR = 3600.0 / SPEED
# Queries in a second of the real clock.
QUERIES = 500
MOVED, DEAD, UNROUTED = "10.94.205.199", "10.94.205.200", "100.118.102.9"
SOURCE, HELPER, PROXY = "100.100.2.136", "10.94.0.10", "10.200.0.10"
UPSTREAMS = ("10.200.0.2", "10.200.0.3")
REGION = {REGISTRY: ("10.94.205.198",), AUTH: ("100.103.7.181",), STORAGE: ("100.118.28.43", "100.118.28.44")}
HOSTS = (
    SOURCE,
    HELPER,
    PROXY,
    *UPSTREAMS,
    MOVED,
    UNROUTED,
    *(one for listed in REGION.values() for one in listed),
)

CONFIG = """\
registries:
  - name: hangzhou
    provider: acr
    region: cn-hangzhou
    instance: xxxxxx
    auth: regional
    network: {{routed: [10.94.0.0/16, 100.103.7.181/32, 100.118.28.0/24]}}
helper:
  id: helper-hangzhou-a
  listen: {helper}:8953
  resolvers: ["{source}"]
  interval: 1s
  signing_key_file: {folder}/helper.key
learn:
  sources: [{{url: "http://{helper}:8953/v1/snapshot"}}]
  trusted_keys: [{folder}/helper.pub]
  state_file: {folder}/learned.jws
  refresh: 1s
  verify: {{tls: false, interval: 1s, timeout: 1s}}
serve: {{listen: ["{proxy}:53"]}}
forward:
  upstreams: [{upstreams}]
  probe: {{interval: 1s}}
  timeout: {{attempt: 200ms, total: 1s}}
admin: {{listen: "127.0.0.1:9153"}}
"""

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# Inter is near to what most systems show as system-ui.
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>/usr/share/fonts</dir><cachedir>{folder}</cachedir>
<alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>monospace</family><prefer><family>Noto Sans Mono</family></prefer></alias>
</fontconfig>"""


def fast_clock() -> float:
    """Return the time of the charts."""
    return time.monotonic() * SPEED


async def clients(server: tuple[str, int]) -> None:
    """Ask ``server`` for what hosts ask for, in a wave over the hour."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=server)
    owned = [bytes(DNSRecord.question(name).pack()) for name in (REGISTRY, AUTH, STORAGE, BUCKET)]
    known = [bytes(DNSRecord.question(f"host-{number}.example").pack()) for number in range(200)]
    strange = [
        bytes(DNSRecord.question(name).pack())
        for name in ("printer.local.test", "x.invalid", "1.0.0.10.in-addr.arpa")
    ]
    started = loop.time()
    while True:
        wave = 0.6 + 0.4 * math.sin((loop.time() - started) / HOUR * 6.3 - 1.5)
        for _ in range(max(1, round(QUERIES * wave / 50 * random.uniform(0.8, 1.2)))):
            draw = random.random()
            if draw < 0.02:
                query = bytes(DNSRecord.question(f"new-{random.getrandbits(40):x}.example").pack())
            elif draw < 0.03:
                query = random.choice(strange)
            else:
                query = random.choice(owned if draw < 0.35 else known)
            transport.sendto(random.getrandbits(16).to_bytes(2, "big") + query[2:])
        await asyncio.sleep(0.02)


async def listener(address: str) -> asyncio.Server:
    """Take connections, as a registry does."""
    return await asyncio.start_server(lambda _reader, writer: writer.close(), address, 443)


async def until_ready(proxy: Proxy) -> None:
    """Return once every name is learned."""
    while proxy.facts().missing():  # noqa: ASYNC110 - the proxy has no such event
        await asyncio.sleep(0.1)


async def shoot(browser: Browser, name: str, width: int, scheme: Literal["light", "dark"]) -> None:
    """Take one picture of the whole page."""
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    await page.goto("http://127.0.0.1:9153/")
    await page.wait_for_selector("[data-link=live]")
    path = IMAGES / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    await page.close()
    # A page has few colours: a palette makes the file a third.
    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


async def main(folder: Path) -> None:
    """Build the world, let an hour pass, take the pictures."""
    logs.configure("error")
    for name, value in {"monotonic": fast_clock, "SAMPLE_SECONDS": 0.1}.items():
        setattr(dnsproxy.app, name, value)
    write_key_pair(folder)
    settings = config.parse(
        CONFIG.format(
            folder=folder, helper=HELPER, source=SOURCE, proxy=PROXY, upstreams=", ".join(UPSTREAMS)
        ),
        "screenshots.yaml",
    )
    region = dict(REGION)
    stop, helper_stop = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            SimulatedResolver(lambda name: _lookup(region, name), 2, Endpoint(SOURCE, 53))
        )
        upstreams = [SimulatedResolver(lookup_example, 300, Endpoint(host, 53)) for host in UPSTREAMS]
        dying = AsyncExitStack()
        await dying.enter_async_context(upstreams[0])
        await stack.enter_async_context(upstreams[1])
        listeners = {
            host: await listener(host)
            for host in HOSTS
            if host.startswith(("10.94.205", "100.103", "100.118"))
        }
        helper = asyncio.ensure_future(serve_helper(settings, helper_stop, lambda _endpoint: None))
        proxy = Proxy(settings)
        await asyncio.sleep(1)
        await proxy.start()
        running = asyncio.ensure_future(proxy.run(stop))
        await until_ready(proxy)
        asking = asyncio.ensure_future(clients((PROXY, 53)))
        playwright = await stack.enter_async_context(async_playwright())
        fonts = folder / "fonts.conf"
        fonts.write_text(FONTS.format(folder=folder))
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=CHROMIUM,
            env={**os.environ, "FONTCONFIG_FILE": str(fonts)},
        )
        hour = float(os.environ.get("SECONDS", HOUR))
        await asyncio.sleep(hour * 0.7)
        region[REGISTRY] = (MOVED,)
        await asyncio.sleep(hour * 0.3)
        # What the charts took for an hour was one.
        proxy.started_at -= 3600
        await shoot(browser, "status-light", 1280, "light")
        await shoot(browser, "status-dark", 1280, "dark")
        await shoot(browser, "status-phone", 360, "light")
        # An address that nobody listens on, one without a route, a dead upstream, a dead helper.
        region[REGISTRY], region[STORAGE] = (DEAD,), (*REGION[STORAGE], UNROUTED)
        await dying.aclose()
        await asyncio.sleep(8)
        helper_stop.set()
        await helper
        await asyncio.sleep(6)
        await shoot(browser, "status-degraded", 1280, "light")
        asking.cancel()
        stop.set()
        with suppress(asyncio.CancelledError):
            await asking
        await running
        await proxy.close()
        for server in listeners.values():
            server.close()
        await browser.close()


def _lookup(region: dict[str, tuple[str, ...]], name: str) -> tuple[str, ...] | None:
    return region.get(STORAGE if name.endswith(f".{STORAGE}") else name)


def run() -> None:
    """Go into a network namespace of its own, then run `main` there."""
    if INSIDE not in sys.argv:
        words = ["unshare", "--net", "--uts", "--", sys.executable, __file__, INSIDE]
        os.execvp("unshare", words)  # noqa: S606 - as a shell would, found on PATH
    socket.sethostname("idc-dns-1")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for host in HOSTS:
        subprocess.run(["ip", "address", "add", f"{host}/32", "dev", "lo"], check=True)
    # The address that takes no connections is this host's too, or there would be no route to it.
    subprocess.run(["ip", "address", "add", f"{DEAD}/32", "dev", "lo"], check=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="dnsproxy-screenshots-") as folder:
        asyncio.run(main(Path(folder)))


if __name__ == "__main__":
    run()
