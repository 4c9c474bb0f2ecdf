"""Ask a registry which other names it uses: an anonymous ``GET /v2/``, and one blob if need be.

Nothing is followed that was not judged first (`challenge`), the user and password go to the
judged token service only, and no log or error holds a token or a signed query.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

from yarl import URL

from dnsproxy.core import challenge
from dnsproxy.core.registry import lies_below
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.credentials import Credentials, read_credentials
from dnsproxy.helper.web import AddressesOf, Page, Web, open_web
from dnsproxy.settings.discovery import DiscoverSettings

# Seconds for one registry: at most six short exchanges, each with a lookup.
DEADLINE = 15.0
# Index of several platforms, manifest of one.
_MAX_MANIFESTS = 2
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TOKEN = re.compile(r"[!-~]{1,16384}")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """A response that names no host, and is no evidence that clients need none."""

    reason: Doubt
    detail: str


Outcome = tuple[str, ...] | Inconclusive | DiscoverError
"""The hosts that a registry names for a role, none when it names itself; or why they are not known."""


@dataclass(frozen=True, slots=True)
class Target:
    """The registry at ``host`` (canonical); ``roles`` are what to find out of ``auth`` and ``storage``."""

    label: str
    host: str
    roles: frozenset[str]
    options: DiscoverSettings


@dataclass(slots=True)
class Report:
    """What came of asking: an outcome for each role, and whether all on this host can read the password."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    exposed: bool = False


async def discover(target: Target, addresses_of: AddressesOf, source: Source | None = None) -> Report:
    """Ask ``target`` for its roles, from ``source``. Never raises for what a registry does."""
    report = Report()
    try:
        async with (
            asyncio.timeout(DEADLINE),
            open_web(addresses_of, target.options.ca_file, source) as web,
        ):
            await _Inquiry(target, web, report).run()
    except TimeoutError:
        failure = DiscoverError(Doubt.TIMEOUT, f"no whole answer within {DEADLINE:g} s")
    except DiscoverError as exc:
        failure = exc
    else:
        return report
    for role in target.roles:
        report.outcomes.setdefault(role, failure)
    return report


class _Inquiry:
    """One registry, one time."""

    def __init__(self, target: Target, web: Web, report: Report) -> None:
        self._target = target
        self._options = target.options
        self._web = web
        self._report = report
        self._registry = URL.build(scheme="https", host=target.host.rstrip("."), port=target.options.port)

    async def run(self) -> None:
        """Put what is found into the report as soon as it is."""
        outcomes = self._report.outcomes
        challenges, bearer = await self._challenge()
        if "auth" in self._target.roles:
            outcomes["auth"] = _token_host(bearer)
        if "storage" in self._target.roles:
            outcomes["storage"] = (
                (self._default_bucket(bearer),)
                if self._options.repository is None
                else await self._redirect(self._options.repository, challenges, bearer)
            )

    async def _challenge(self) -> tuple[list[challenge.Challenge], challenge.Bearer | None]:
        page = await self._web.get("/v2/", self._registry / "v2" / "")
        if page.status == HTTPStatus.UNAUTHORIZED:
            challenges = challenge.parse_challenges(page.headers.getall("WWW-Authenticate", []))
            options = self._options
            bearer = challenge.judge_bearer(
                challenges, self._target.host, options.port, options.realm_suffixes
            )
            if bearer is None and not _has_basic(challenges):
                raise DiscoverError(Doubt.NOT_A_REGISTRY, "/v2/: status 401 without a usable challenge")
            return challenges, bearer
        if page.status != HTTPStatus.OK:
            raise _refused("/v2/", page.status)
        # A server that answers 200 to every request is no registry.
        if "registry/2" not in page.headers.get("Docker-Distribution-Api-Version", ""):
            raise DiscoverError(Doubt.NOT_A_REGISTRY, "/v2/: status 200, and not from a registry")
        return [], None

    def _default_bucket(self, bearer: challenge.Bearer | None) -> str:
        bucket = challenge.default_bucket(bearer.hint if bearer else None)
        if bucket is None:
            detail = "the registry does not tell its instance id; give discover.repository, or the host"
            raise DiscoverError(Doubt.NO_HINT, detail)
        if not lies_below(bucket, self._options.storage_suffixes):
            raise DiscoverError(Doubt.FOREIGN, f"{bucket} is not below an allowed domain")
        return bucket

    async def _redirect(
        self, repository: str, challenges: list[challenge.Challenge], bearer: challenge.Bearer | None
    ) -> Outcome:
        path, reference = _split(repository)
        headers = await self._authorization(path, challenges, bearer)
        for digest in _blobs(await self._manifest(path, reference, headers)):
            host = await self._storage_host(f"v2/{path}/blobs/{digest}", headers)
            if host is not None:
                return (host,)
        return Inconclusive(Doubt.NO_REDIRECT, "no blob is redirected to another host")

    async def _storage_host(self, blob: str, headers: dict[str, str]) -> str | None:
        page = await self._web.get("the blob", self._registry / blob, headers, read=False)
        if page.status == HTTPStatus.OK:
            return None
        if page.status not in _REDIRECTS:
            raise _refused("the blob", page.status)
        location = page.headers.get("Location", "")
        return challenge.judge_redirect(location, self._target.host, self._options.storage_suffixes)

    async def _authorization(
        self, path: str, challenges: list[challenge.Challenge], bearer: challenge.Bearer | None
    ) -> dict[str, str]:
        held = await self._credentials()
        if bearer is not None:
            return {"Authorization": f"Bearer {await self._token(path, bearer, held)}"}
        if held is not None and _has_basic(challenges):
            return {"Authorization": held.basic}
        return {}

    async def _credentials(self) -> Credentials | None:
        file = self._options.credentials_file
        if file is None:
            return None
        # Read again each time: the passwords of an instance are good for an hour.
        held = await asyncio.to_thread(read_credentials, file, self._target.host, self._options.port)
        self._report.exposed = held.exposed
        return held

    async def _token(self, path: str, bearer: challenge.Bearer, held: Credentials | None) -> str:
        what = "the token service"
        query = {"scope": f"repository:{path}:pull"} | ({"service": bearer.service} if bearer.service else {})
        headers = {"Authorization": held.basic} if held else {}
        document = _json(what, await self._web.get(what, _token_url(bearer, query), headers))
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            raise DiscoverError(Doubt.CREDENTIALS, f"{what}: no token in its answer")
        return token

    async def _manifest(self, path: str, reference: str, headers: dict[str, str]) -> Mapping[str, Any]:
        """Return the manifest of an image for one platform."""
        what = "the manifest"
        for _ in range(_MAX_MANIFESTS):
            url = self._registry / f"v2/{path}/manifests/{reference}"
            document = _json(what, await self._web.get(what, url, headers | {"Accept": _MANIFESTS}))
            if _digest_in(document.get("config")) is not None:
                return document
            reference = next(_digests(document.get("manifests")), "")
            if not reference:
                break
        raise DiscoverError(Doubt.NO_BLOB, f"{what}: names no configuration")


def _token_host(bearer: challenge.Bearer | None) -> Outcome:
    if bearer is None:
        # A front end asks for a password too, and a registry without token service names no other host.
        return Inconclusive(Doubt.NO_BEARER, "/v2/: no Bearer challenge")
    return () if bearer.taken_over else (bearer.host,)


def _has_basic(challenges: list[challenge.Challenge]) -> bool:
    return any(entry.scheme == "basic" for entry in challenges)


def _split(repository: str) -> tuple[str, str]:
    path, at, digest = repository.partition("@")
    if at:
        return path, digest
    path, _, tag = repository.partition(":")
    return path, tag or "latest"


def _token_url(bearer: challenge.Bearer, query: Mapping[str, str]) -> URL:
    try:
        url = URL(bearer.realm).update_query(query)
    except ValueError:
        raise DiscoverError(Doubt.NOT_A_URL, "realm: not a usable URL") from None
    # Two readers of one URL: they must agree on where the password goes.
    if (url.scheme, f"{url.host}.") != ("https", bearer.host):
        raise DiscoverError(Doubt.NOT_A_URL, "realm: not a usable URL")
    return url


def _json(what: str, page: Page) -> Mapping[str, Any]:
    if page.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise DiscoverError(Doubt.CREDENTIALS, f"{what}: status {page.status}")
    if page.status != HTTPStatus.OK:
        raise _refused(what, page.status)
    try:
        document = json.loads(page.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DiscoverError(Doubt.NOT_A_REGISTRY, f"{what}: not a JSON object")
    return document


def _blobs(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Return the configuration, the smallest blob, then a layer: a registry may serve small blobs itself."""
    yield from _digests([manifest.get("config")])
    yield from islice(_digests(manifest.get("layers")), 1)


def _digests(descriptors: object) -> Iterator[str]:
    listed = descriptors if isinstance(descriptors, list) else []
    return filter(None, map(_digest_in, listed))


def _digest_in(descriptor: object) -> str | None:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _refused(what: str, status: int) -> DiscoverError:
    hint = " (redirects are not followed)" if status in _REDIRECTS else ""
    return DiscoverError(Doubt.STATUS, f"{what}: status {status}{hint}")
