"""The certificate of the helper's HTTP endpoint, and whose certificates it asks for."""

from __future__ import annotations

import os
import ssl

from dnsproxy.errors import StartError
from dnsproxy.settings.learning import TlsSettings


def server_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """Return the TLS context for ``tls``; None for plain HTTP.

    Raises:
        StartError: a file cannot be read or used.
    """
    if tls.cert_file is None or tls.key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An empty password makes an encrypted key an error; without it OpenSSL would ask on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=str)
    except (OSError, ValueError) as exc:
        raise StartError(f"helper.tls: {tls.cert_file}, {tls.key_file}: {os_reason(exc)}") from exc
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (OSError, ValueError) as exc:
            raise StartError(f"helper.tls: {tls.client_ca_file}: {os_reason(exc)}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def os_reason(exc: Exception) -> str:
    """Return in a few words what the system, or OpenSSL, says of a file or a port."""
    if isinstance(exc, ssl.SSLError):
        return f"not usable ({exc.reason or exc})"
    # asyncio puts a text of its own in place of the system's.
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
