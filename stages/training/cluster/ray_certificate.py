"""A certificate for the Ray of this process, which is also the only authority that it accepts.

Ray's token is checked by each of its calls, and one forgot: without TLS a caller that has no token ends the whole Ray
(`RaySyncer.StartSync` without metadata, Ray 2.60). With TLS a caller without our key gets no connection.
"""

from __future__ import annotations

import datetime
import os
from ipaddress import ip_address
from pathlib import Path

DAYS = 365
"""Longer than any run without a restart of its process."""


def write_certificate(folder: Path) -> dict[str, str]:
    """Writes a key and its certificate to a private folder; returns the variables by which Ray uses them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headwater-ray")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.DNSName("127.0.0.1"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_file, certificate_file = folder / "tls.key", folder / "tls.crt"
    for path, content in (
        (key_file, encoded),
        (certificate_file, certificate.public_bytes(serialization.Encoding.PEM)),
    ):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_KEY": str(key_file),
        "RAY_TLS_SERVER_CERT": str(certificate_file),
        "RAY_TLS_CA_CERT": str(certificate_file),
    }
