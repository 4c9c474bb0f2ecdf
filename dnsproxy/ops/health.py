"""Ask a running proxy or helper of this host how it is, for service managers that have no HTTP client."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from dnsproxy.authorities import unjudging_context
from dnsproxy.core.text import printable_document
from dnsproxy.errors import ForeignError
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint

# Seconds. Those who ask give up after 5 (docker) or 10, and would say nothing of the reason.
TIMEOUT = 3.0
# Octets. /ready of a proxy with 1000 missing names has some 100,000.
_MAX_BODY = 1_048_576
# Names without an address in one line.
SHOWN = 3


class HealthError(ForeignError):
    """It is not well, or does not tell; the message says which in one line."""


def proxy_health(settings: Settings, *, ready: bool) -> str:
    """Return how ``dnsproxy serve`` is; with ``ready`` every name must have an address.

    Raises:
        HealthError: it is not, or there is no admin endpoint to ask.
    """
    listen = settings.admin.listen
    if listen is None:
        raise HealthError("admin.listen is null in the configuration: nothing to ask")
    path = "/ready" if ready else "/health"
    connection = _connection(_reachable(listen), listen.port, is_tls=settings.admin.tls.cert_file is not None)
    status, told = _get(connection, path)
    if status == 200:
        return "ready" if ready else "ok"
    raise HealthError(
        not_ready(told) if path == "/ready" and "missing" in told else f"{path}: status {status}"
    )


def not_ready(document: Mapping[str, Any]) -> str:
    """Return why a proxy is not ready, from its answer to ``/ready`` or ``/api/v1/status``."""
    if document.get("draining"):
        return "not ready: it is being stopped"
    missing = document.get("missing")
    if not isinstance(missing, list) or not missing:
        return "not ready: the proxy reports no reason"
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return f"not ready: no address for {', '.join(map(str, missing[:SHOWN]))}{more}"


def helper_health(settings: Settings, *, ready: bool) -> str:
    """Return how ``dnsproxy helper`` is; with ``ready`` it must have a snapshot to give.

    Where it asks for certificates, only a connection is made: this side has none to show.

    Raises:
        HealthError: it is not, or does not answer.
    """
    listen, tls = settings.helper.listen, settings.helper.tls
    host = _reachable(listen)
    if tls.client_ca_file is not None:
        return _connects(host, listen.port)
    status, told = _get(_connection(host, listen.port, is_tls=tls.cert_file is not None), "/health")
    if status != 200:
        raise HealthError(f"/health: status {status}")
    if ready and told.get("serial") is None:
        raise HealthError("not ready: no snapshot yet")
    return str(told.get("status", "ok"))


def _connection(host: str, port: int, *, is_tls: bool) -> HTTPConnection:
    if not is_tls:
        return HTTPConnection(host, port, timeout=TIMEOUT)
    # The certificate is for the name that others use. This asks the process on this host's own port.
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=unjudging_context())


def _reachable(listen: Endpoint) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)


def _connects(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as exc:
        raise HealthError(f"{host} port {port}: {_reason(exc)}") from exc
    return "takes connections"


def _get(connection: HTTPConnection, path: str) -> tuple[int, dict[str, Any]]:
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        told = printable_document(json.loads(response.read(_MAX_BODY)))
    except OSError as exc:
        raise HealthError(f"{connection.host} port {connection.port}: {_reason(exc)}") from exc
    except (HTTPException, ValueError) as exc:
        raise HealthError(f"{connection.host} port {connection.port}: not one of dnsproxy's answers") from exc
    finally:
        connection.close()
    return response.status, told if isinstance(told, dict) else {}


def _reason(exc: OSError) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return os.strerror(exc.errno).lower() if exc.errno else str(exc)
