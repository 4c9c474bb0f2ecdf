"""The certificate of a listener of this program, read again when its files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from time import time

import structlog

from dnsproxy.core import names
from dnsproxy.errors import StartError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# In our order of preference: over HTTP, and DNS over TLS itself (RFC 7858), which few clients name.
PROTOCOLS = ("h2", "http/1.1", "dot")
HTTP = ("http/1.1",)
_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """The context for new connections. Connections that are open keep the one they were made with.

    ``key`` is the place of the files in the configuration. With ``client_ca_file`` each client must show a
    certificate of that authority.

    Raises:
        StartError: ``cert_file`` and ``key_file`` (PEM), or ``client_ca_file``, cannot be used.
    """

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        *,
        client_ca_file: Path | None = None,
        key: str = "serve.tls",
        protocols: Sequence[str] = PROTOCOLS,
    ) -> None:
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self._protocols = list(protocols)
        self._stamp = self._look()
        try:
            self._context = self._load()
        except (OSError, ValueError) as exc:
            raise StartError(f"{key}: {cert_file} with {key_file}: {_reason(exc)}") from exc
        try:
            self._believe(self._context)
        except (OSError, ValueError) as exc:
            raise StartError(f"{key}: {client_ca_file}: {_reason(exc)}") from exc
        self._not_after = _not_after(cert_file)
        self._note_expiry()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; from changed files as soon as all fit together."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                context = self._load()
                self._believe(context)
            except (OSError, ValueError) as exc:
                # Perhaps only one of them has been replaced so far. Its change is seen when it comes.
                log.warning("tls.certificate_kept", file=str(self._cert_file), reason=_reason(exc))
            else:
                self._context = context
                self._not_after = _not_after(self._cert_file)
                log.info("tls.certificate_loaded", file=str(self._cert_file))
        if time() >= self._not_after:
            self._note_expiry()
        return self._context

    def _note_expiry(self) -> None:
        """Log once that the certificate has expired: clients refuse it from then on."""
        if time() >= self._not_after:
            ended = datetime.fromtimestamp(self._not_after, UTC).isoformat()
            log.error("tls.certificate_expired", file=str(self._cert_file), not_after=ended)
            self._not_after = inf

    def _look(self) -> _Stamp:
        """Return what changes when a file does, or what a link leads to (Kubernetes swaps a link)."""
        paths = filter(None, (self._cert_file, self._key_file, self._client_ca_file))
        try:
            found = [os.stat(path) for path in paths]  # noqa: PTH116 - a third of the cost of Path.stat
        except OSError:
            return ()
        return tuple((entry.st_mtime_ns, entry.st_size, entry.st_ino) for entry in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(self._protocols)
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(self._cert_file, self._key_file, password=lambda: b"")
        return context

    def _believe(self, context: ssl.SSLContext) -> None:
        if self._client_ca_file is not None:
            context.load_verify_locations(self._client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED


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


def designated_name(cert_file: Path) -> str | None:
    """Return the first host name of the certificate that is not a wildcard; None without one."""
    from cryptography import x509  # noqa: PLC0415 - few proxies have a certificate

    try:
        first = x509.load_pem_x509_certificate(cert_file.read_bytes())
        found = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    listed = found.get_values_for_type(x509.DNSName)
    return next((name for name in listed if _is_host_name(name)), None)


def _is_host_name(name: str) -> bool:
    try:
        key = names.to_key(name)
    except ValueError:
        return False
    return b"*" not in key and key != names.ROOT


def http_certificate(
    key: str, cert_file: Path | None, key_file: Path | None, client_ca_file: Path | None = None
) -> Certificate | None:
    """Return the certificate of an HTTP endpoint; None without files, for plain HTTP.

    Raises:
        StartError: as `Certificate`.
    """
    if cert_file is None or key_file is None:
        return None
    return Certificate(cert_file, key_file, client_ca_file=client_ca_file, key=key, protocols=HTTP)


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        reason = getattr(exc, "reason", None)
        return {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate"}.get(
            str(reason), f"no usable certificate and key ({reason})"
        )
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
