"""A stand-in for the Kubernetes API server: ConfigMaps and Secrets, with what the API documents of them.

No real one can be had from a package. This follows "Kubernetes API Concepts" and the API conventions:
optimistic concurrency by ``resourceVersion``, watches from a version with ``fieldSelector``, bookmarks, ``410
Gone`` within a watch, Status objects for errors, bearer tokens, rights by name, the limit of 1 MiB.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.netns.authority import Authority

Json = dict[str, Any]
MAX_DATA = 1_048_576
PATH = "/api/v1/namespaces/{namespace}/{plural}"
KINDS = {"configmaps": "ConfigMap", "secrets": "Secret"}


def _json(body: Json, status: int = 200) -> web.Response:
    # Without a charset, as the real one: lightkube compares the whole field.
    return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")


class Refused(Exception):  # noqa: N818 - a Status, which may be a success elsewhere
    """Ends a request with a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


@dataclass
class ApiServer:
    """What it holds and how it behaves; tests change both as they like."""

    token: str = "first-token"  # noqa: S105 - of a server of the tests
    namespace: str = "dnsproxy"
    has_namespace: bool = True
    allowed: set[str] = field(default_factory=lambda: {"get", "watch", "create", "patch"})
    """Verbs; of the object ``dnsproxy-snapshot`` alone, except create, which no rule can tie to a name."""
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    version: int = 100
    compacted: int = 0
    """Watches from before this version are gone."""
    events: list[tuple[int, str, tuple[str, str], Json]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """Verb of each request that was let in."""
    watching: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what a test does besides ---------------------------------------------------------

    def put(self, name: str, plural: str = "configmaps", **data: str) -> None:
        """Write as somebody else would."""
        self._write((plural, name), {"data": data})

    def delete(self, name: str, plural: str = "configmaps") -> None:
        self.version += 1
        self._tell("DELETED", (plural, name), self.objects.pop((plural, name)))

    def compact(self) -> None:
        """Forget all events so far, as etcd does with what is older than five minutes."""
        self.version += 1
        self.compacted = self.version
        self.events = []

    def bookmark(self, plural: str = "configmaps") -> None:
        self.version += 1
        marked: Json = {"metadata": {"resourceVersion": str(self.version)}}
        self._tell("BOOKMARK", (plural, ""), marked)

    def hang_up(self) -> None:
        """End all watches, as a load balancer or a restart does."""
        self.hung_up.set()
        self.hung_up = asyncio.Event()

    # -- the server ------------------------------------------------------------------------

    def _write(self, at: tuple[str, str], body: Json) -> Json:
        self.version += 1
        plural, name = at
        metadata = {"name": name, "namespace": self.namespace, "resourceVersion": str(self.version)}
        known = at in self.objects
        found = self.objects[at] = {**body, "apiVersion": "v1", "kind": KINDS[plural], "metadata": metadata}
        self._tell("MODIFIED" if known else "ADDED", at, found)
        return found

    def _tell(self, kind: str, at: tuple[str, str], found: Json) -> None:
        self.events.append((self.version, kind, at, found))
        self.changed.set()
        self.changed = asyncio.Event()

    def _admit(self, request: web.Request, verb: str, name: str) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        named = verb == "create" or name == "dnsproxy-snapshot"
        if verb not in self.allowed or namespace != self.namespace or not named:
            raise Refused(
                403,
                "Forbidden",
                f'{plural} "{name}" is forbidden: User "system:serviceaccount:dnsproxy:dnsproxy" cannot'
                f' {verb} resource "{plural}" in API group "" in the namespace "{namespace}"',
            )
        self.seen.append(verb)

    def _held(self, at: tuple[str, str]) -> Json:
        if at not in self.objects:
            raise Refused(404, "NotFound", f'{at[0]} "{at[1]}" not found')
        return self.objects[at]

    async def get(self, request: web.Request) -> web.Response:
        plural, name = request.match_info["plural"], request.match_info["name"]
        self._admit(request, "get", name)
        return _json(self._held((plural, name)))

    async def create(self, request: web.Request) -> web.Response:
        plural, body = request.match_info["plural"], await request.json()
        name = body["metadata"]["name"]
        self._admit(request, "create", name)
        if not self.has_namespace:
            raise Refused(404, "NotFound", f'namespaces "{self.namespace}" not found')
        if (plural, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        assert (body["apiVersion"], body["kind"]) == ("v1", KINDS[plural])
        self._check_size(plural, name, body.get("data", {}))
        return _json(self._write((plural, name), {"data": body["data"]}), status=201)

    async def patch(self, request: web.Request) -> web.Response:
        plural, name = request.match_info["plural"], request.match_info["name"]
        self._admit(request, "patch", name)
        assert request.content_type == "application/merge-patch+json"
        body, held = await request.json(), self._held((plural, name))
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != held["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified',
            )
        data = {**held.get("data", {}), **body["data"]}
        self._check_size(plural, name, data)
        return _json(self._write((plural, name), {"data": data}))

    def _check_size(self, plural: str, name: str, data: dict[str, str]) -> None:
        values = [base64.b64decode(v) if plural == "secrets" else v.encode() for v in data.values()]
        if sum(map(len, values)) > MAX_DATA:
            message = (
                f'{KINDS[plural]} "{name}" is invalid: data: Too long: may not be more than {MAX_DATA} bytes'
            )
            raise Refused(422, "Invalid", message)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        plural, query = request.match_info["plural"], request.query
        assert query.get("watch") == "true", "lists are of no use here"
        selector = query.get("fieldSelector", "").removeprefix("metadata.name=")
        self._admit(request, "watch", selector)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        hung_up = self.hung_up
        self.watching += 1
        try:
            async with asyncio.timeout(float(query["timeoutSeconds"])):
                async for event in self._events((plural, selector), int(query["resourceVersion"]), hung_up):
                    await response.write(json.dumps(event).encode() + b"\n")
        except TimeoutError:
            pass
        finally:
            self.watching -= 1
        return response

    async def _events(self, at: tuple[str, str], after: int, hung_up: asyncio.Event) -> AsyncIterator[Json]:
        if after < self.compacted:
            gone = Refused(410, "Expired", f"too old resource version: {after} ({self.compacted})")
            yield {"type": "ERROR", "object": gone.body}
            return
        while not hung_up.is_set():
            changed = self.changed
            for version, kind, of, found in list(self.events):
                if version > after and of in {at, (at[0], "")}:
                    after = version
                    yield {"type": kind, "object": found}
            waiting = [asyncio.ensure_future(event.wait()) for event in (changed, hung_up)]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for future in waiting:
                    future.cancel()

    @web.middleware
    async def _statuses(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Refused as exc:
            return _json(exc.body, status=exc.body["code"])
        return response

    @asynccontextmanager
    async def serve(self, context: ssl.SSLContext | None = None) -> AsyncIterator[TestServer]:
        app = web.Application(middlewares=[self._statuses], client_max_size=4 * MAX_DATA)
        app.router.add_get(PATH, self.watch)
        app.router.add_post(PATH, self.create)
        app.router.add_get(PATH + "/{name}", self.get)
        app.router.add_patch(PATH + "/{name}", self.patch)
        server = TestServer(app, host="127.0.0.1", scheme="https" if context else "http")
        await server.start_server(ssl=context, shutdown_timeout=0.1)
        try:
            yield server
        finally:
            self.hang_up()
            await server.close()

    def kubeconfig(self, folder: Path, server: str) -> Path:
        """Write a kubeconfig with the token."""
        path = folder / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": self.namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        return path


class Pod:
    """What a pod finds of its service account, and the server's side of TLS."""

    def __init__(self, folder: Path, api: ApiServer) -> None:
        authority = Authority(folder / "authority")
        issued = authority.issue("127.0.0.1")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(issued.certificate, issued.key)
        self.account = folder / "serviceaccount"
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(authority.file.read_bytes())
        (self.account / "namespace").write_text(api.namespace)
        self.write_token(api.token)

    def write_token(self, token: str) -> None:
        (self.account / "token").write_text(f"{token}\n")
