"""Sign and verify a snapshot: JWS compact serialisation, Ed25519 (RFC 7515, RFC 8037).

The key id is the first 16 hexadecimal digits of the SHA-256 of the raw public
key, so two parties that hold the same key agree on its name without being told.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dnsproxy.core.learned import Snapshot
from dnsproxy.core.text import is_label
from dnsproxy.errors import Rejection, SnapshotError

ALGORITHM = "EdDSA"
# Bytes. `key_id` has 16.
MAX_KEY_ID = 64
# Characters of a header: an algorithm, a type and a key id are under 100. It is decoded before the signature
# is looked at, and a token may have 8 MiB. Those of a signature, which has 64 bytes.
_MAX_HEADER = 1024
_SIGNATURE = 86
TrustedKeys = Mapping[str, Ed25519PublicKey]


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of ``key`` that a JWS header carries as ``kid``."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def generate_key() -> tuple[bytes, bytes]:
    """Return a new key pair as PEM: the private key (PKCS #8), the public key (SPKI)."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def load_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a PEM private key.

    Raises:
        ValueError: it is not an unencrypted Ed25519 private key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as exc:
        raise ValueError("the key is encrypted") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - the value of the file is wrong, not a type
    return key


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """Read a PEM public key.

    Raises:
        ValueError: it is not an Ed25519 public key.
    """
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - the value of the file is wrong, not a type
    return key


def sign(snapshot: Snapshot, key: Ed25519PrivateKey) -> str:
    """Return ``snapshot`` as a signed JWS in compact form."""
    return jwt.encode(
        snapshot.to_payload(), key, algorithm=ALGORITHM, headers={"kid": key_id(key.public_key())}
    )


def verify(token: str, trusted: TrustedKeys) -> Snapshot:
    """Return the snapshot in ``token``. Whether it is current is for `learned.judge`.

    Raises:
        SnapshotError: ``MALFORMED``, ``UNKNOWN_KEY`` or ``BAD_SIGNATURE``.
    """
    if len(token.partition(".")[0]) > _MAX_HEADER:
        raise SnapshotError(Rejection.MALFORMED, f"not a JWS: a header of more than {_MAX_HEADER} characters")
    if not _is_canonical(token.rpartition(".")[2]):
        raise SnapshotError(Rejection.MALFORMED, "not a JWS: the signature is not base64url")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.InvalidTokenError, ValueError, RecursionError) as exc:
        raise SnapshotError(Rejection.MALFORMED, f"not a JWS: {exc}") from exc
    if not isinstance(kid, str):
        raise SnapshotError(Rejection.UNKNOWN_KEY, "signed by a key without an id")
    if not is_label(kid, MAX_KEY_ID):
        raise SnapshotError(Rejection.MALFORMED, f"kid: not a printable text of at most {MAX_KEY_ID} bytes")
    key = trusted.get(kid)
    if key is None:
        raise SnapshotError(Rejection.UNKNOWN_KEY, f"signed by key {kid!r}, which is not trusted here")
    try:
        payload = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            # Time is judged later, against a clock that is given, not read here.
            options={
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
                "verify_iss": False,
            },
        )
    except jwt.InvalidSignatureError as exc:
        raise SnapshotError(Rejection.BAD_SIGNATURE, f"signature by key {kid} does not match") from exc
    except (jwt.InvalidTokenError, ValueError, RecursionError) as exc:
        raise SnapshotError(Rejection.MALFORMED, f"not a JWS: {exc}") from exc
    return Snapshot.from_payload(payload)


def signer(token: str) -> str:
    """Return the id of the key that has signed ``token``, which `verify` has found good."""
    header = token.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def _is_canonical(segment: str) -> bool:
    # Lenient decoders pass over stray characters and unused bits (RFC 4648 §3.5), so that
    # one signature would have many spellings. The other two segments are signed as text.
    if len(segment) > _SIGNATURE:
        return False
    try:
        decoded = base64.urlsafe_b64decode(segment + "==")
    except ValueError:
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode("ascii") == segment
