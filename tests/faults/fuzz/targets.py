"""What is fuzzed: each target takes any octets, and raises nothing but what its functions document.

A target also checks what must hold of every result, so that a wrong one is found and not only a crash.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import doh, names, seal, wire
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.state_file import encode
from dnsproxy.core.attempt import Verdict
from dnsproxy.core.challenge import default_bucket, judge_bearer, judge_redirect, parse_challenges
from dnsproxy.core.engine import Forward
from dnsproxy.core.features import Features
from dnsproxy.core.learned import Scope, Snapshot, judge_content
from dnsproxy.core.records import Names
from dnsproxy.core.registry import Sought, Wanted
from dnsproxy.core.trust import Trust
from dnsproxy.errors import DiscoverError, DropReason, SnapshotError, WireError
from dnsproxy.net.statefile import load_state, overrides_path
from tests.messages import CLIENT, OSS, REGISTRY, answer, engine, forward, hangzhou, query, seeded
from tests.strategies import learned, snapshot

Target = Callable[[bytes], None]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = {seal.key_id(KEY.public_key()): KEY.public_key()}
SCOPE = Scope(
    frozenset({names.to_key(REGISTRY), names.to_key(OSS)}),
    (Sought("hangzhou", "auth", ("aliyuncs.com.",)), Sought("hangzhou", "storage", ("aliyuncs.com.",))),
)
GOOD = snapshot(learned(REGISTRY, ("10.94.205.198",)))
ASKED = query("www.example.")
# Where a file must be on a disk: one that costs no writes.
_MEMORY = Path("/dev/shm")  # noqa: S108 - only as the parent of a folder of our own
_FOLDER = tempfile.TemporaryDirectory(prefix="dnsproxy-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)

# One for all inputs: an engine that holds what earlier ones have left must do as well, and making one takes
# long. Each reply comes on a day of its own, when what is remembered of failures is forgotten.
_ENGINE = engine(hangzhou(), features=Features(minimal_any=True, nxdomain_cut=True), draw=seeded().octets)
_DAYS = itertools.count(1)


# -- octets from clients and upstreams ---------------------------------------------


def fuzz_query(data: bytes) -> None:
    """A message from a client, over UDP and over TCP, to an engine that owns names."""
    for tcp in (False, True):
        step = _ENGINE.receive(data, CLIENT, 1.0, tcp=tcp)
        if isinstance(step, Forward):
            exchange = step.exchange
            exchange.waiters.append((step.query, None, None, 1.0))
            assert exchange.question in data, "another question"
            (step,) = _ENGINE.complete(exchange, 1.0)
        if isinstance(step, bytes):
            assert step[:2] == data[:2], "the id"
            assert step[2] & 0x80, "a response"
            assert tcp or len(step) <= wire.UDP_SIZE, "larger than UDP carries"
        else:
            assert isinstance(step, DropReason), "neither a response nor a reason"
    assert not _ENGINE.exchanges.begun, "somebody is asked for nobody"


def fuzz_scan(data: bytes) -> None:
    """The scan of a client's message on its own."""
    try:
        found = wire.scan_query(data)
    except WireError:
        return
    assert wire.HEADER <= found.question_end <= max(len(data), wire.HEADER), "the question leaves the message"
    if found.rcode == wire.NOERROR:
        assert names.to_key(names.to_text(found.key)) == found.key, "a key that is no name"
        assert len(found.key) <= names.MAX_NAME, "longer than a name"
    wire.without_cookie(data)
    with contextlib.suppress(WireError):
        Names(data).read(wire.HEADER)


def fuzz_reply(data: bytes) -> None:
    """A datagram from an upstream; the first octet says whether our id and question are put before it."""
    now = next(_DAYS) * 86_400.0
    made = _ENGINE
    made.flush(None)
    exchange = forward(made, ASKED, now).exchange
    attempt = exchange.next_attempt(now)
    assert attempt is not None
    reply = data[1:]
    if data[:1] > b"\x20":
        reply = b"\x12\x34" + reply[:10].ljust(10, b"\0") + attempt.payload[10:27] + reply[10:]
    verdict = exchange.receive_reply(reply, now)
    assert (verdict is Verdict.DONE) == (exchange.response is not None), "done without a response"
    (response,) = made.complete(exchange, now)
    assert len(response) <= wire.UDP_SIZE, "larger than UDP carries"
    assert wire.scan_query(response[:2] + b"\1\0" + response[4:6] + bytes(6) + response[12:29]).key
    # What went into the cache comes out of it as well.
    step = made.receive(query("www.example.", ident=7), CLIENT, now + 1)
    assert not isinstance(step, DropReason), "a good query is dropped"
    if isinstance(step, Forward):
        made.complete(step.exchange, now + 1)
    # And owned names are as they were.
    assert answer(made, query(REGISTRY), now + 1)[3] & 0xF == wire.NOERROR, "an owned name fails"


def fuzz_doh_request(data: bytes) -> None:
    """A request over HTTPS: method, target, type and body are parted by NUL."""
    method, target, kind, body = (data.split(b"\0", 3) + [b""] * 4)[:4]
    found = doh.read_request("/dns-query", _text(method), _text(target), _text(kind), body)
    if isinstance(found, int):
        assert found in doh.TEXTS, "a status without a text"
    else:
        assert len(found) <= doh.MAX_MESSAGE, "longer than a message"


def fuzz_doh_reply(data: bytes) -> None:
    """A reply over HTTPS: its Age and its body are parted by NUL."""
    age, _, body = data.partition(b"\0")
    with contextlib.suppress(WireError):
        found = doh.read_reply(200, doh.MEDIA_TYPE, _text(age), body)
        assert len(found) == len(body), "an age changes lengths"
    assert 0 <= doh.freshness(body) < 2**32, "no lifetime"


# -- what helpers, registries and files tell ----------------------------------------


def fuzz_snapshot(data: bytes) -> None:
    """Any JSON where the payload of a snapshot is; what is taken survives being written and read again."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        found = Snapshot.from_payload(payload)
    except SnapshotError:
        return
    assert Snapshot.from_payload(found.to_payload()) == found, "not the same when read again"
    judge_content(GOOD, found, SCOPE)


def fuzz_seal(data: bytes) -> None:
    """A token; the first octet says whether the rest is the token, or what our key has signed."""
    token = _text(data[1:])
    if data[:1] > b"\x40":
        head = _base64(json.dumps({"alg": "EdDSA", "kid": next(iter(TRUSTED))}).encode())
        signed = f"{head}.{_base64(data[1:])}"
        token = f"{signed}.{_base64(KEY.sign(signed.encode()))}"
    with contextlib.suppress(SnapshotError):
        seal.verify(token, TRUSTED)


def fuzz_state(data: bytes) -> None:
    """A state file: reading it never fails; what was read is written, and read again without a complaint."""
    path = Path(_FOLDER.name, "learned.jws")
    path.write_bytes(data)
    _read_twice(path)


def fuzz_orders(data: bytes) -> None:
    """The file of overrides of the version before, beside a good snapshot: the same."""
    path = Path(_FOLDER.name, "learned.jws")
    path.write_text(seal.sign(GOOD, KEY))
    overrides_path(path).write_bytes(data)
    _read_twice(path)


def _read_twice(path: Path) -> None:
    first, _ = _load(path)
    overrides_path(path).unlink(missing_ok=True)
    path.write_text("\n".join(encode(first)))
    again, problems = _load(path)
    assert not problems, problems
    assert list(encode(again)) == list(encode(first)), "not the same when read again"
    path.unlink()


def _load(path: Path) -> tuple[AddressLifecycle, list[str] | None]:
    managed = tuple(Wanted(name, "other", "hangzhou") for name in (REGISTRY, OSS))
    state = AddressLifecycle(AddressPolicy(managed, SCOPE.sought, dict.fromkeys(TRUSTED)))
    problems = load_state(path, state, Trust(TRUSTED, SCOPE))
    while not state.settle(100, 0.0, 2000.0):
        pass
    return state, problems


def fuzz_challenge(data: bytes) -> None:
    """``WWW-Authenticate`` fields, one per line."""
    with contextlib.suppress(DiscoverError):
        challenges = parse_challenges(data.decode("latin-1").split("\n"))
        bearer = judge_bearer(challenges, REGISTRY, 443, ["aliyuncs.com."])
        if bearer is not None:
            assert bearer.taken_over or bearer.host.endswith(".aliyuncs.com."), "a foreign realm"
            names.to_key(bearer.host)
            names.to_key(default_bucket(bearer.hint) or ".")


def fuzz_redirect(data: bytes) -> None:
    """A ``Location``."""
    with contextlib.suppress(DiscoverError):
        host = judge_redirect(_text(data), REGISTRY, ["aliyuncs.com."])
        assert host is None or host.endswith(".aliyuncs.com."), "a foreign host"


def fuzz_name(data: bytes) -> None:
    """A name as people write it."""
    with contextlib.suppress(ValueError):
        key = names.to_key(_text(data))
        assert names.to_key(names.to_text(key)) == key, "not the same when read again"
        assert len(key) <= names.MAX_NAME, "longer than a name"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


TARGETS: dict[str, Target] = {
    function.__name__.removeprefix("fuzz_").replace("_", "-"): function
    for function in (
        *(fuzz_query, fuzz_scan, fuzz_reply, fuzz_doh_request, fuzz_doh_reply, fuzz_snapshot, fuzz_seal),
        *(fuzz_state, fuzz_orders, fuzz_challenge, fuzz_redirect, fuzz_name),
    )
}


def silence() -> None:
    """Throw the events of the log away: a target that reads files tells of each bad one."""
    structlog.configure(processors=[_drop])


def _drop(_logger: object, _method: str, _event: structlog.types.EventDict) -> structlog.types.EventDict:
    raise structlog.DropEvent
