"""``/``: the status page, and the files that it needs.

One renderer serves everybody: the page is whole without JavaScript, and its script asks for
it again every few seconds and takes over what differs. Nothing is drawn twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from aiohttp.typedefs import LooseHeaders

from dnsproxy.admin.control import Control, current_history
from dnsproxy.admin.status import Facts, status_document

if TYPE_CHECKING:
    from dnsproxy.admin.render import Page

# Nothing but these files and this endpoint: no other origin, no inline script or style, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Shown(Protocol):
    """What the page needs of the running proxy: a part of `app.Operated`."""

    @property
    def addresses(self) -> Control:
        """Who holds the history."""

    async def gather(self) -> None:
        """Have the figures of `facts` brought up to date."""

    def facts(self) -> Facts:
        """Return all that there is to tell."""


class StatusPage:
    """The handlers."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._page: Page | None = None
        # One page at a time, however many look: the rest of the time is for queries.
        self._drawing = asyncio.Lock()
        self._files: dict[str, tuple[bytes, str]] = {}

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/", self.index)
        app.router.add_get("/static/{name}", self.file)

    async def index(self, request: web.Request) -> web.Response:
        """Return the page as of now; the list of paths to a program, which does not ask for HTML."""
        if "text/html" not in request.headers.get("Accept", ""):
            return web.Response(text=_paths(request.app), headers={"Vary": "Accept"})
        await self._shown.gather()
        # In a thread: the first page imports jinja2 and compiles the template, for 100 ms, and one with
        # hundreds of names takes some too, in which this process is to answer queries. Documents are plain.
        async with self._drawing:
            document = status_document(self._shown.facts())
            history = current_history(self._shown.addresses.lifecycle)
            text = await asyncio.to_thread(lambda: self._ready().render(document, history))
        headers = {"Content-Security-Policy": POLICY, "Vary": "Accept"}
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    def _ready(self) -> Page:
        if self._page is None:
            # Not needed to answer queries.
            from dnsproxy.admin.render import Page  # noqa: PLC0415

            build = hashlib.sha256("".join(self._file(name)[1] for name in _TYPES).encode())
            self._page = Page(build.hexdigest()[:16])
        return self._page

    async def file(self, request: web.Request) -> web.Response:
        """Return a file of the page, or 304 to who has it already."""
        name = request.match_info["name"]
        if name not in _TYPES:
            raise web.HTTPNotFound
        content, tag = self._file(name)
        # Asked for anew each time, since the address of a file stays when an upgrade changes it.
        headers: LooseHeaders = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=_TYPES[name], charset="utf-8", headers=headers)

    def _file(self, name: str) -> tuple[bytes, str]:
        """Return the content and its tag."""
        if name not in self._files:
            content = (resources.files("dnsproxy.admin") / "static" / name).read_bytes()
            self._files[name] = content, hashlib.sha256(content).hexdigest()[:32]
        return self._files[name]


def _paths(app: web.Application) -> str:
    paths = sorted({route.resource.canonical for route in app.router.routes() if route.resource})
    return "dnsproxy\n" + "".join(f"{path}\n" for path in paths)


async def harden(_request: web.Request, response: web.StreamResponse) -> None:
    """Give every response the headers that keep a browser from making more of it than it is."""
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("X-Frame-Options", "DENY")
    # What a proxy knows changes by the second, and is for the one who asked.
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
