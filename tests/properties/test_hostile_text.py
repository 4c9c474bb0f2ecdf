"""Text that others choose, at each place where it comes in: what is made of it is printable and short.

A place that is missing here is found by `test_errors`: an error that quotes others is a `ForeignError`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from structlog.testing import capture_logs

from dnsproxy import logs
from dnsproxy.admin.standing import standing_metrics
from dnsproxy.core import seal
from dnsproxy.core.addresses.lifecycle import MAX_ISSUERS, AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.attempt import Failure
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.stats import SOURCES, Stats, request_number, response_number
from dnsproxy.core.text import LIMIT
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import (
    DiscoverError,
    Doubt,
    FetchError,
    ForeignError,
    PublishError,
    Rejection,
    ResolveError,
    SnapshotError,
    StoreError,
)
from dnsproxy.net.certname import mismatch
from dnsproxy.net.channel import Channel
from dnsproxy.ops import doctor_findings
from dnsproxy.ops.client import AdminError
from dnsproxy.ops.fleet import FleetError
from dnsproxy.ops.health import HealthError
from dnsproxy.ops.tables import names_table
from dnsproxy.reload_socket import ReloadSocketError
from dnsproxy.settings.learning import HelperSettings
from dnsproxy.transport import etcd, objectstore
from dnsproxy.transport.apiserver import _said
from tests.certificates import der, make_certificate
from tests.fakes.facts import good_facts
from tests.strategies import learned, snapshot

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nforged line \u202e" + "x" * 200_000
KEY = Ed25519PrivateKey.generate()
TRUSTED = {seal.key_id(KEY.public_key()): KEY.public_key()}


def harmless(text: str, limit: int = LIMIT) -> bool:
    return bool(text) and text.isprintable() and len(text) <= limit + 50


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(payload: dict[str, Any], **header: object) -> str:
    head = {"alg": "EdDSA", "kid": seal.key_id(KEY.public_key()), **header}
    text = f"{part(head)}.{part(payload)}"
    signature = base64.urlsafe_b64encode(KEY.sign(text.encode())).rstrip(b"=").decode()
    return f"{text}.{signature}"


PAYLOAD = snapshot(learned("a.example.")).to_payload()
NAME = PAYLOAD["names"][0]
TOKENS = {
    "kid": signed(PAYLOAD, kid=HOSTILE),
    "kid_short": signed(PAYLOAD, kid="\x1b[2J"),
    "kid_list": signed(PAYLOAD, kid=[HOSTILE]),
    "alg": signed(PAYLOAD, alg=HOSTILE),
    "crit": signed(PAYLOAD, crit=[HOSTILE]),
    "typ": signed(PAYLOAD, b64=False, crit=[HOSTILE]),
    "iss": signed({**PAYLOAD, "iss": HOSTILE}),
    "iss_long": signed({**PAYLOAD, "iss": "x" * 256}),
    "iss_escape": signed({**PAYLOAD, "iss": "a\x1b[2J"}),
    "name": signed({**PAYLOAD, "names": [{**NAME, "name": HOSTILE}]}),
    "address": signed({**PAYLOAD, "names": [{**NAME, "addresses": [HOSTILE]}]}),
    "registry": signed({**PAYLOAD, "names": [{**NAME, "registry": HOSTILE}]}),
    "role": signed({**PAYLOAD, "names": [{**NAME, "role": HOSTILE}]}),
    "status": signed({**PAYLOAD, "names": [{**NAME, "status": HOSTILE}]}),
    "cname": signed({**PAYLOAD, "names": [{**NAME, "cname": HOSTILE}]}),
    "resolver": signed({**PAYLOAD, "names": [{**NAME, "resolvers": [HOSTILE]}]}),
    "resolvers": signed({**PAYLOAD, "names": [{**NAME, "resolvers": ["x"] * 65}]}),
    "found": signed(
        {**PAYLOAD, "found": [{"registry": HOSTILE, "role": "auth", "names": [], "observed_at": 1}]}
    ),
    "not_base64": f"{HOSTILE}.{HOSTILE}.{HOSTILE}",
    "not_json": f"{base64.urlsafe_b64encode(HOSTILE.encode()).decode()}.e30.AA",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_snapshot_is_refused_in_few_words(token: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        seal.verify(token, TRUSTED)
    assert harmless(str(caught.value))
    assert caught.value.reason in {Rejection.MALFORMED, Rejection.UNKNOWN_KEY, Rejection.BAD_SIGNATURE}


def test_what_is_taken_of_a_snapshot_can_be_shown() -> None:
    payload = {**PAYLOAD, "names": [{**NAME, "name": "a\\027[2J.example."}]}
    taken: Snapshot = seal.verify(signed(payload), TRUSTED)
    for entry in taken.names:
        assert all(map(str.isprintable, (entry.name, entry.registry, entry.role, entry.status)))


ERRORS: dict[str, Callable[[str], Exception]] = {
    "snapshot": lambda text: SnapshotError(Rejection.MALFORMED, text),
    "store": StoreError,
    "fetch": FetchError,
    "publish": PublishError,
    "resolve": ResolveError,
    "reload": ReloadSocketError,
    "discover": lambda text: DiscoverError(Doubt.MALFORMED, text),
    "fleet": FleetError,
    "health": HealthError,
    "etcd": lambda text: etcd.refusal(json.dumps({"message": text}).encode(), 400),
    "etcd_error": lambda text: etcd.refusal(json.dumps({"error": text, "code": 14}).encode(), 500),
    "etcd_token": lambda text: etcd.refusal(json.dumps({"error": text, "code": 16}).encode(), 401),
    "etcd_stream": etcd.refusal_text,
    "objectstore": lambda text: StoreError(objectstore.reason_of(Exception(f"<Code>{text}</Code>"))),
    "objectstore_cause": lambda text: StoreError(objectstore.reason_of(Exception(f"a - {text}"))),
    "apiserver": lambda text: StoreError(_said(SimpleNamespace(status=SimpleNamespace(message=text)))),
}


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_an_error_that_quotes_others_is_harmless(make: Callable[[str], Exception]) -> None:
    assert harmless(str(make(HOSTILE)))


def test_every_error_that_quotes_others_is_fed() -> None:
    fed = {type(make("x")) for make in ERRORS.values()}

    def kinds(of: type[Exception]) -> Iterator[type[Exception]]:
        for kind in of.__subclasses__():
            yield kind
            yield from kinds(kind)

    # Those below StoreError add nothing.
    assert {kind for kind in kinds(ForeignError) if not issubclass(kind, StoreError)} <= fed


def test_the_error_of_the_endpoint_keeps_its_lines_alone() -> None:
    lines = str(AdminError(HOSTILE)).split("\n")
    assert all(harmless(line) for line in lines)


def test_a_certificate_with_hostile_names(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "\x1b[2J\r\nforged.example")
    assert harmless(mismatch(der(path), "a.example") or "")


def test_a_finding_of_the_doctor() -> None:
    for finding in (
        doctor_findings.fail("hop", HOSTILE, HOSTILE, HOSTILE),
        doctor_findings.ok("hop", HOSTILE, HOSTILE),
        doctor_findings.skip("hop", HOSTILE, HOSTILE),
    ):
        assert harmless(finding.subject)
        assert harmless(finding.seen)


@pytest.mark.parametrize("output_format", ["console", "json"])
def test_the_log_as_a_last_defence(output_format: str) -> None:
    kept = structlog.get_config()
    try:
        stream = io.StringIO()
        logs.configure("info", output_format, stream)
        log = structlog.get_logger()
        log.info("x.y", text=HOSTILE, listed=[HOSTILE] * 2000, inner={HOSTILE: HOSTILE})
        log.error("x.y", exc_info=ValueError(HOSTILE))
        written = stream.getvalue()
    finally:
        structlog.configure(**kept)
    assert "\x1b" not in written
    assert "\r" not in written
    assert "\u202e" not in written
    assert len(written) < 3_000_000


def test_a_table_does_not_read_markup_or_escapes() -> None:
    from dnsproxy.ops.tables import open_console  # noqa: PLC0415

    console = open_console()
    name = "[bold]x[/bold] :smile:"
    document = {
        "names": [
            {
                "name": name,
                "role": name,
                "addresses": ["10.0.0.1"],
                "age": 1,
                "serial": 1,
                "source": name,
                "status": "ok",
                "cname": None,
            }
        ]
    }
    with console.capture() as captured:
        console.print(names_table(document))
    assert name in captured.get()


async def test_documents_of_an_endpoint_are_cleaned_before_anything_shows_them() -> None:
    from aiohttp import web  # noqa: PLC0415
    from aiohttp.test_utils import TestServer  # noqa: PLC0415

    from dnsproxy.ops.client import AdminClient  # noqa: PLC0415
    from dnsproxy.ops.fleet import get_json  # noqa: PLC0415

    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"issuer": HOSTILE, HOSTILE: [HOSTILE]})

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": HOSTILE}, status=500)

    app = web.Application()
    app.router.add_get("/good", handle)
    app.router.add_get("/bad", refuse)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        for document in (
            await AdminClient(url)._call("GET", "/good", None, 5.0),
            await get_json(session, f"{url}/good", 5.0),
        ):
            text = document["issuer"]
            assert text.isprintable()
            assert len(text) < 30_000
        with pytest.raises(AdminError) as refused:
            await AdminClient(url)._call("GET", "/bad", None, 5.0)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < LIMIT + 200
        with pytest.raises(FleetError) as silent:
            await get_json(session, f"{url}/bad", 5.0)
        assert harmless(str(silent.value))


def test_labels_of_metrics_are_of_closed_sets() -> None:
    """4,089 extended RCODEs were as many time series."""
    stats = Stats()
    for rcode in range(4096):
        for source in range(len(SOURCES)):
            stats.count_response(response_number(rcode, source))
    for qtype in range(65_536):
        for tcp in (False, True):
            stats.count_request(request_number(qtype, tcp=tcp))
    stats.settle()
    assert len(stats.responses) <= 25 * len(SOURCES)
    assert len(stats.requests) <= 200
    assert sum(stats.responses.values()) == 4096 * len(SOURCES)


def test_issuers_in_the_metrics_are_bounded() -> None:
    state = AddressLifecycle(AddressPolicy())
    for number in range(3 * MAX_ISSUERS):
        told = snapshot(learned(f"n{number}.example."), issuer=f"helper-{number}", at=1000 + number)
        state.accept(OpenedSnapshot(told, "key", f"token {number}"))
    snapshots = {issuer: opened.snapshot for issuer, opened in state.snapshots.items()}
    facts = replace(good_facts(), snapshots=snapshots)
    for metric in standing_metrics(facts):
        issuers = {sample.labels["issuer"] for sample in metric.samples if "issuer" in sample.labels}
        if issuers:
            assert len(issuers) == MAX_ISSUERS
            assert f"helper-{3 * MAX_ISSUERS - 1}" in issuers


async def test_the_words_of_an_upstream_in_the_log() -> None:
    upstream = Upstream("up", ("127.0.0.1", 53))
    nothing = cast("Any", None)
    channel = Channel(upstream, nothing, nothing, nothing)
    link = SimpleNamespace(take_all=list, has_replied=False)
    channel._links.append(cast("Any", link))
    with capture_logs() as entries:
        channel.lose(cast("Any", link), Failure.HTTP, HOSTILE)
    assert harmless(entries[0]["detail"])


def test_an_identity_of_a_helper_is_printable() -> None:
    for bad in ("\x1b[2J", "a\nb", "\u202e"):
        with pytest.raises(ValidationError, match="not printable"):
            HelperSettings(id=bad)
