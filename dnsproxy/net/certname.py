"""Whether a certificate is for a name, whoever signed it."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from dnsproxy.core.text import printable

# Names of a certificate in one line of a message.
_SHOWN = 3


def mismatch(certificate: bytes, host: str) -> str | None:
    """Return why the DER ``certificate`` is not for ``host`` (text without the last dot); None when it is.

    Only subjectAltName counts, as for every client of a registry (RFC 9525 §6.3).
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return "its certificate names no host"
    except (ValueError, x509.DuplicateExtension):  # ValueError is all that the parser's own errors share
        return "its certificate cannot be read"
    if not isinstance(names, x509.SubjectAlternativeName):
        return "its certificate names no host"
    presented = names.get_values_for_type(x509.DNSName)
    if any(_covers(name.lower().rstrip("."), host.lower()) for name in presented):
        return None
    shown = printable(", ".join(presented[:_SHOWN])) or "no host"
    return f"its certificate is for {shown}{', ...' if len(presented) > _SHOWN else ''}"


def _covers(presented: str, host: str) -> bool:
    """Compare as RFC 9525 §6.3: a wildcard is the whole of the first label and stands for one label."""
    if presented == host:
        return True
    first, _, rest = presented.partition(".")
    return first == "*" and bool(rest) and host.partition(".")[2] == rest
