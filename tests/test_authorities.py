from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from dnsproxy.authorities import client_context, pinned_context, unjudging_context
from tests.certificates import make_certificate, server_context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Have the two shake hands in memory.

    Raises:
        ssl.SSLError: one of them would not.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, answering, asking, answering):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_an_authority_without_key_identifier_is_believed(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "registry.example")
    handshake(client_context(path), server_context(path), "registry.example")


def test_another_name_and_another_authority_are_not(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "registry.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(client_context(path), server_context(path), "other.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="self.signed"):
        handshake(client_context(), server_context(path), "registry.example")


def test_a_certificate_that_has_expired_is_not_believed(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "registry.example", days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(client_context(path), server_context(path), "registry.example")


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client_context(tmp_path / "missing.pem")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ssl.SSLError):
        client_context(tmp_path / "empty.pem")


def test_a_context_that_judges_nothing_takes_every_certificate(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "registry.example")
    handshake(unjudging_context(), server_context(path), "other.example")
    assert unjudging_context().cert_store_stats()["x509"] == 0


def test_one_certificate_is_believed_for_any_name_and_no_other(tmp_path: Path) -> None:
    path, other = make_certificate(tmp_path, "a.example"), make_certificate(tmp_path, "b.example")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(path.read_bytes() + other.read_bytes())
    handshake(pinned_context(chain), server_context(path), "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pinned_context(chain), server_context(other), "127.0.0.1")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ValueError, match="no certificate"):
        pinned_context(tmp_path / "empty.pem")
