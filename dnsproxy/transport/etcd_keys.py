"""One key of an etcd cluster: read, written, watched."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from dnsproxy.errors import StoreError
from dnsproxy.transport.etcd import MAX_ANSWER, EtcdCluster, Json, encode, refusal_text
from dnsproxy.transport.reasons import client_reason


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key at a revision of its cluster (a counter that each change of any key moves on).

    ``mod_revision`` is that of the key's last change, 0 when there is no such key; ``create_revision`` that
    of its creation. ``value`` is None when it was not asked for.
    """

    cluster: str
    revision: int
    mod_revision: int = 0
    create_revision: int = 0
    value: bytes | None = None

    @property
    def exists(self) -> bool:
        """Whether there is such a key."""
        return self.mod_revision > 0

    @property
    def changed_at(self) -> int:
        """The revision of its last change; without a key, one that is not before its deletion."""
        return self.mod_revision or self.revision

    def is_same(self, other: KeyState) -> bool:
        """Whether nothing has happened to the key between the two."""
        return (self.cluster, self.mod_revision) == (other.cluster, other.mod_revision)


@contextmanager
def _of_etcd() -> Iterator[None]:
    """Take an answer of another shape for an error of the store."""
    try:
        yield
    except (AttributeError, LookupError, TypeError) as exc:
        raise StoreError("the answer is not one of etcd") from exc


def whole(answer: Json, key: str) -> int:
    """Return a number, which stands as text in the gateway's JSON; 0 is left out there.

    Raises:
        StoreError: it is none.
    """
    try:
        return int(answer.get(key, 0))
    except (AttributeError, TypeError, ValueError) as exc:
        raise StoreError(f"{key} is not a number in an answer") from exc


async def read_key(cluster: EtcdCluster, key: str, newer_than: int = 0) -> KeyState:
    """Return the key as the majority of the cluster has it.

    When its last change is not after revision ``newer_than``, ``value`` is None and ``mod_revision`` that.

    Raises:
        StoreError: no member can tell.
    """
    body = {"key": encode(key), "min_mod_revision": str(newer_than + 1)}
    return state_of(await cluster.call("/v3/kv/range", body), newer_than)


def state_of(answer: Json, newer_than: int = 0) -> KeyState:
    """Read the answer to a range request for one key.

    Raises:
        StoreError: it is none.
    """
    with _of_etcd():
        return _range_state(answer, newer_than)


def _range_state(answer: Json, newer_than: int) -> KeyState:
    header = answer.get("header", {})
    kvs = answer.get("kvs", [])
    if kvs:
        return _state(header, kvs[0])
    # Only those that pass the filter are listed; all are counted.
    known = newer_than if whole(answer, "count") else 0
    return KeyState(str(header.get("cluster_id", "")), whole(header, "revision"), known)


def _state(header: Json, kv: Json) -> KeyState:
    try:
        value = base64.b64decode(kv.get("value", ""), validate=True)
    except (TypeError, ValueError) as exc:
        raise StoreError("a value is not base64 in an answer") from exc
    return KeyState(
        str(header.get("cluster_id", "")),
        whole(header, "revision"),
        whole(kv, "mod_revision"),
        whole(kv, "create_revision"),
        value,
    )


def _latest(result: Json) -> KeyState | None:
    header, latest = result.get("header", {}), None
    for event in result.get("events", []):
        state = _state(header, event.get("kv", {}))
        deleted = event.get("type") == "DELETE"
        latest = KeyState(state.cluster, state.mod_revision) if deleted else state
    return latest


def _words(error: object) -> str:
    # A text, or an object with one, by the version.
    return str(error.get("message") if isinstance(error, dict) else error or "the watch makes no sense")


def put(key: str, value: str, lease: int = 0) -> dict[str, Any]:
    """Return the request that puts ``value`` (ASCII) to ``key``."""
    request = {"key": encode(key), "value": encode(value)}
    return request | {"lease": str(lease)} if lease else request


async def put_if_created_at(cluster: EtcdCluster, held: str, create_revision: int, request: Json) -> bool:
    """Put only if the key ``held`` was created at that revision, 0 for not at all; return whether.

    Raises:
        StoreError: no member does it.
    """
    return await _put_if(cluster, held, "CREATE", {"create_revision": str(create_revision)}, request)


async def put_over(cluster: EtcdCluster, key: str, mod_revision: int, value: str) -> bool:
    """Put ``value`` only if the key's last change was at that revision, 0 for no key; return whether.

    Raises:
        StoreError: no member does it.
    """
    return await _put_if(cluster, key, "MOD", {"mod_revision": str(mod_revision)}, put(key, value))


async def _put_if(cluster: EtcdCluster, key: str, target: str, revision: Json, request: Json) -> bool:
    compare = {"key": encode(key), "target": target, "result": "EQUAL", **revision}
    body = {"compare": [compare], "success": [{"request_put": request}]}
    return bool((await cluster.call("/v3/kv/txn", body)).get("succeeded", False))


class Watch:
    """The changes of one key from a revision on, as one member tells them. Anything that it is not sure of
    ends it with an error: then read the key, and watch from the revision of that.
    """

    def __init__(self, member: str, response: aiohttp.ClientResponse) -> None:
        self.member = member
        self._response = response
        self._buffer = bytearray()

    @classmethod
    async def open(cls, cluster: EtcdCluster, key: str, revision: int) -> Self:
        """Watch ``key`` from ``revision`` on.

        Raises:
            StoreError: the member that is asked now does not do it.
        """
        body = {"create_request": {"key": encode(key), "start_revision": str(revision)}}
        return cls(*await cluster.open("/v3/watch", body))

    async def next(self) -> KeyState:
        """Return the latest of the next changes; may be cancelled, and loses nothing by it.

        Raises:
            StoreError: the watch has ended.
        """
        while True:
            latest = None
            while (end := self._buffer.find(b"\n")) >= 0:
                latest = self._read(bytes(self._buffer[:end])) or latest
                del self._buffer[: end + 1]
            if latest is not None:
                return latest
            # Not `readline`, which would lose what it has when it is cancelled.
            try:
                chunk = await self._response.content.readany()
            except aiohttp.ClientError as exc:
                raise StoreError(f"{self.member}: {client_reason(exc)}") from exc
            if not chunk:
                raise StoreError(f"{self.member}: the watch was ended")
            self._buffer += chunk
            if len(self._buffer) > MAX_ANSWER:
                raise StoreError(f"{self.member}: an answer is larger than {MAX_ANSWER} octets")

    def _read(self, line: bytes) -> KeyState | None:
        try:
            message = json.loads(line)
            result = message.get("result")
        except (ValueError, AttributeError, RecursionError) as exc:
            raise StoreError(f"{self.member}: the watch makes no sense") from exc
        if not isinstance(result, dict):
            raise refusal_text(_words(message.get("error")))
        if "compact_revision" in result:
            raise StoreError("the revision to watch from has been compacted")
        if result.get("canceled"):
            raise refusal_text(str(result.get("cancel_reason") or "the watch was cancelled"))
        with _of_etcd():
            return _latest(result)

    def close(self) -> None:
        """End it."""
        self._response.close()
