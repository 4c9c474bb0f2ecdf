from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import names, seal
from dnsproxy.core.learned import Accepted, Rejected, Scope, judge_content
from dnsproxy.core.registry import Found, Sought
from dnsproxy.core.trust import Limited, Trust
from dnsproxy.errors import Rejection, SnapshotError
from tests.strategies import learned, snapshot

ALL, OURS, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
ID = seal.key_id(OURS.public_key())


def keys(*texts: str) -> frozenset[bytes]:
    return frozenset(names.to_key(text) for text in texts)


# Registry `a` has a.example and is asked for its storage; `b` has the rest.
LIMITED = Limited(
    keys("a.example"),
    (Sought("a", "storage", ("example.",)),),
    frozenset({"a"}),
    keys("b.example", "*.oss.example"),
)
EVERYTHING = Scope(keys("a.example", "b.example", "*.oss.example"))
TRUST = Trust({seal.key_id(k.public_key()): k.public_key() for k in (ALL, OURS)}, EVERYTHING, {ID: LIMITED})


def test_a_key_without_limits_speaks_for_all() -> None:
    original = snapshot(learned("b.example."))
    assert TRUST.open(seal.sign(original, ALL)) == (original, EVERYTHING)


def test_a_limited_key_speaks_for_its_registries_and_never_as_another_helper() -> None:
    original = snapshot(learned("a.example."), learned("b.example."))
    read, scope = TRUST.open(seal.sign(original, OURS))
    assert (read.issuer, scope) == (f"a/{original.issuer}", LIMITED)
    verdict = judge_content(None, read, scope)
    assert isinstance(verdict, Accepted)
    assert [entry.name for entry in verdict.snapshot.names] == ["a.example."]
    assert verdict.foreign == ("b.example.",)


def test_what_only_others_have_is_not_ours() -> None:
    read, scope = TRUST.open(seal.sign(snapshot(learned("b.example.")), OURS))
    verdict = judge_content(None, read, scope)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Rejection.NOT_OURS


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("bucket.example.", True),
        ("b.example.", False),
        ("bucket.oss.example.", False),
        ("x.bucket.oss.example.", False),
        # The wildcard does not cover its parent.
        ("oss.example.", True),
        ("elsewhere.test.", False),
    ],
)
def test_a_limited_key_cannot_have_its_registry_tell_names_of_others(name: str, taken: bool) -> None:
    (found,) = LIMITED.admit([Found("a", "storage", (name,), 1)])
    assert found.names == ((name,) if taken else ())
    assert LIMITED.admit([Found("b", "storage", (name,), 1)]) == ()


def test_labels_are_one_for_each_set_of_registries() -> None:
    def label(*registries: str) -> str:
        return Limited(frozenset(), (), frozenset(registries)).label

    assert label("hangzhou") == "hangzhou"
    assert label("b", "a") == label("a", "b") == "a+b"
    assert len({label("a+b"), label("a", "b"), label("a/b"), label("a%2Fb")}) == 4
    assert "/" not in label("a/b")


def test_a_stranger_is_not_believed() -> None:
    with pytest.raises(SnapshotError) as caught:
        TRUST.open(seal.sign(snapshot(), STRANGER))
    assert caught.value.reason is Rejection.UNKNOWN_KEY
