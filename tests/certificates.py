"""Certificates for TLS, made for a test."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Certificates:
    """An authority of our own, a certificate for this machine and one for a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]), key)
        self.ca, _ = self._write("ca", key, is_authority=True)
        self.server, self.server_key = self._write("server", ec.generate_private_key(ec.SECP256R1()))
        self.client, self.client_key = self._write("client", ec.generate_private_key(ec.SECP256R1()))

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False) -> tuple[Path, Path]:
        issuer, issuer_key = self._issuer
        subject = issuer if is_authority else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("triton.example")]
                ),
                critical=False,
            )
            .sign(issuer_key, hashes.SHA256())
        )
        files = (self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files
