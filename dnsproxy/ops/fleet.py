"""Ask many proxies how they stand, by their admin endpoints. `ops.fleet_prometheus` asks Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dnsproxy.core.standings import Standing
from dnsproxy.core.text import printable_document
from dnsproxy.errors import ForeignError
from dnsproxy.ops.client import reason_of

# Octets of a status document. One with 1000 names has some 2 MB.
MAX_DOCUMENT = 16 * 1024 * 1024
_CHUNK = 65_536
_ENDPOINT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")


class FleetError(ForeignError):
    """The fleet could not be asked at all; the message says why in one line."""


def parse_endpoint(text: str) -> str:
    """Return the URL of an admin endpoint that is given as ``http(s)://host[:port][/path]`` or ``host:port``.

    Raises:
        ValueError: it is neither.
    """
    url = f"http://{text}" if _ENDPOINT.fullmatch(text) else text
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no endpoint; write for example http://10.0.0.1:9153 or 10.0.0.1:9153")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an endpoint has no user and password; use --token-file")
    _ = parts.port  # raises ValueError above 65535
    return url.rstrip("/")


def read_endpoints(path: Path) -> list[str]:
    """Return the endpoints in a file: one a line; what follows a ``#`` and empty lines do not count.

    Raises:
        ValueError: the file cannot be read, or has lines that are no endpoints; with all of them.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path}: not UTF-8") from exc
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                found.append(parse_endpoint(text))
            except ValueError as exc:
                wrong.append(f"{path}:{number}: {exc}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


async def ask_endpoints(
    endpoints: Sequence[str],
    *,
    token: str | None = None,
    context: ssl.SSLContext | None = None,
    timeout: float = 5.0,  # noqa: ASYNC109 - of each request, not of this call
    at_once: int = 64,
) -> list[Standing]:
    """Ask each endpoint for its status, ``at_once`` at a time, each for ``timeout`` seconds at the most.

    One that does not answer is in the result with the reason, so there are as many as were asked.
    """
    gate = asyncio.Semaphore(at_once)
    async with open_session(token, context, at_once) as session:

        async def ask(endpoint: str) -> Standing:
            async with gate:
                try:
                    document = await get_json(session, f"{endpoint}/api/v1/status", timeout)
                    return standing_of(endpoint, document)
                except FleetError as exc:
                    return Standing(endpoint, silence=str(exc))

        return list(await asyncio.gather(*(ask(endpoint) for endpoint in dict.fromkeys(endpoints))))


def open_session(token: str | None, context: ssl.SSLContext | None, at_once: int) -> aiohttp.ClientSession:
    """Return a session that sends ``token`` and believes the authorities of ``context``. Close it."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(ssl=True if context is None else context, limit=at_once)
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def get_json(
    session: aiohttp.ClientSession,
    url: str,
    timeout: float,  # noqa: ASYNC109 - told in the reason
    params: Mapping[str, str] | None = None,
    most: int = MAX_DOCUMENT,
) -> dict[str, Any]:
    """Return the JSON object at ``url``.

    Raises:
        FleetError: none in ``timeout`` seconds, no success, more than ``most`` octets, or no JSON object.
    """
    try:
        async with (
            asyncio.timeout(timeout),
            session.get(url, params=params, allow_redirects=False) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > most:
                    raise FleetError(f"an answer of more than {most} octets")
            status, reason = response.status, response.reason or ""
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        raise FleetError(reason_of(exc, timeout)) from exc
    try:
        document = printable_document(json.loads(body))
    except (ValueError, RecursionError):
        document = None
    if status != 200:
        told = document.get("error") if isinstance(document, dict) else None
        raise FleetError(f"status {status} {told if isinstance(told, str) else reason}".rstrip())
    if not isinstance(document, dict):
        raise FleetError("the answer is not a JSON object")
    return document


def standing_of(endpoint: str, document: Mapping[str, Any]) -> Standing:
    """Read the status document of a proxy of this version, or of one before it told of its fleet.

    Raises:
        FleetError: it is not one of dnsproxy's.
    """
    try:
        ages = [float(name["age"]) for name in document["names"] if name["age"] is not None]
        listed = document.get("issuers")
        if listed is None:
            listed = [source for source in document["sources"] if source["issuer"] and source["serial"]]
        serials: dict[str, int] = {}
        for entry in listed:
            serials[str(entry["issuer"])] = max(int(entry["serial"]), serials.get(str(entry["issuer"]), 0))
        errors = [str(source["last_error"]) for source in document["sources"] if source["last_error"]]
        buckets = (document.get("convergence") or {}).get("buckets") or []
        return Standing(
            endpoint,
            proxy=str(document.get("proxy") or document.get("host") or ""),
            version=str(document["version"]),
            ready=document["ready"] is True,
            draining=document.get("draining") is True,
            serials=serials,
            age=max(ages, default=None),
            last_error="; ".join(errors) or None,
            buckets=[(_bound(bucket["le"]), float(bucket["count"])) for bucket in buckets],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise FleetError("not a status document of dnsproxy") from exc


def _bound(value: object) -> float:
    return float("inf") if value is None else float(str(value))
