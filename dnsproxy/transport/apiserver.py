"""One entry of a ConfigMap or Secret, by way of lightkube (the extra ``kubernetes``).

lightkube reads the token of a service account again when the API server refuses it, as client-go does. Any
other trouble makes the next call begin with a new client, so a kubeconfig or an authority that has changed is
taken.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnsproxy.errors import StartError, StoreError
from dnsproxy.settings.stores import KubernetesPlace
from dnsproxy.transport.extras import needs_extra

if TYPE_CHECKING:
    from lightkube import AsyncClient

# Octets of all data of a ConfigMap or Secret; the API server's limit.
MAX_DATA = 1_048_576
# Where a pod finds its service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}
_TOO_LARGE = "a ConfigMap or Secret holds at most 1 MiB"


class ConflictError(StoreError):
    """Somebody else has written since the object was read."""


class GoneError(StoreError):
    """The version to watch from is too old; read the object instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the object has under the key, None for nothing; ``version`` is the object's resourceVersion."""

    text: str | None
    version: str


@cache
def _resource(kind: str) -> Any:  # noqa: ANN401 - a class that is made at run time
    try:
        # An extra. Its typed models of all kinds are not loaded: they take 11 MiB.
        from lightkube.generic_resource import create_namespaced_resource  # noqa: PLC0415
    except ImportError as exc:
        raise StartError(needs_extra("kubernetes")) from exc
    return create_namespaced_resource("", "v1", kind, _PLURALS[kind])


class ApiObject:
    """Reads, watches and writes the entry at ``place``. `close` it at the end.

    ``account`` is the folder of the service account that is used without a kubeconfig.

    Raises:
        StartError: lightkube is not installed.
    """

    def __init__(self, place: KubernetesPlace, account: Path = ACCOUNT) -> None:
        self._place = place
        self._account = account
        self._resource = _resource(place.kind)
        self._client: AsyncClient | None = None

    async def get(self) -> Entry:
        """Return the entry.

        Raises:
            StoreError: it cannot be had; the message says why, without secrets.
            FileNotFoundError: there is no such object.
        """
        async with self._talk() as client:
            found = await client.get(self._resource, self._place.object, namespace=self._place.namespace)
            return self._entry(found)

    async def watch(self, version: str, seconds: float) -> Entry | None:
        """Return the first entry after ``version``; None when there was none for ``seconds``.

        Raises:
            GoneError: the API server does not know that version any more.
            StoreError, FileNotFoundError: as `get`; also when the object is deleted meanwhile.
        """
        try:
            async with asyncio.timeout(seconds), self._talk() as client:
                events = client.watch(
                    self._resource,
                    namespace=self._place.namespace,
                    # By name, as rights for one object by its name cover no other watch.
                    fields={"metadata.name": self._place.object},
                    resource_version=version,
                    server_timeout=math.ceil(seconds) + 1,
                )
                return await self._first(events)
        except TimeoutError:
            return None

    async def _first(self, events: Any) -> Entry | None:  # noqa: ANN401 - lightkube's, of a type made at run time
        async with aclosing(events):
            async for kind, found in events:
                if kind == "DELETED":
                    raise self._missing()
                if kind in {"ADDED", "MODIFIED"}:
                    return self._entry(found)
        return None

    async def put(self, text: str, over: Entry | None) -> Entry:
        """Write the entry into the object that ``over`` was read from, or into a new one; other keys stay.

        Raises:
            ConflictError: the object has changed since.
            StoreError: it cannot be written.
        """
        if len(text) > MAX_DATA:
            raise StoreError(
                f"{_TOO_LARGE}, and the snapshot has {len(text)} octets: use another kind of target"
            )
        value = base64.b64encode(text.encode()).decode() if self._place.kind == "Secret" else text
        body: dict[str, Any] = {"data": {self._place.key: value}}
        async with self._talk() as client:
            if over is None:
                body["metadata"] = {"name": self._place.object}
                found = await self._create(client, body)
            else:
                from lightkube.types import PatchType  # noqa: PLC0415 - as in __init__

                body["metadata"] = {"resourceVersion": over.version}
                found = await client.patch(
                    self._resource,
                    self._place.object,
                    body,
                    namespace=self._place.namespace,
                    patch_type=PatchType.MERGE,
                )
            return self._entry(found)

    async def _create(self, client: Any, body: dict[str, Any]) -> Any:  # noqa: ANN401 - lightkube's
        import httpx2  # noqa: PLC0415 - what lightkube is built on

        try:
            return await client.create(self._resource(**body), namespace=self._place.namespace)
        except httpx2.HTTPStatusError as exc:
            if _code_of(exc) == 404:
                raise StoreError(f"it cannot be made there: {_said(exc)}") from None
            raise

    def _entry(self, found: Mapping[str, Any]) -> Entry:
        value = (found.get("data") or {}).get(self._place.key)
        version = found["metadata"]["resourceVersion"]
        if value is not None and self._place.kind == "Secret":
            try:
                value = base64.b64decode(value, validate=True).decode("ascii", "replace")
            except binascii.Error as exc:
                raise StoreError("not base64, as the data of a Secret must be") from exc
        return Entry(value, version)

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(f"there is no {self._place.kind} {self._place.object}")

    @asynccontextmanager
    async def _talk(self) -> AsyncIterator[Any]:
        """Give the client, and turn its errors into ours. Its overloads know no types made at run time."""
        import httpx2  # noqa: PLC0415 - what lightkube is built on

        if self._client is None:
            self._client = await asyncio.to_thread(self._make_client)
        try:
            yield self._client
        except httpx2.HTTPStatusError as exc:
            code = _code_of(exc)
            if code not in {404, 409, 410}:
                await self.close()
            raise self._failure(code, exc) from None  # it holds the request with its token
        except httpx2.HTTPError as exc:
            await self.close()
            raise StoreError(_transport_reason(exc)) from None
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            await self.close()
            raise StoreError(f"not the answer of an API server ({type(exc).__name__})") from exc

    def _make_client(self) -> AsyncClient:
        from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415 - as in __init__
        from lightkube.core.exceptions import ConfigError  # noqa: PLC0415

        place = self._place
        where = "the service account of this pod" if place.kubeconfig is None else str(place.kubeconfig)
        try:
            if place.kubeconfig is None:
                return AsyncClient(config=KubeConfig.from_service_account(self._account).get())
            return AsyncClient(config=KubeConfig.from_file(place.kubeconfig).get(place.context))
        except (ConfigError, OSError) as exc:
            raise StoreError(f"{where} cannot be used: {exc}") from exc
        except Exception as exc:  # noqa: BLE001 - any of a YAML library or of what is missing in the file
            # Its text may show a line with a secret.
            raise StoreError(f"{where} cannot be used: {type(exc).__name__}") from None

    def _failure(self, code: int, exc: Exception) -> Exception:
        if code == 404:
            return self._missing()
        if code == 409:
            return ConflictError("somebody else has written there meanwhile")
        if code == 410:
            return GoneError("the version to watch from is too old")
        if code == 401:
            return StoreError("the API server refused the credentials (401)")
        said = _said(exc)
        if code == 413 or (code == 422 and "too long" in said.lower()):
            return StoreError(f"{_TOO_LARGE}: {said}")
        return StoreError(f"status {code}: {said}")

    async def close(self) -> None:
        """Close the client; the next call makes another."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _code_of(exc: Any) -> int:  # noqa: ANN401 - httpx2 is an extra
    # An error within a watch comes as a Status, without a response of its own.
    status = getattr(exc, "status", None)
    if status is not None and status.code is not None:
        return int(status.code)
    return int(exc.response.status_code)


def _said(exc: Any) -> str:  # noqa: ANN401 - the same
    """Return the server's own words, which name user, verb and object; else what the status means."""
    status = getattr(exc, "status", None)
    if status is not None and status.message:
        return str(status.message).splitlines()[0]
    return str(exc.response.reason_phrase)


def _transport_reason(exc: Exception) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__
