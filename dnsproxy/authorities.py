"""Whose certificates a TLS client of this program believes."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in ``ca_file``, or the system's.

    Certificates are judged alike under every version of Python. 3.13 refuses by default those that
    lack what RFC 5280 wants of authorities (an authority key identifier, for one); private
    authorities often lack it, and the container engines that pull do not ask for it.

    Raises:
        OSError, ValueError: ``ca_file`` cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def pinned_context(cert_file: Path) -> ssl.SSLContext:
    """Return a context that believes the first certificate in ``cert_file`` (PEM) alone, for any name.

    For the commands on a host where the certificate of the endpoint lies.

    Raises:
        OSError, ValueError: the file cannot be read, or has no certificate.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, found, rest = cert_file.read_text(encoding="ascii").partition(begin)
    if not found:
        raise ValueError("no certificate in it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=f"{begin}{rest.partition(end)[0]}{end}\n")
    return context


def unjudging_context() -> ssl.SSLContext:
    """Return a context that takes every certificate, for those who look at it themselves.

    It holds no authorities: the system's are a megabyte.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
