"""Write docs/reference/openapi-admin.json and openapi-helper.json: both HTTP interfaces as OpenAPI 3.1.

    python -m scripts.openapi           write them
    python -m scripts.openapi --check   exit 1 when one of them is not what would be written

The paths are those of the applications: one that is missing here, or there, is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from dnsproxy.http_connection import MAX_BODY
from dnsproxy.version import __version__

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": "number"}
FLAG: Json = {"type": "boolean"}
TEXTS: Json = {"type": "array", "items": TEXT}
OBJECT: Json = {"type": "object"}
COUNTS: Json = {"type": "object", "additionalProperties": WHOLE}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Json) -> Json:
    """Every key is there; later versions may add others."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(**properties: Json) -> Json:
    return {"type": "array", "items": _object(**properties)}


def _reply(description: str, schema: Json | None = None, kind: str = "application/json") -> Json:
    content = {} if schema is None else {"content": {kind: {"schema": schema}}}
    return {"description": description, **content}


def _error(description: str) -> Json:
    return _reply(description, _object(error=TEXT))


def _parameter(
    name: str, description: str, schema: Json, *, required: bool = False, place: str = "query"
) -> Json:
    return {"name": name, "in": place, "required": required, "description": description, "schema": schema}


ORDERS: Json = {
    "pinned": {"type": "array", "items": _object(name=TEXT, addresses=TEXTS, since=WHOLE)},
    "frozen": _or_null(_object(since=WHOLE, rolled_back_to=_or_null(WHOLE), names=WHOLE)),
}
TRIAL: Json = {
    "name": TEXT,
    "state": {"enum": ["running", "rolled_back"]},
    "old": TEXTS,
    "new": TEXTS,
    "cname": _or_null(TEXT),
    "served_to": {"enum": ["all", "none"]},
    "started_at": WHOLE,
    "ends_at": _or_null(NUMBER),
    "ended_at": _or_null(WHOLE),
    "reason": _or_null(TEXT),
    "detail": _or_null(TEXT),
}
CANARY = _or_null(
    _object(
        identity=TEXT,
        share=NUMBER,
        hold=NUMBER,
        promotions=COUNTS,
        rollbacks=COUNTS,
        trials=_list(**TRIAL),
    )
)
DETAIL: Json = {
    "address": TEXT,
    "state": {"enum": ["serving", "held_back", "refused"]},
    "reason": _or_null(TEXT),
    "routed": _or_null(FLAG),
    "probe": {"type": "object", "additionalProperties": TEXT},
    "checked_at": _or_null(NUMBER),
}
NAME = _object(
    name=TEXT,
    role=TEXT,
    registry=TEXT,
    addresses=TEXTS,
    cname=_or_null(TEXT),
    source=_or_null(TEXT),
    serial=_or_null(WHOLE),
    age=_or_null(NUMBER),
    observed_at=_or_null(NUMBER),
    status={"enum": ["ok", "stale", "missing", "pinned"]},
    pinned=FLAG,
    frozen=FLAG,
    ports={"type": "array", "items": WHOLE},
    details=_list(**DETAIL),
)
STATUS = _object(
    version=TEXT,
    host=TEXT,
    listen=TEXTS,
    now=NUMBER,
    uptime=NUMBER,
    serial=WHOLE,
    ready=FLAG,
    draining=FLAG,
    missing=TEXTS,
    undiscovered=_list(registry=TEXT, role=TEXT),
    state=_object(file=TEXT, failure=_or_null(TEXT)),
    names={"type": "array", "items": NAME},
    sources=_list(
        url=TEXT,
        issuer=_or_null(TEXT),
        serial=_or_null(WHOLE),
        age=_or_null(NUMBER),
        last_attempt=_or_null(NUMBER),
        last_success=_or_null(NUMBER),
        last_error=_or_null(TEXT),
    ),
    rejected=COUNTS,
    refused=COUNTS,
    **ORDERS,
    canary=CANARY,
    upstreams=_list(name=TEXT, up=FLAG, rtt=_or_null(NUMBER), sent=WHOLE, failures=COUNTS),
    cache=_object(entries=WHOLE, size=WHOLE, hits=WHOLE, misses=WHOLE),
    in_flight=WHOLE,
    requests=WHOLE,
    responses=COUNTS,
    drops=COUNTS,
    workers=_list(
        worker=WHOLE,
        pid=_or_null(WHOLE),
        answers=FLAG,
        started_at=_or_null(NUMBER),
        uptime=_or_null(NUMBER),
        queries=WHOLE,
        restarts=WHOLE,
    ),
    proxy=TEXT,
    issuers=_list(issuer=TEXT, serial=WHOLE, issued_at=WHOLE, age=NUMBER),
    convergence=_object(count=WHOLE, sum=NUMBER, buckets=_list(le=_or_null(NUMBER), count=WHOLE)),
)
CHANGE = {"name": TEXT, "old": TEXTS, "new": TEXTS, "held": _or_null(TEXT)}
HISTORY = _object(
    **ORDERS,
    history=_list(serial=WHOLE, issuer=TEXT, taken_at=WHOLE, names=WHOLE, changes=_list(**CHANGE)),
)
REGISTRIES = _object(
    registries=_list(name=TEXT, provider=TEXT, discovers_auth=FLAG, routed=TEXTS),
    verify=_object(ports={"type": "array", "items": WHOLE}, tls=FLAG, ca_file=_or_null(TEXT)),
)
PULLED = _object(sources=_list(url=TEXT, error=_or_null(TEXT), issuer=_or_null(TEXT), serial=_or_null(WHOLE)))
EXPLANATION = _object(
    name=TEXT,
    type=TEXT,
    client=_or_null(TEXT),
    outcome=TEXT,
    worker=_or_null(WHOLE),
    owned=_or_null(OBJECT),
    status=_or_null(OBJECT),
    cached={"type": "array", "items": OBJECT},
    zone=TEXT,
    upstreams={"type": "array", "items": OBJECT},
    policy=TEXT,
    trial=_or_null(_object(**TRIAL)),
    steps=TEXTS,
)
FROZEN = _object(names=WHOLE, rolled_back_to=_or_null(WHOLE))
PINNED = _object(name=TEXT, addresses=TEXTS)
ENDED = _object(name=TEXT, old=TEXTS, new=TEXTS)


def _get(summary: str, *replies: tuple[int, Json], parameters: list[Json] | None = None) -> Json:
    operation: Json = {"summary": summary, "responses": {str(status): reply for status, reply in replies}}
    return {"get": operation | ({"parameters": parameters} if parameters else {})}


def _order(summary: str, result: Json, **keys: Json) -> Json:
    replies = {
        "200": _reply(
            "Done. `result` is what this order changed; `pinned` and `frozen` hold now. `not_saved`: why it"
            " would not over a restart.",
            _object(result=result, **ORDERS, not_saved=_or_null(TEXT)),
        ),
        "400": _error("The body is not what is asked for."),
        "409": _error("It cannot be obeyed."),
    }
    body = {"required": True, "content": {"application/json": {"schema": _object(**keys)}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": replies}}


def _order_to_program(summary: str, status: int, done: Json, refused: Json) -> Json:
    replies = {
        str(status): done,
        "409": refused,
    }
    body = {"required": True, "content": {"application/json": {"schema": {}}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": replies}}


ADMIN: Json = {
    "/": _get("What there is.", (200, {"description": "A page, or the list of paths."})),
    "/static/{name}": _get(
        "A file of the page.",
        (200, {"description": "The file."}),
        (304, _reply("It is the one of `If-None-Match`.")),
        (404, _reply("There is none of this name.", TEXT, "text/plain")),
        parameters=[_parameter("name", "The file.", TEXT, required=True, place="path")],
    ),
    "/health": _get("The process is alive.", (200, _reply("It is.", _object(status={"const": "ok"})))),
    "/ready": _get(
        "Every configured name has an address.",
        (200, _reply("It has.", _object(ready={"const": True}, draining=FLAG, missing=TEXTS))),
        (
            503,
            _reply(
                "Not all have, or it is ending.",
                _object(ready={"const": False}, draining=FLAG, missing=TEXTS),
            ),
        ),
    ),
    "/metrics": _get("Metrics, for Prometheus.", (200, _reply("Format 0.0.4.", TEXT, "text/plain"))),
    "/api/v1/status": _get("All that the proxy knows.", (200, _reply("Times are Unix seconds.", STATUS))),
    "/api/v1/registries": _get(
        "The settings of registries and of probes, for commands on hosts without the configuration.",
        (200, _reply("Those in force.", REGISTRIES)),
    ),
    "/api/v1/explain": _get(
        "What would be done with a query, without doing it.",
        (200, _reply("The path of the query.", EXPLANATION)),
        (400, _error("A name, type or address that is none.")),
        (503, _error("No worker answers.")),
        parameters=[
            _parameter("name", "The name in presentation form.", TEXT, required=True),
            _parameter("type", "A type by name or as TYPE65; A by default.", TEXT),
            _parameter("client", "The address of who would ask.", TEXT),
        ],
    ),
    "/api/v1/history": _get(
        "Sets of addresses to go back to, the newest first.", (200, _reply("All.", HISTORY))
    ),
    "/api/v1/canary": _get(
        "New sets of addresses that are on trial, or were rolled back.",
        (200, _reply("All; null without `learn.canary`.", _object(canary=CANARY))),
    ),
    "/api/v1/canary/promote": _order("Put the new set of a name into service.", ENDED, name=TEXT),
    "/api/v1/canary/rollback": _order("Refuse the new set of a name that is on trial.", ENDED, name=TEXT),
    "/api/v1/refresh": {
        "post": {
            "summary": "Pull from every source now.",
            "responses": {"200": _reply("What each pull did, within 15 s.", PULLED)},
        }
    },
    "/api/v1/flush": {
        "post": {
            "summary": "Forget cached answers of one name, or all. What was learned stays.",
            "parameters": [_parameter("name", "The name; all without one.", TEXT)],
            "requestBody": {
                "required": False,
                "content": {
                    "application/json": {"schema": {"type": "object", "properties": {"name": _or_null(TEXT)}}}
                },
            },
            "responses": {
                "200": _reply("How many were forgotten.", _object(flushed=WHOLE)),
                "400": _error("Not a name, or a body that is not understood: nothing is forgotten."),
            },
        }
    },
    "/api/v1/pin": _order("Answer a name with these addresses only.", PINNED, name=TEXT, addresses=TEXTS),
    "/api/v1/unpin": _order("Undo a pin.", PINNED, name=TEXT),
    "/api/v1/freeze": _order("Take no other sets of addresses.", FROZEN),
    "/api/v1/unfreeze": _order("Undo a freeze or a roll-back.", FROZEN),
    "/api/v1/reload": _order_to_program(
        "Take the changed configuration, all of it or nothing.",
        200,
        _reply(
            "It is in force; which keys and files changed, and which keys do only at the next start.",
            _object(changed=TEXTS, changed_files=TEXTS, need_restart=TEXTS),
        ),
        _reply("It was not taken, for these reasons.", _object(error=TEXT, problems=TEXTS)),
    ),
    "/api/v1/restart-workers": _order_to_program(
        "Replace every worker, one after another.",
        202,
        _reply("Started.", _object(restart={"const": "started"})),
        _error("There are none."),
    ),
    "/api/v1/rollback": _order(
        "Go back to what was learned with a serial of the history.", FROZEN, serial=WHOLE
    ),
}

TARGET = _object(
    name=TEXT, status={"enum": ["waiting", "ok", "failing"]}, serial=_or_null(WHOLE), failures=WHOLE
)
HEALTH = _object(
    status={"enum": ["starting", "ok", "degraded"]},
    serial=_or_null(WHOLE),
    names=WHOLE,
    age=_or_null(WHOLE),
    targets={"type": "array", "items": TARGET},
    election=_or_null(
        _object(name=TEXT, role={"enum": ["leader", "follower"]}, status={"enum": ["ok", "failing"]})
    ),
)
HELPER: Json = {
    "/v1/snapshot": _get(
        "The signed snapshot.",
        (200, _reply("A JWS in compact form.", TEXT, "application/jose")),
        (304, _reply("It is the one of `If-None-Match`.")),
        (400, _error("`wait` or `timeout` is not what it should be.")),
        (503, _error("There is none yet; `Retry-After` says when to come again.")),
        parameters=[
            _parameter(
                "wait",
                "Answer when the serial is another than this.",
                {"type": "integer", "minimum": 0, "maximum": 10**19 - 1},
            ),
            _parameter(
                "timeout",
                "Seconds to wait at the most; 30 by default, 120 at the most.",
                {"type": "number", "minimum": 0},
            ),
            _parameter("If-None-Match", "The ETag of the last answer.", TEXT, place="header"),
        ],
    ),
    "/health": _get("What the helper holds.", (200, _reply("`age` in seconds.", HEALTH))),
}
# What needs no token.
OPEN = frozenset({"/health", "/ready"})


BEARER: Json = {"token": {"type": "http", "scheme": "bearer"}}
BASIC: Json = {"password": {"type": "http", "scheme": "basic", "description": "The token, to look only."}}


def document(title: str, paths: Mapping[str, Json], schemes: Json) -> Json:
    """Return the OpenAPI document of an interface with these paths."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "components": {"securitySchemes": schemes},
        "paths": {path: _guarded(path, item, schemes) for path, item in paths.items()},
    }


def _guarded(path: str, item: Json, schemes: Json) -> Json:
    """Add what the check in front of the handlers, and the reading of bodies, may answer."""
    refusals: Json = {}
    if path not in OPEN:
        refusals["401"] = _error("A token is configured, and the request has not it.")
    is_admin = "password" in schemes
    guarded: Json = {}
    for method, operation in item.items():
        more = dict(refusals)
        if method != "get":
            more["403"] = _error("The token only reads; or none is configured, and it came over a network.")
            more["408"] = _error("The body did not come in time.")
            more["413"] = _reply(f"More than {MAX_BODY} bytes.", TEXT, "text/plain")
            more["415"] = _error("The content type is not application/json.")
        elif is_admin and path not in OPEN:
            more["403"] = _error("No token is configured, and the Host is not known.")
        # Without any, where no token is configured.
        security: list[Json] = [{}, *({name: []} for name in schemes if method == "get" or name == "token")]
        guarded[method] = {
            **operation,
            **({} if path in OPEN else {"security": security}),
            "responses": dict(sorted({**operation["responses"], **more}.items())),
        }
    return guarded


def routes(app: web.Application) -> set[str]:
    """Return ``METHOD path`` of what an application has, without the HEAD that comes with each GET."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    return {f"{method} {path}" for method, path in found if method != "HEAD"}


def described(paths: Mapping[str, Json]) -> set[str]:
    """Return ``METHOD path`` of what a document has."""
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item}


PAGES = {
    "openapi-admin.json": document("dnsproxy serve: admin endpoint", ADMIN, BEARER | BASIC),
    "openapi-helper.json": document("dnsproxy helper", HELPER, BEARER),
}


def main() -> int:
    """Write the documents, or with ``--check`` tell whether they are as they would be written."""
    wrong = []
    for name, page in PAGES.items():
        text = json.dumps(page, indent=1) + "\n"
        path = FOLDER / name
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(name)
    for name in wrong:
        print(f"docs/reference/{name} is not up to date; run: python -m scripts.openapi", file=sys.stderr)  # noqa: T201 - a command's output
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
