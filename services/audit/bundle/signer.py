"""Tells whose signature a bundle has: that of a key which the reader trusts, or only that of the key which lies in the bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.audit.bundle.documents import KEY
from services.audit.bundle.dsse import Envelope, NoKey, key_id, public_key_in, public_pem
from services.audit.bundle.examination import Examination
from services.audit.bundle.faults import Differs
from services.audit.bundle.reading import content
from services.audit.bundle.statement import STATEMENT

_NAME = "signature"


class Signer(NamedTuple):
    """Whose key the signature is of."""

    whose: Literal["given", "bundle"] | None = None
    key_sha256: str | None = None


def signer_of(
    found: Examination, envelope: Envelope, folder: Path, names: Mapping[str, str], key: Ed25519PublicKey | None
) -> Signer:
    """Check the signature with `key`, or else with the bundle's own key, which is not trusted."""
    if key is not None:
        given = found.read(_NAME, lambda: _signed_by_given(envelope, key, folder, names), lambda _: "of the key you gave")
        return Signer("given", given) if given else Signer()
    if KEY not in names:
        found.leave_open(_NAME, "not checked: the bundle has no key; give --key")
        return Signer()
    try:
        digest = _signed(envelope, _key_in(folder), f"the key in {KEY}")
    except Differs as error:
        found.compare(_NAME, [error.difference], "")
        return Signer()
    found.leave_open(_NAME, "of the bundle's own key, which is not trusted: give --key")
    return Signer("bundle", digest)


def _signed_by_given(envelope: Envelope, key: Ed25519PublicKey, folder: Path, names: Mapping[str, str]) -> str:
    digest = _signed(envelope, key, "the key you gave")
    if KEY in names and (own := key_id(_key_in(folder))) != digest:
        raise Differs(KEY, f"a copy of the key you gave, {digest}", f"the key {own}")
    return digest


def _key_in(folder: Path) -> Ed25519PublicKey:
    raw = content(folder, KEY)
    try:
        key = public_key_in(raw, KEY)
    except NoKey as error:
        raise Differs(KEY, "a public key", str(error)) from None
    if raw != public_pem(key):
        raise Differs(KEY, "the one spelling of a public key", "another one")
    return key


def _signed(envelope: Envelope, key: Ed25519PublicKey, whose: str) -> str:
    if not envelope.signed_by(key):
        raise Differs(
            STATEMENT, f"a signature of {whose}, {key_id(key)}", f"none of it, keyid {envelope.signatures[0].keyid}"
        )
    return key_id(key)
