"""A client of etcd v3 over its JSON gateway (``/v3/...``): members, their failover, TLS and authentication.

https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/; docs/design.md says why not gRPC.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from dnsproxy.authorities import client_context
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import StartError, StoreError
from dnsproxy.settings.etcd import EtcdConnection
from dnsproxy.tokens import read_token
from dnsproxy.transport.reasons import client_reason, os_reason
from dnsproxy.transport.source_address import socket_factory

# Seconds for a connection to a member, and for its whole answer.
CONNECT_DEADLINE = 2.0
ANSWER_DEADLINE = 3.0
# Seconds that an idle connection is kept: longer than the pause between two looks, or each costs a handshake.
IDLE = 300.0
# Octets of one answer. etcd takes 1.5 MiB per request by default; base64 and JSON add a third.
MAX_ANSWER = 12 * 1024 * 1024
# Codes of gRPC that say that another member may do better: deadline exceeded, unavailable.
_PASSING = frozenset({4, 14})
_UNAUTHENTICATED = 16
# Of a member that has forgotten our token by a restart, or of permissions that have changed since.
_STALE_TOKEN = ("invalid auth token", "user name is empty", "auth store is old")

Json = Mapping[str, Any]


class _PassingError(StoreError):
    """Another member may do better."""


class _TokenError(StoreError):
    """The token is not good any more."""


def encode(text: str) -> str:
    """Return ``text`` as the gateway has octets: base64."""
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


class EtcdCluster:
    """Asks the members of one cluster, always the same one until it fails.

    The first is drawn, so that a fleet spreads over them. Connections leave from ``source_address``.
    `close` it at the end.
    """

    def __init__(
        self, settings: EtcdConnection, draw: float | None = None, source_address: Source | None = None
    ) -> None:
        self.name = settings.url
        self._settings = settings
        self._members = settings.endpoints
        # It spreads load; it is no secret.
        self._at = int((random.random() if draw is None else draw) * len(self._members))  # noqa: S311
        self._source_address = source_address
        self._session: aiohttp.ClientSession | None = None
        self._token: str | None = None
        self._signing_in = asyncio.Lock()
        self._trust: tuple[tuple[int, ...], ssl.SSLContext] | None = None

    @property
    def member(self) -> str:
        """The member that is asked now."""
        return self._members[self._at]

    def give_up(self, member: str) -> None:
        """Ask the next one from now on, if ``member`` is still the one that is asked."""
        if member == self.member:
            self._at = (self._at + 1) % len(self._members)

    async def call(self, path: str, body: Json) -> Json:
        """Return the answer to one request, of the first member that gives one.

        Raises:
            StoreError: no member can be had, or one has refused.
        """
        failures = []
        for _ in self._members:
            member = self.member
            try:
                return await self._call_signed_in(member, path, body)
            except _PassingError as exc:
                failures.append(f"{member}: {exc}")
                self.give_up(member)
        raise StoreError("; ".join(failures))

    async def _call_signed_in(self, member: str, path: str, body: Json) -> Json:
        try:
            return await self._call(member, path, body, await self._sign_in(member))
        except _TokenError:
            self._token = None
        try:
            return await self._call(member, path, body, await self._sign_in(member))
        except _TokenError as exc:
            raise StoreError(str(exc)) from exc

    async def _call(self, member: str, path: str, body: Json, token: str | None) -> Json:
        async with _in_time(), await self._post(member, path, body, token) as response:
            content = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise StoreError(f"an answer is larger than {MAX_ANSWER} octets")
            status = response.status
        if status != HTTPStatus.OK:
            raise refusal(bytes(content), status)
        answer = parse(bytes(content))
        if not answer.keys() & {"header", "result"}:
            raise _PassingError("the answer is not one of etcd")
        return answer

    async def open(self, path: str, body: Json) -> tuple[str, aiohttp.ClientResponse]:
        """Return the member that is asked now and its endless answer; close that.

        Raises:
            StoreError: that member does not give it.
        """
        member = self.member
        token = await self._sign_in(member)
        async with _in_time():
            response = await self._post(member, path, body, token)
            if response.status == HTTPStatus.OK:
                return member, response
            content = await response.content.read(65_536)
            response.close()
        raise refusal(content, response.status)

    async def _post(self, member: str, path: str, body: Json, token: str | None) -> aiohttp.ClientResponse:
        # A stream of a member that has lost its leader is ended by it, where it would fall silent else.
        headers = {"Grpc-Metadata-Hasleader": "true", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = token
        secure = member.startswith("https:")
        context = await asyncio.to_thread(self._context) if secure else True
        return await self._opened().post(
            member + path, data=json.dumps(body), headers=headers, ssl=context, allow_redirects=False
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    keepalive_timeout=IDLE, socket_factory=socket_factory(self._source_address)
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _context(self) -> ssl.SSLContext:
        """Return what TLS goes by; made anew when a file of it has changed."""
        tls = self._settings.tls
        files = [path for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None]
        try:
            changed = tuple(path.stat().st_mtime_ns for path in files)
            if self._trust is None or self._trust[0] != changed:
                context = client_context(tls.ca_file)
                if tls.cert_file is not None:
                    # An empty password makes an encrypted key an error; without it OpenSSL would ask for one.
                    context.load_cert_chain(tls.cert_file, tls.key_file, password=str)
                self._trust = changed, context
        except (OSError, ValueError) as exc:
            listed = ", ".join(str(path) for path in files)
            raise StoreError(f"tls: {listed}: {os_reason(exc)}") from exc
        return self._trust[1]

    # -- authentication ---------------------------------------------------------------

    async def _sign_in(self, member: str) -> str | None:
        if self._settings.user is None or self._settings.password_file is None:
            return None
        async with self._signing_in:
            if self._token is None:
                password = await asyncio.to_thread(_password, self._settings.password_file)
                body = {"name": self._settings.user, "password": password}
                answer = await self._call(member, "/v3/auth/authenticate", body, None)
                self._token = str(answer.get("token", ""))
            return self._token

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bound the time of one member's answer, and give what went wrong the words of `StoreError`."""
    try:
        async with asyncio.timeout(ANSWER_DEADLINE) as bound:
            yield
    except TimeoutError as exc:  # aiohttp's are its ClientError as well
        if bound.expired():
            raise _PassingError(f"no answer within {ANSWER_DEADLINE:g} s") from exc
        raise _PassingError(f"no connection within {CONNECT_DEADLINE:g} s") from exc
    except aiohttp.ClientError as exc:
        raise _PassingError(client_reason(exc)) from exc
    except OSError as exc:
        raise _PassingError(os_reason(exc)) from exc


def _password(path: Path) -> str:
    try:
        return read_token(path)
    except StartError as exc:
        raise StoreError(f"password_file: {exc}") from exc


def parse(content: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        StoreError: it is something else; then it is not etcd that answers.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _PassingError("the answer is not one of etcd")
    return answer


def refusal(content: bytes, status: int) -> StoreError:
    """Return the error for an answer with another status than 200."""
    if status == HTTPStatus.NOT_FOUND:
        return _PassingError("status 404: not etcd 3.4 or later, or its gRPC gateway is turned off")
    if b"CommonName" in content:
        return StoreError("etcd's gateway takes no client certificate with a common name; see docs/fleets.md")
    answer = parse(content)
    text = str(answer.get("message") or answer.get("error") or f"status {status}")
    return refusal_text(text, answer.get("code", 0), status)


def refusal_text(text: str, code: Any = 0, status: int = 0) -> StoreError:  # noqa: ANN401 - of JSON
    """Return the error for the words of a refusal."""
    # Of a stream: "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token".
    reason = text.rpartition("etcdserver: ")[2][:200]
    if code == _UNAUTHENTICATED or any(mark in text for mark in _STALE_TOKEN):
        return _TokenError(reason)
    if (isinstance(code, int) and code in _PASSING) or status >= 500 or "no leader" in text:
        return _PassingError(reason)
    return StoreError(reason)
