"""A member of an etcd cluster as its JSON gateway shows it, with faults that a real one does not have.

Members made with one `Store` are one cluster.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from dnsproxy.settings.etcd import EtcdSource, EtcdTarget

KEY = "/dnsproxy/x"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Store:
    """What the members agree on."""

    cluster: str = "77"
    revision: int = 1
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    compacted: int = 0
    tokens: set[str] = field(default_factory=set)
    password: str | None = None
    leases: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self) -> dict[str, str]:
        return {"cluster_id": self.cluster, "revision": str(self.revision)}

    def put(self, key: str, value: bytes, lease: str = "0") -> None:
        self.revision += 1
        held = self.keys.get(key)
        created = held["create_revision"] if held else str(self.revision)
        self.keys[key] = {
            "key": base64.b64encode(key.encode()).decode(),
            "create_revision": created,
            "mod_revision": str(self.revision),
            "value": base64.b64encode(value).decode(),
            "lease": lease,
        }
        self._tell(key, {"kv": self.keys[key]})

    def delete(self, key: str) -> None:
        self.revision += 1
        if self.keys.pop(key, None) is not None:
            kv = {"key": base64.b64encode(key.encode()).decode(), "mod_revision": str(self.revision)}
            self._tell(key, {"type": "DELETE", "kv": kv})

    def revoke(self, lease: str) -> None:
        self.leases.pop(lease, None)
        for key in [key for key, kv in self.keys.items() if kv["lease"] == lease]:
            self.delete(key)

    def _tell(self, key: str, event: dict[str, Any]) -> None:
        self.events.append((self.revision, key, event))
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Member:
    """One member. ``fault``, where set, answers in its place; `deaf` watches say nothing."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fault: Handler | None = None
        self.deaf = False
        self.asked: list[str] = []
        self.peers: list[str | None] = []
        self.tokens: list[str | None] = []
        self._server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return str(self._server.make_url("")).rstrip("/")

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._server = TestServer(app, host="127.0.0.1")
        await self._server.start_server(shutdown_timeout=0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.peers.append(request.remote)
        if self.fault is not None:
            return await self.fault(request)
        body = await request.json()
        if request.path == "/v3/auth/authenticate":
            return self._sign_in(body)
        token = request.headers.get("Authorization")
        self.tokens.append(token)
        if self.store.password is not None and token not in self.store.tokens:
            refused = {"error": "etcdserver: invalid auth token", "code": 16}
            return web.json_response(refused, status=401)
        if request.path == "/v3/watch":
            return await self._watch(request, body["create_request"])
        handle = {
            "/v3/kv/range": self._range,
            "/v3/kv/put": self._put,
            "/v3/kv/txn": self._txn,
            "/v3/lease/grant": self._grant,
            "/v3/lease/keepalive": self._keep,
            "/v3/lease/revoke": self._revoke,
        }[request.path]
        return web.json_response({"header": self.store.header(), **handle(body)})

    def _sign_in(self, body: dict[str, str]) -> web.Response:
        if body["password"] != self.store.password:
            refused = {"error": "etcdserver: authentication failed, invalid user ID or password", "code": 3}
            return web.json_response(refused, status=400)
        token = f"token{len(self.store.tokens)}"
        self.store.tokens.add(token)
        return web.json_response({"header": self.store.header(), "token": token})

    def _range(self, body: dict[str, str]) -> dict[str, Any]:
        kv = self.store.keys.get(_text(body["key"]))
        if kv is None:
            return {}
        if int(kv["mod_revision"]) < int(body.get("min_mod_revision", "0")):
            return {"count": "1"}
        return {"kvs": [kv], "count": "1"}

    def _put(self, body: dict[str, str]) -> dict[str, Any]:
        self.store.put(_text(body["key"]), base64.b64decode(body["value"]), body.get("lease", "0"))
        return {}

    def _txn(self, body: dict[str, Any]) -> dict[str, Any]:
        (compare,) = body["compare"]
        held = self.store.keys.get(_text(compare["key"]))
        looked_at = {"CREATE": "create_revision", "MOD": "mod_revision"}[compare["target"]]
        if (held[looked_at] if held else "0") != compare[looked_at]:
            return {}
        self._put(body["success"][0]["request_put"])
        return {"succeeded": True}

    def _grant(self, body: dict[str, str]) -> dict[str, Any]:
        lease = str(len(self.store.leases) + 100 + self.store.revision)
        self.store.leases[lease] = int(body["TTL"])
        return {"ID": lease, "TTL": body["TTL"]}

    def _keep(self, body: dict[str, str]) -> dict[str, Any]:
        seconds = self.store.leases.get(body["ID"])
        return {"result": {"ID": body["ID"], **({"TTL": str(seconds)} if seconds else {})}}

    def _revoke(self, body: dict[str, str]) -> dict[str, Any]:
        self.store.revoke(body["ID"])
        return {}

    async def _watch(self, request: web.Request, wanted: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        start = int(wanted.get("start_revision", "0"))
        await self._say(response, {"created": True})
        if start <= self.store.compacted:
            await self._say(response, {"canceled": True, "compact_revision": str(self.store.compacted)})
            return response
        told = start - 1
        while True:
            changed = self.store.changed
            for revision, key, event in list(self.store.events):
                if revision > told and key == _text(wanted["key"]) and not self.deaf:
                    await self._say(response, {"events": [event]})
            told = self.store.revision
            await changed.wait()

    async def _say(self, response: web.StreamResponse, result: dict[str, Any]) -> None:
        line = {"result": {"header": self.store.header(), **result}}
        await response.write(json.dumps(line).encode() + b"\n")


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def source(*members: Member, **more: Any) -> EtcdSource:
    return EtcdSource(type="etcd", endpoints=[member.url for member in members], key=KEY, **more)


def target(*members: Member, **more: Any) -> EtcdTarget:
    return EtcdTarget(type="etcd", endpoints=[member.url for member in members], key=KEY, **more)


async def hang(_request: web.Request) -> web.StreamResponse:
    """Take the request and say nothing."""
    await asyncio.sleep(600)
    raise AssertionError


def refuse(status: int, **body: Any) -> Handler:
    """Answer every request with this."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return answer
