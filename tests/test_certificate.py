from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from dnsproxy import certificate
from dnsproxy.certificate import HTTP, Certificate, designated_name
from dnsproxy.errors import StartError
from tests.certificates import make_certificate


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    made = Certificate(path, path)
    first = made.context()
    assert made.context() is first
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    make_certificate(tmp_path, "b.example").replace(path)
    second = made.context()
    assert second is not first
    assert made.context() is second


def test_what_a_link_leads_to_is_followed(tmp_path: Path) -> None:
    # As Kubernetes swaps the files of a secret.
    link = tmp_path / "current"
    link.symlink_to(make_certificate(tmp_path, "a.example"))
    made = Certificate(link, link)
    first = made.context()
    other = tmp_path / "next"
    other.symlink_to(make_certificate(tmp_path, "b.example"))
    other.replace(link)
    assert made.context() is not first


def test_a_certificate_is_kept_until_its_successor_is_whole(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    whole = make_certificate(tmp_path, "a.example").read_bytes()
    certificate.write_bytes(whole)
    key.write_bytes(whole)
    made = Certificate(certificate, key)
    first = made.context()
    successor = make_certificate(tmp_path, "b.example").read_bytes()
    certificate.write_bytes(successor)
    with capture_logs() as events:
        for _ in range(3):
            assert made.context() is first
    assert str(events).count("does not belong to the certificate") == 1
    certificate.unlink()
    assert made.context() is first
    certificate.write_bytes(successor)
    key.write_bytes(successor)
    assert made.context() is not first


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "No such file"), (b"", "no usable certificate"), (b"junk", "no usable")]
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=f"serve.tls: .*cert.pem with .*: .*{complaint}"):
        Certificate(path, path)


def test_a_key_with_a_password_is_refused_without_asking(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(StartError, match=r"serve\.tls"):
        Certificate(path, locked)


def test_the_authority_of_clients_is_read_again_too(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    authority = tmp_path / "authority.pem"
    authority.write_bytes(make_certificate(tmp_path, "b.example").read_bytes())
    made = Certificate(path, path, client_ca_file=authority, key="helper.tls", protocols=HTTP)
    first = made.context()
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert len(first.get_ca_certs()) == 1
    authority.write_bytes(b"")
    assert made.context() is first
    authority.write_bytes(make_certificate(tmp_path, "c.example").read_bytes())
    assert made.context() is not first
    with pytest.raises(StartError, match=f"helper.tls: {tmp_path / 'none.pem'}: No such file"):
        Certificate(path, path, client_ca_file=tmp_path / "none.pem", key="helper.tls")


def test_without_an_authority_no_client_is_asked(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    assert Certificate(path, path).context().verify_mode is ssl.CERT_NONE


def test_an_expired_certificate_is_an_event_once_and_so_is_its_successor(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example", days=-1)
    with capture_logs() as logs:
        made = Certificate(path, path)
        for _ in range(3):
            made.context()
    assert [(entry["event"], entry["file"]) for entry in logs] == [("tls.certificate_expired", str(path))]
    assert logs[0]["not_after"].endswith("+00:00")
    with capture_logs() as logs:
        make_certificate(tmp_path, "b.example", days=-2).replace(path)
        made.context()
        make_certificate(tmp_path, "c.example").replace(path)
        made.context()
    assert [entry["event"] for entry in logs] == [
        "tls.certificate_loaded",
        "tls.certificate_expired",
        "tls.certificate_loaded",
    ]


def test_one_that_expires_while_it_is_used_is_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_certificate(tmp_path, "a.example")
    with capture_logs() as logs:
        made = Certificate(path, path)
        made.context()
        assert logs == []
        monkeypatch.setattr(certificate, "time", lambda: time.time() + 2 * 86_400)
        for _ in range(2):
            made.context()
    assert [entry["event"] for entry in logs] == ["tls.certificate_expired"]


def test_the_name_that_clients_are_sent_to_is_the_first_that_is_no_wildcard(tmp_path: Path) -> None:
    file = make_certificate(tmp_path, "10.0.0.1", "*.example", "dns.example")
    assert designated_name(file) == "dns.example"
    for names in (("10.0.0.1",), ("*.example",), ()):
        assert designated_name(make_certificate(tmp_path, *names)) is None
    assert designated_name(tmp_path / "missing.pem") is None
