"""Talk to the admin endpoint of a running proxy."""

from __future__ import annotations

import asyncio
import json
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from dnsproxy.authorities import client_context, pinned_context
from dnsproxy.core.text import printable, printable_document, printable_lines
from dnsproxy.errors import DnsproxyError, StartError
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.tokens import read_token
from dnsproxy.transport.reasons import os_reason

TIMEOUT = 5.0
# Bytes of an answer. A status of 20,000 names has some 20 MB.
MAX_ANSWER = 64 * 1024 * 1024
# The proxy understood, and says what is wrong with what was asked.
_ABOUT_THE_REQUEST = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT})


class AdminError(DnsproxyError):
    """The running proxy could not be asked; the message says why. It may quote what answered.

    ``answered``: the proxy understood, and said what is wrong with what was asked.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        self.answered = answered
        super().__init__(printable_lines(message))


class AdminFiles(NamedTuple):
    """Files of the operator: a bearer token, and the authority of the endpoint's certificate."""

    token: Path | None = None
    ca: Path | None = None


NO_FILES = AdminFiles()


class AdminClient:
    """Calls to one admin endpoint; ``url`` has no trailing slash.

    ``certificate`` is the file of the endpoint's own certificate, which is believed when ``files`` has no
    authority.

    Raises:
        AdminError: a file cannot be read.
    """

    def __init__(self, url: str, files: AdminFiles = NO_FILES, certificate: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers: dict[str, str] = {}
        if files.token is not None:
            try:
                self._headers["Authorization"] = f"Bearer {read_token(files.token)}"
            except StartError as exc:
                raise AdminError(str(exc)) from exc
        self._context: ssl.SSLContext | None = None
        if self._url.startswith("https:"):
            file = files.ca or certificate
            try:
                self._context = (
                    pinned_context(certificate)
                    if certificate is not None and files.ca is None
                    else client_context(files.ca)
                )
            except (OSError, ValueError) as exc:
                raise AdminError(f"{file}: {os_reason(exc)}") from exc

    @classmethod
    def from_settings(cls, settings: AdminSettings, files: AdminFiles = NO_FILES) -> AdminClient:
        """Return a client for the endpoint that a configuration opens.

        Raises:
            AdminError: it opens none, or a file cannot be read.
        """
        listen = settings.listen
        if listen is None:
            raise AdminError("admin.listen is null in the configuration: nothing to ask")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if settings.tls.cert_file is None else "https"
        return cls(
            f"{scheme}://{shown}:{listen.port}",
            files._replace(token=files.token or settings.token_file),
            settings.tls.cert_file,
        )

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that the proxy answers with.

        Raises:
            AdminError: no answer within ``seconds`` (5 by default), or one that is not a success.
        """
        return asyncio.run(self._call(method, path, body, TIMEOUT if seconds is None else seconds))

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            connector = aiohttp.TCPConnector(ssl=True if self._context is None else self._context)
            # The endpoint takes an order as JSON only.
            content = {} if body is None and method != "GET" else body
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers, connector=connector) as session,
                session.request(method, self._url + path, json=content, allow_redirects=False) as response,
            ):
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise await self._refusal(path, response)
                answer = printable_document(json.loads(await _body(response)))
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as exc:
            reason = reason_of(exc, seconds)
            raise AdminError(f"{self._url}: no usable answer ({reason}); is dnsproxy serve running?") from exc
        if not isinstance(answer, dict):
            raise AdminError(f"{self._url}{path}: the answer is not a JSON object")
        return answer

    async def _refusal(self, path: str, response: aiohttp.ClientResponse) -> AdminError:
        """Return what an answer without success says: its reason alone where that is about the request."""
        told = await _told(response)
        if told and response.status in _ABOUT_THE_REQUEST:
            return AdminError(told, answered=True)
        about = f": {told}" if told else ""
        return AdminError(f"{self._url}{path}: status {response.status} {response.reason}{about}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.content_type != "application/json":
        raise ValueError("not JSON")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
    return bytes(body)


async def _told(response: aiohttp.ClientResponse) -> str | None:
    try:
        answer = json.loads(await _body(response))
    except (aiohttp.ClientError, ValueError, RecursionError):
        return None
    reason = answer.get("error") if isinstance(answer, dict) else None
    return printable(reason) if isinstance(reason, str) else None


def reason_of(exc: Exception, seconds: float) -> str:
    """Return in a few words why there was no usable answer within ``seconds``."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not trusted: {getattr(exc.certificate_error, 'verify_message', 'unknown')}"
    if isinstance(exc, aiohttp.ClientConnectorError) and exc.os_error.errno:
        # asyncio puts a text of its own in place of the system's.
        return os_reason(exc.os_error).lower()
    if isinstance(exc, TimeoutError):
        return f"none within {seconds:g} s"
    return str(exc) or type(exc).__name__
