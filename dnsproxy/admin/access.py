"""Who may read and who may give orders at the admin endpoint: one check, in front of every handler.

With `admin.token_file` each request carries a token. Without it, reading needs a Host by which operators
reach the endpoint, so that a page whose name was pointed here (DNS rebinding) reads nothing, and orders are
taken from this host alone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from dnsproxy.errors import StartError
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.settings.values import Endpoint
from dnsproxy.tokens import ORDERS, READS, TOKEN_SCOPE, is_basic, is_bearer, read_token

# Probes of kubelets and load balancers carry no token, and learn nothing that a query would not tell.
OPEN_PATHS = frozenset({"/health", "/ready"})
_READING = frozenset({"GET", "HEAD"})
# A browser shows a dialog for Basic (RFC 7617); programs send a bearer token (RFC 6750).
_CHALLENGE = {
    "WWW-Authenticate": 'Basic realm="dnsproxy: any user, the admin token as password", charset="UTF-8", '
    'Bearer realm="dnsproxy"'
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^\s:/@\[\]]{1,255}))(?::[0-9]{1,5})?")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Access:
    """``hosts`` are names and addresses in lower case; with ``any_address`` each address is one of them."""

    token: str | None = None
    read_token: str | None = None
    hosts: frozenset[str] = frozenset()
    any_address: bool = False

    @classmethod
    def from_settings(cls, settings: AdminSettings, listen: Endpoint) -> Access:
        """Read the tokens.

        Raises:
            StartError: one cannot be read, or both are the same.
        """
        token = _token("token_file", settings.token_file)
        read_token = _token("read_token_file", settings.read_token_file)
        if token is not None and token == read_token:
            raise StartError("admin.read_token_file: holds the token of admin.token_file")
        names = [settings.identity or socket.gethostname(), *settings.hosts, listen.host]
        # An address in Host cannot have been pointed here by the DNS.
        any_address = ip_address(listen.host).is_unspecified
        return cls(token, read_token, frozenset(map(_folded, names)), any_address)

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the response to a request that is refused; None for others."""
        reads = request.method in _READING
        if self.token is not None:
            refusal = self._judge_token(request, self.token, reads=reads)
        elif reads:
            refusal = None if request.path in OPEN_PATHS or self.knows_host(request) else _foreign_host()
        else:
            refusal = (
                None
                if _is_from_here(request)
                else _error("orders from elsewhere than loopback need admin.token_file", 403)
            )
        if refusal is None and not reads and _is_of_another_origin(request):
            return _error("orders are not taken from pages of another origin", 403)
        is_order = not reads and request.match_info.http_exception is None
        if refusal is None and is_order and request.content_type != "application/json":
            # A browser does not send this type to another origin without asking first.
            return _error("the content type must be application/json", 415)
        return refusal

    def _judge_token(self, request: web.Request, token: str, *, reads: bool) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if is_bearer(given, token):
            return None
        if not reads:
            if self.read_token is not None and is_bearer(given, self.read_token):
                return _error("admin.read_token_file gives no orders", 403)
            return _error("a bearer token is needed", 401)
        # A browser sends the password along with whatever a foreign page makes it send: it reads, no more.
        tokens = [token] if self.read_token is None else [token, self.read_token]
        if request.path in OPEN_PATHS or any(is_basic(given, t) or is_bearer(given, t) for t in tokens):
            return None
        return _error("a bearer token is needed", 401, _CHALLENGE)

    def scope(self, request: web.Request) -> str | None:
        """Return what the bearer token of the request is good for; None where it has none, or needs none."""
        given = request.headers.get("Authorization", "")
        if self.token is None or not given:
            return None
        if is_bearer(given, self.token):
            return ORDERS
        return READS if self.read_token is not None and is_bearer(given, self.read_token) else None

    def knows_host(self, request: web.Request) -> bool:
        """Return whether each Host of the request is loopback, or a known name or address of the endpoint."""
        return all(self._knows(host_of(text), request) for text in request.headers.getall("Host", []))

    def _knows(self, host: str | None, request: web.Request) -> bool:
        if host is None:
            return False
        if host in self.hosts or is_loopback(host):
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        local = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return self.any_address or (local is not None and host == local[0])


def check_access(access: Access) -> Middleware:
    """Return the middleware that refuses what ``access`` does not allow."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = access.refusal(request)
        if refusal is not None:
            return refusal
        response = await handler(request)
        if (scope := access.scope(request)) is not None and not response.prepared:
            response.headers[TOKEN_SCOPE] = scope
        if access.token is None and request.path in OPEN_PATHS and not access.knows_host(request):
            # A load balancer's probe has another Host, and looks at the status alone.
            return web.json_response({}, status=response.status)
        return response

    return check


def host_of(text: str) -> str | None:
    """Return the name or address in a Host field, in lower case; None when it is neither."""
    match = _HOST.fullmatch(text.strip())
    return None if match is None else _folded(match[1] or match[2])


def is_loopback(host: str | None) -> bool:
    """Return whether ``host`` is a loopback address or name."""
    if host is None or host == "localhost":
        return host is not None
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _is_from_here(request: web.Request) -> bool:
    # The Host as well: a page whose name was pointed at this host has that name there.
    return is_loopback(request.remote) and is_loopback(host_of(request.headers.get("Host", "")))


def _is_of_another_origin(request: web.Request) -> bool:
    # A browser names the origin of each page that makes it send anything but GET and HEAD (RFC 6454 §7).
    own = request.headers.get("Host", "").lower()
    return any(
        origin.lower() not in {f"http://{own}", f"https://{own}"}
        for origin in request.headers.getall("Origin", [])
    )


def _folded(name: str) -> str:
    return name.lower().removesuffix(".")


def _token(key: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return read_token(path)
    except StartError as exc:
        raise StartError(f"admin.{key}: {exc}") from exc


def _foreign_host() -> web.Response:
    return _error("this Host is not known: use an address, or set admin.hosts or admin.token_file", 403)


def _error(text: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)
