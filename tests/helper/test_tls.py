from __future__ import annotations

import errno
import ssl
from pathlib import Path

import pytest

from dnsproxy.errors import StartError
from dnsproxy.helper.tls import os_reason, server_context
from dnsproxy.settings.learning import TlsSettings
from tests.certificates import make_certificate


def test_without_a_certificate_it_is_plain_http() -> None:
    assert server_context(TlsSettings()) is None


def test_certificates_are_asked_for_where_an_authority_is_named(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "helper.example")
    open_to_all = server_context(TlsSettings(cert_file=path, key_file=path))
    asking = server_context(TlsSettings(cert_file=path, key_file=path, client_ca_file=path))
    assert open_to_all is not None
    assert asking is not None
    assert (open_to_all.verify_mode, asking.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path, missing = make_certificate(tmp_path, "helper.example"), tmp_path / "missing.pem"
    with pytest.raises(StartError, match=f"{missing}.*No such file"):
        server_context(TlsSettings(cert_file=missing, key_file=path))
    with pytest.raises(StartError, match=f"{missing}.*No such file"):
        server_context(TlsSettings(cert_file=path, key_file=path, client_ca_file=missing))


def test_reasons_are_those_of_the_system() -> None:
    assert os_reason(OSError(errno.EADDRINUSE, "asyncio's own words")) == "Address already in use"
