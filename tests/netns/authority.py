"""The authority that everybody in the world of these tests trusts, and the certificates it gives out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.certificates import general_name

HOUR = dt.timedelta(hours=1)


class Certificate:
    """PEM files: ``certificate`` with the leaf alone, ``key`` not encrypted."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"

    def write(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    ) -> None:
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.touch(mode=0o600)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


class Authority:
    """Signs for two hours around its making; ``file`` is what clients are told to trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        own = Certificate(folder, "authority")
        builder = _builder(self._name, self._name).public_key(self._key.public_key())
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        own.write(certificate.sign(self._key, hashes.SHA256()), self._key)
        self.file = own.certificate

    def issue(self, *hosts: str) -> Certificate:
        """Give out a server certificate for ``hosts``, names or addresses; the first names the files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        builder = (
            _builder(subject, self._name)
            .public_key(key.public_key())
            .add_extension(
                x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        issued = Certificate(self._folder, hosts[0])
        issued.write(builder.sign(self._key, hashes.SHA256()), key)
        return issued

    def issue_signer(self, name: str) -> Certificate:
        """Give out a certificate of its own making, with an RSA key: what a registry trusts tokens by."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issued = Certificate(self._folder, name)
        issued.write(_builder(subject, subject).public_key(key.public_key()).sign(key, hashes.SHA256()), key)
        return issued


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
    )
