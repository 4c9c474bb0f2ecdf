"""Make the channel that suits an upstream: what it speaks, whom it trusts, where its address comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from dnsproxy.core.upstreams import Upstream
from dnsproxy.net.channel import Channel
from dnsproxy.net.link import Ends, Keeper, Link
from dnsproxy.net.upstream_tcp import FramedLink
from dnsproxy.net.upstream_tls import ClientContext, client_context

HTTPS_PORT = 443

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Given the name of a host, its addresses; raises OSError when they cannot be had."""


async def _as_it_is(host: str) -> Sequence[str]:
    return (host,)


def _authority(host: str, port: int) -> str:
    """Return what the URL has there."""
    host = f"[{host}]" if ":" in host else host
    return host if port == HTTPS_PORT else f"{host}:{port}"


class Dialer:
    """Makes channels; ``resolve`` knows the addresses of hosts that are not numeric.

    The contexts of ``upstreams`` are made at once, since reading the authorities takes 20 ms.

    Raises:
        StartError: ``ca_file`` cannot be used.
    """

    def __init__(self, upstreams: Iterable[Upstream] = (), ca_file: Path | None = None) -> None:
        self.resolve: Resolve = _as_it_is
        self._ca_file = ca_file
        self._contexts = {upstream: self._context(upstream) for upstream in upstreams if upstream.secure}

    def _context(self, upstream: Upstream) -> ClientContext | None:
        secure = upstream.secure
        if secure is None:
            return None
        return client_context(self._ca_file, ("dot",) if secure.path is None else ("h2",))

    def open(self, upstream: Upstream, ends: Ends, draw_id: Callable[[], bytes]) -> Channel:
        """Return the channel to ``upstream``; it connects when it is first asked."""
        context = self._contexts.get(upstream) or self._context(upstream)
        make_link: Callable[[Keeper], Link] = partial(FramedLink, draw_id=draw_id)
        secure = upstream.secure
        if secure is not None and secure.path is not None:
            # Most proxies have no such upstream and do not need h2, which takes 40 ms to import.
            from dnsproxy.net.upstream_https import HttpsLink  # noqa: PLC0415

            authority = _authority(secure.server_name, upstream.address[1])
            make_link = partial(HttpsLink, authority=authority, path=secure.path, get=secure.get)

        def resolve() -> Awaitable[Sequence[str]]:
            return self.resolve(upstream.address[0])

        return Channel(upstream, ends, make_link, resolve, context)
