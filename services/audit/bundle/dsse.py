"""Signs a statement in a DSSE envelope with an Ed25519 key, and checks it.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import Field

from schemas.base import Frozen
from services.audit.bundle.cited import readable

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_BYTES = 64 * 1024
KEYS = "make one: neuroweaver evidence keygen FILE, or openssl genpkey -algorithm ed25519 -out FILE"


class NoKey(Exception):
    """A file has no key that can be used; the message names it and the remedy."""


class Signature(Frozen):
    """One signature of an envelope."""

    keyid: str = Field(max_length=1000, description="SHA-256 of the public key (SubjectPublicKeyInfo, DER).")
    sig: str = Field(max_length=1000, description="Base64.")


class Envelope(Frozen):
    """A payload and who signed it."""

    payload: str = Field(description="Base64.")
    payloadType: str  # noqa: N815  # as DSSE names it
    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=1)

    def body(self) -> bytes:
        """Return the payload. Raises ValueError."""
        return base64.b64decode(self.payload, validate=True)

    def signed_by(self, key: Ed25519PublicKey) -> bool:
        """Return whether the signature is of this key and names it."""
        (signature,) = self.signatures
        return signature.keyid == key_id(key) and _valid(key, signature, encoded(self.payloadType, self.body()))


def _valid(key: Ed25519PublicKey, signature: Signature, signed: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature.sig, validate=True), signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def encoded(payload_type: str, body: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)


def sign(body: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope's file."""
    signature = base64.b64encode(key.sign(encoded(PAYLOAD_TYPE, body))).decode()
    envelope = Envelope(
        payload=base64.b64encode(body).decode(),
        payloadType=PAYLOAD_TYPE,
        signatures=(Signature(keyid=key_id(key.public_key()), sig=signature),),
    )
    return file_of(envelope)


def file_of(envelope: Envelope) -> bytes:
    """Return the one spelling of an envelope."""
    return readable(envelope.model_dump(mode="json"))


def key_id(key: Ed25519PublicKey) -> str:
    """Return the digest by which people compare keys."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as a PEM file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new_key() -> tuple[bytes, bytes]:
    """Return a new private key and its public key, as PEM files."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public_pem(key.public_key())


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs. Raises NoKey."""
    try:
        key = load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise NoKey(f"{path}: the key is encrypted, and bundles are signed without asking; decrypt it into a file that only you can "
                    f"read: openssl pkey -in {path} -out FILE") from None  # fmt: skip
    except (ValueError, UnsupportedAlgorithm):
        raise NoKey(f"{path}: this is no private key in PEM; {KEYS}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise NoKey(f"{path}: the key is not an Ed25519 key; {KEYS}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a key that checks. Raises NoKey."""
    return public_key_in(_read(path), str(path))


def public_key_in(pem: bytes, name: str) -> Ed25519PublicKey:
    """Return the public key in a PEM file. Raises NoKey."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        what = "it is a private key" if b"PRIVATE KEY" in pem else "this is no public key in PEM"
        raise NoKey(f"{name}: {what}; give the public one: openssl pkey -in PRIVATE -pubout -out FILE") from None
    if not isinstance(key, Ed25519PublicKey):
        raise NoKey(f"{name}: the key is not an Ed25519 key")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_KEY_BYTES)
    except OSError as error:
        raise NoKey(f"{path}: the key cannot be read ({error.strerror}); {KEYS}") from None
