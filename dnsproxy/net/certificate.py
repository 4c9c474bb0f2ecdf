"""The certificate of our own listeners, read again when its files change."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from time import time

import structlog

from dnsproxy.errors import StartError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# In our order of preference: over HTTP, and DNS over TLS itself (RFC 7858), which few clients name.
PROTOCOLS = ("h2", "http/1.1", "dot")
_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """The context for new connections. Those that are open keep the one they were made with.

    Raises:
        StartError: ``cert_file`` and ``key_file`` (PEM) cannot be used.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._stamp = self._look()
        self._not_after = inf
        try:
            self._context = _load(cert_file, key_file)
        except (OSError, ValueError) as exc:
            raise StartError(f"serve.tls: {cert_file} with {key_file}: {_reason(exc)}") from exc
        self._not_after = _not_after(cert_file)
        self._note_expiry()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; from changed files as soon as both fit together."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _load(*self._files)
            except (OSError, ValueError) as exc:
                # Perhaps only one of them has been replaced so far. Its change is seen when it comes.
                log.warning("tls.certificate_kept", file=str(self._files[0]), reason=_reason(exc))
            else:
                self._not_after = _not_after(self._files[0])
                log.info("tls.certificate_loaded", file=str(self._files[0]))
        if time() >= self._not_after:
            self._note_expiry()
        return self._context

    def _note_expiry(self) -> None:
        """Log once that the certificate has expired: clients refuse it from then on."""
        if time() >= self._not_after:
            ended = datetime.fromtimestamp(self._not_after, UTC).isoformat()
            log.error("tls.certificate_expired", file=str(self._files[0]), not_after=ended)
            self._not_after = inf

    def _look(self) -> _Stamp:
        """Return what changes when a file does, or what a link leads to (Kubernetes swaps a link)."""
        try:
            found = [os.stat(path) for path in self._files]  # noqa: PTH116 - a third of the cost of Path.stat
        except OSError:
            return ()
        return tuple((entry.st_mtime_ns, entry.st_size, entry.st_ino) for entry in found)


def _load(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(PROTOCOLS))
    # Without a password OpenSSL would ask for one on the terminal.
    context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    return context


def _not_after(cert_file: Path) -> float:
    """Return the end of the certificate, in Unix seconds; infinite where that cannot be read."""
    from cryptography import x509  # noqa: PLC0415 - few proxies have a certificate

    try:
        first = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError):
        return inf
    if hasattr(first, "not_valid_after_utc"):
        return first.not_valid_after_utc.timestamp()
    return first.not_valid_after.replace(tzinfo=UTC).timestamp()  # before cryptography 42


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        reason = getattr(exc, "reason", None)
        return {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate"}.get(
            str(reason), f"no usable certificate and key ({reason})"
        )
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
