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


def unjudging_context() -> ssl.SSLContext:
    """Return a context that takes every certificate, for those who look at it themselves.

    It holds no authorities: the system's are a megabyte.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
