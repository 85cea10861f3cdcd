"""Certificates for a server on loopback and for a client, signed by an authority that is made for the test."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.devstack.ports import LOOPBACK

_DAY = datetime.timedelta(days=1)


def certificates(folder: Path) -> None:
    """Create an authority with certificates for the broker and for a client, and another authority that signs nothing
    here."""
    authority, key = _signed("authority", None)
    _write(folder / "ca.pem", authority)
    _write(folder / "other-ca.pem", _signed("another authority", None)[0])
    for name, subject in (("server", LOOPBACK), ("client", "admin")):
        certificate, own = _signed(subject, (authority, key))
        _write(folder / f"{name}.pem", own, certificate, authority)


_Key = ec.EllipticCurvePrivateKey


def _signed(name: str, by: tuple[x509.Certificate, _Key] | None) -> tuple[x509.Certificate, _Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    made = (
        x509.CertificateBuilder(by[0].subject if by else subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(address, critical=False)
        .sign(by[1] if by else key, hashes.SHA256())
    )
    return made, key


def _write(path: Path, *parts: x509.Certificate | _Key) -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        b"".join(
            part.public_bytes(pem)
            if isinstance(part, x509.Certificate)
            else part.private_bytes(pem, pkcs8, serialization.NoEncryption())
            for part in parts
        )
    )
