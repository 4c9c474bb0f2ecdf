from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import Rejection, SnapshotError
from tests import strategies
from tests.strategies import learned, snapshot

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KID = seal.key_id(KEY.public_key())
TRUSTED = {KID: KEY.public_key()}
SNAPSHOT = snapshot(learned(), learned("*.oss.example.", ("10.0.0.2", "2001:db8::2")))
TOKEN = seal.sign(SNAPSHOT, KEY)
TAMPERED = {Rejection.MALFORMED, Rejection.BAD_SIGNATURE, Rejection.UNKNOWN_KEY}


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: object, payload: object, key: Ed25519PrivateKey = KEY) -> str:
    """A token with any header and payload, signed properly."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(payload).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


def rejection(text: str) -> Rejection:
    with pytest.raises(SnapshotError) as caught:
        seal.verify(text, TRUSTED)
    return caught.value.reason


@given(strategies.snapshots)
def test_round_trip(original: Snapshot) -> None:
    assert seal.verify(seal.sign(original, KEY), TRUSTED) == original


def test_a_hand_made_token_is_verified() -> None:
    assert seal.verify(token({"alg": "EdDSA", "kid": KID}, SNAPSHOT.to_payload()), TRUSTED) == SNAPSHOT


def test_the_header_names_the_key() -> None:
    header = json.loads(base64.urlsafe_b64decode(TOKEN.partition(".")[0] + "=="))
    raw = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert header["alg"] == "EdDSA"
    assert header["kid"] == hashlib.sha256(raw).hexdigest()[:16]


def test_another_key_under_a_trusted_id_is_a_bad_signature() -> None:
    forged = token({"alg": "EdDSA", "kid": KID}, SNAPSHOT.to_payload(), OTHER)
    assert rejection(forged) is Rejection.BAD_SIGNATURE


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(SnapshotError, match=seal.key_id(OTHER.public_key())) as caught:
        seal.verify(seal.sign(SNAPSHOT, OTHER), TRUSTED)
    assert caught.value.reason is Rejection.UNKNOWN_KEY


def test_no_key_id_is_an_unknown_key() -> None:
    assert rejection(token({"alg": "EdDSA"}, SNAPSHOT.to_payload())) is Rejection.UNKNOWN_KEY


def test_a_token_cut_anywhere_is_refused() -> None:
    for length in range(len(TOKEN)):
        assert rejection(TOKEN[:length]) in TAMPERED


@pytest.mark.parametrize("size", [1_025, 8_000_000], ids=str)
def test_p29_a_long_header_is_refused_before_it_is_decoded(size: int) -> None:
    header = base64.urlsafe_b64encode(b'{"kid":"' + b"a" * size + b'"}').rstrip(b"=").decode()
    with pytest.raises(SnapshotError, match="a header of more than") as caught:
        seal.verify(f"{header}.e30.{'A' * 86}", TRUSTED)
    assert caught.value.reason is Rejection.MALFORMED
    assert len(str(caught.value)) < 200


def test_p29_only_a_signature_of_its_size_is_decoded() -> None:
    with pytest.raises(SnapshotError, match="the signature"):
        seal.verify(f"e30.e30.{'A' * 8_000_000}", TRUSTED)


def test_a_token_with_a_tail_is_refused() -> None:
    for tail in ("A", "=", "!", "\n", ".", "AAAA", "é"):
        assert rejection(TOKEN + tail) in TAMPERED


@given(st.integers(0, len(TOKEN) - 1), st.integers(1, 127))
def test_a_byte_changed_anywhere_is_refused(position: int, flip: int) -> None:
    changed = chr(ord(TOKEN[position]) ^ flip)
    assert rejection(TOKEN[:position] + changed + TOKEN[position + 1 :]) in TAMPERED


def test_every_bit_of_the_signature_counts() -> None:
    # Four bits of the last of its 86 characters carry nothing; they are compared all the same.
    start = TOKEN.rindex(".") + 1
    for position in range(start, len(TOKEN)):
        for bit in range(7):
            changed = chr(ord(TOKEN[position]) ^ (1 << bit))
            assert rejection(TOKEN[:position] + changed + TOKEN[position + 1 :]) in TAMPERED


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    assert rejection(text) in TAMPERED


@given(strategies.json_values, strategies.json_values)
def test_any_signed_json_is_a_snapshot_error(header: Any, payload: Any) -> None:
    assert rejection(token(header, SNAPSHOT.to_payload())) in TAMPERED
    assert rejection(token({"alg": "EdDSA", "kid": KID}, payload)) is Rejection.MALFORMED


@pytest.mark.parametrize("claim", ["sub", "jti", "nbf", "aud"])
def test_registered_claims_that_are_not_ours_never_escape(claim: str) -> None:
    signed = token({"alg": "EdDSA", "kid": KID}, {**SNAPSHOT.to_payload(), claim: [1]})
    try:
        assert seal.verify(signed, TRUSTED) == SNAPSHOT
    except SnapshotError as exc:
        assert exc.reason is Rejection.MALFORMED  # noqa: PT017 - both outcomes are allowed


def test_alg_none_is_refused() -> None:
    header = {"alg": "none", "kid": KID}
    parts = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(SNAPSHOT.to_payload()).encode())}"
    assert rejection(f"{parts}.") in TAMPERED
    assert rejection(token(header, SNAPSHOT.to_payload())) in TAMPERED


@pytest.mark.parametrize("encoding", [serialization.Encoding.Raw, serialization.Encoding.PEM])
def test_hs256_with_the_public_key_as_secret_is_refused(encoding: serialization.Encoding) -> None:
    shape = {
        serialization.Encoding.Raw: serialization.PublicFormat.Raw,
        serialization.Encoding.PEM: serialization.PublicFormat.SubjectPublicKeyInfo,
    }[encoding]
    secret = KEY.public_key().public_bytes(encoding, shape)
    header = encode(json.dumps({"alg": "HS256", "kid": KID}).encode())
    signed = f"{header}.{encode(json.dumps(SNAPSHOT.to_payload()).encode())}"
    mac = hmac.digest(secret, signed.encode(), "sha256")
    assert rejection(f"{signed}.{encode(mac)}") in TAMPERED


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    deep = encode(("[" * depth + "]" * depth).encode())
    header = encode(json.dumps({"alg": "EdDSA", "kid": KID}).encode())
    signed = f"{header}.{deep}"
    assert rejection(f"{signed}.{encode(KEY.sign(signed.encode()))}") is Rejection.MALFORMED
    assert rejection(f"{deep}.{deep}.AAAA") in TAMPERED


def test_generated_keys_can_be_loaded_and_used() -> None:
    private_pem, public_pem = seal.generate_key()
    private, public = seal.load_private_key(private_pem), seal.load_public_key(public_pem)
    assert private.public_key() == public
    assert seal.verify(seal.sign(SNAPSHOT, private), {seal.key_id(public): public}) == SNAPSHOT


def pem(key: Any, encryption: serialization.KeySerializationEncryption) -> bytes:
    data: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return data


def test_keys_of_another_kind_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    public = curve.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        seal.load_private_key(pem(curve, serialization.NoEncryption()))
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        seal.load_public_key(public)


def test_an_encrypted_key_is_refused() -> None:
    with pytest.raises(ValueError, match="the key is encrypted"):
        seal.load_private_key(pem(KEY, serialization.BestAvailableEncryption(b"secret")))


@given(st.binary(max_size=200))
def test_any_bytes_as_a_key_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        seal.load_private_key(data)
    with pytest.raises(ValueError, match=r".+"):
        seal.load_public_key(data)


def test_the_other_half_of_the_pair_is_refused() -> None:
    private_pem, public_pem = seal.generate_key()
    with pytest.raises(ValueError, match=r".+"):
        seal.load_private_key(public_pem)
    with pytest.raises(ValueError, match=r".+"):
        seal.load_public_key(private_pem)
