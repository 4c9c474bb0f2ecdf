from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.transport.precedence import Version, obstacle, version_of
from tests.strategies import json_values, snapshots

KEY = Ed25519PrivateKey.generate()


def token(serial: int, issued_at: int = 1000, issuer: str = "helper-a") -> str:
    return seal.sign(Snapshot(issuer, serial, issued_at, issued_at + 10, ()), KEY)


@given(snapshots)
def test_a_signed_snapshot_says_its_version(snapshot: Snapshot) -> None:
    expected = Version(snapshot.issuer, snapshot.serial, snapshot.issued_at)
    assert version_of(seal.sign(snapshot, KEY)) == expected


def around(payload: object) -> str:
    return f"x.{base64.urlsafe_b64encode(json.dumps(payload).encode()).decode()}.x"


@given(st.text() | json_values.map(around))
def test_any_text_is_a_version_or_none(text: str) -> None:
    assert version_of(text) is None


@pytest.mark.parametrize(
    "payload", [{"iss": 1, "serial": 2, "iat": 3}, {"iss": "a", "serial": True, "iat": 3}, {"iss": "a"}]
)
def test_wrong_kinds_are_no_version(payload: dict[str, Any]) -> None:
    assert version_of(around(payload)) is None


@pytest.mark.parametrize(
    ("held", "mine"),
    [
        (None, token(1)),
        ("", token(1)),
        ("junk", token(1)),
        (token(1), token(2)),
        (token(1, 1000), token(1, 1000)),
        (token(1, 1000), token(1, 1030)),
        (token(5, 2000), token(6, 1000)),
        (token(9, issuer="helper-b"), token(1)),
    ],
)
def test_what_may_be_written(held: str | None, mine: str) -> None:
    assert obstacle(held, mine) is None


@pytest.mark.parametrize(("held", "mine"), [(token(2), token(1)), (token(1, 1030), token(1, 1000))])
def test_what_is_later_stays(held: str, mine: str) -> None:
    reason = obstacle(held, mine)
    assert reason is not None
    assert "helper-a is there, later than" in reason
