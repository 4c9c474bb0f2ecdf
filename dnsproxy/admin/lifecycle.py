"""Orders over HTTP about the program itself: take the changed configuration, replace the workers."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from dnsproxy.core.totals import Outcome


class Reloadable(Protocol):
    """Who takes these orders."""

    async def reload(self) -> Outcome:
        """Read the configuration again, and go by it if nothing is wrong with it."""

    def restart_workers(self) -> str | None:
        """Begin to replace the workers, one after another; return why that cannot be, if so."""


class LifecycleApi:
    """The handlers. `access` has checked each request before."""

    def __init__(self, program: Reloadable) -> None:
        self._program = program

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/api/v1/reload", self.reload)
        app.router.add_post("/api/v1/restart-workers", self.restart_workers)

    async def reload(self, _request: web.Request) -> web.Response:
        """Answer with what has changed, or with status 409 and every problem."""
        outcome = await self._program.reload()
        if outcome.problems:
            told = "\n".join(outcome.problems)
            return web.json_response({"error": told, "problems": list(outcome.problems)}, status=409)
        return web.json_response(
            {
                "changed": list(outcome.changed),
                "changed_files": list(outcome.files),
                "need_restart": list(outcome.need_restart),
            }
        )

    async def restart_workers(self, _request: web.Request) -> web.Response:
        """Answer that it has begun, or with status 409 and why not."""
        failure = self._program.restart_workers()
        if failure is not None:
            return web.json_response({"error": failure}, status=409)
        return web.json_response({"restart": "started"}, status=202)
