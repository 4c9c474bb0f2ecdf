"""Asks the proxies of a fleet how new sets fare there, so that a helper can refuse for all what failed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

import aiohttp
import structlog

from dnsproxy.authorities import client_context
from dnsproxy.core.ruling import Refusal, Ruling, refusals_from
from dnsproxy.errors import SnapshotError, StartError
from dnsproxy.settings.jury import JurySettings
from dnsproxy.tokens import ORDERS, TOKEN_SCOPE, read_token
from dnsproxy.transport.reasons import client_reason

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds for one answer; octets of it: ten thousand names on trial.
DEADLINE = 5.0
MAX_ANSWER = 8 * 1024 * 1024
# Proxies asked at one time.
CONCURRENCY = 16
# Sets named in the log after one round; a proxy may list 20,000, of names that do not exist.
SHOWN = 20


class Jury:
    """Keeps `ruling` up to date with what the admin endpoints of ``settings.proxies`` say.

    Raises:
        StartError: the token or the authority cannot be read.
    """

    def __init__(self, settings: JurySettings, *, wall: Callable[[], float] = time.time) -> None:
        self.ruling = Ruling(settings.proxies, settings.votes_needed)
        self._settings = settings
        self._wall = wall
        self._headers = {"Accept-Encoding": "identity"}
        if settings.read_token_file is not None:
            try:
                self._headers["Authorization"] = f"Bearer {read_token(settings.read_token_file)}"
            except StartError as exc:
                raise StartError(f"helper.canary.read_token_file: {exc}") from exc
        try:
            self._tls = client_context(settings.ca_file)
        except (OSError, ValueError) as exc:
            raise StartError(f"helper.canary.ca_file: {exc}") from exc
        self._failures: dict[str, str] = {}

    async def run(self, changed: Callable[[], None]) -> None:
        """Ask again and again, and call ``changed`` when another set is refused; until cancelled."""
        before: frozenset[Refusal] = self.refused()
        while True:
            await self.ask_all()
            refused = self.refused()
            for name, addresses in sorted(refused - before)[:SHOWN]:
                log.warning("helper.set_refused", name=name, new=list(addresses))
            for name, addresses in sorted(before - refused)[:SHOWN]:
                log.info("helper.set_refused_no_more", name=name, new=list(addresses))
            if refused != before:
                changed()
            before = refused
            await asyncio.sleep(self._settings.interval)

    def refused(self) -> frozenset[Refusal]:
        """Return the sets that are refused now."""
        return self.ruling.refused(self._wall())

    async def ask_all(self) -> None:
        """Ask every proxy once."""
        gate = asyncio.Semaphore(CONCURRENCY)

        async def ask(session: aiohttp.ClientSession, proxy: str) -> None:
            async with gate:
                self._note(proxy, await self._ask(session, proxy))

        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=CONCURRENCY)
        async with (
            aiohttp.ClientSession(
                timeout=timeout, connector=connector, headers=self._headers, auto_decompress=False
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for proxy in self._settings.proxies:
                group.create_task(ask(session, proxy))

    async def _ask(self, session: aiohttp.ClientSession, proxy: str) -> str | None:
        """Take what ``proxy`` says; return why there is nothing, if so."""
        try:
            async with session.get(f"{proxy}/api/v1/canary", allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    return f"status {response.status}"
                if response.headers.get(TOKEN_SCOPE) == ORDERS:
                    # An attacker who controls one of these proxies could give orders to all others.
                    return "the token gives orders there; use the one of its admin.read_token_file"
                body = await _read(response)
            if body is None:
                return f"larger than {MAX_ANSWER} octets"
            self.ruling.take(proxy, refusals_from(json.loads(body)), self._wall())
        except TimeoutError:
            return f"no answer within {DEADLINE:g} s"
        except aiohttp.ClientConnectorError as exc:
            return client_reason(exc)
        except (aiohttp.ClientError, OSError) as exc:
            return type(exc).__name__
        except (ValueError, RecursionError, SnapshotError) as exc:
            return f"not understood: {exc}"
        return None

    def _note(self, proxy: str, failure: str | None) -> None:
        before = self._failures.get(proxy)
        if failure is not None and failure != before:
            self._failures[proxy] = failure
            log.warning("helper.proxy_unheard", proxy=proxy, reason=failure)
        elif failure is None and before is not None:
            del self._failures[proxy]
            log.info("helper.proxy_heard", proxy=proxy)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why each proxy that was not heard last was not."""
        return self._failures


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_ANSWER:
            return None
    return bytes(body)
