"""TLS towards upstreams: whom to trust, sessions to resume, and why a handshake failed."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from dnsproxy.core.exchange import Failure
from dnsproxy.errors import StartError
from dnsproxy.net.stream import LOCAL


class ClientContext(ssl.SSLContext):
    """The context for one upstream, which resumes its last session.

    asyncio has no argument for a session, so it is given where asyncio asks for the connection.
    """

    _session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the same
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`."""
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or self._session)

    def remember(self, connection: ssl.SSLObject) -> None:
        """Keep the session of ``connection``, which has been read from: only then TLS 1.3 has tickets."""
        if connection.session is not None and connection.session.has_ticket:
            self._session = connection.session


def client_context(ca_file: Path | None, protocols: tuple[str, ...]) -> ClientContext:
    """Return a context that wants a certificate of an authority in ``ca_file`` (PEM; None: the system's).

    ``protocols`` are offered by ALPN (RFC 7301).

    Raises:
        StartError: ``ca_file`` cannot be used.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as exc:
        reason = None if isinstance(exc, ssl.SSLError | ValueError) else exc.strerror
        raise StartError(f"forward.ca_file: {ca_file}: {reason or 'no usable certificate'}") from exc
    return context


def name_failure(exc: Exception) -> tuple[Failure, str]:
    """Return what to count for ``exc``, which ended a connection, and one line for the operator."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Failure.CERTIFICATE, f"certificate: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return Failure.TLS, f"TLS: {getattr(exc, 'reason', None) or exc}"
    number = exc.errno if isinstance(exc, OSError) else None
    failure = Failure.LOCAL if number in LOCAL else Failure.NETWORK
    # asyncio puts a text of its own in place of the system's.
    return failure, os.strerror(number) if number else str(exc) or type(exc).__name__
