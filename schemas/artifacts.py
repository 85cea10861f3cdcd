"""Defines references to artifacts: events never contain bulk data, only a reference with the digest that verifies it."""

from pydantic import Field

from schemas.base import Frozen

SHA256_PATTERN = r"^[0-9a-f]{64}$"


class ArtifactRef(Frozen):
    """A content-addressed directory: its location and the digest of its content."""

    uri: str = Field(description="fsspec URI of the directory: an absolute path, `file://` or `s3://`.")
    sha256: str = Field(pattern=SHA256_PATTERN, description="SHA-256 of the directory's manifest, lower-case hex.")
    size: int = Field(ge=0, description="Sum of the sizes of all files in bytes, without the manifest.")


class ManifestEntry(Frozen):
    """One file of an artifact."""

    path: str = Field(description="POSIX path relative to the artifact's root, without `..`.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=SHA256_PATTERN, description="SHA-256 of the content, lower-case hex.")


class Manifest(Frozen):
    """The files of an artifact, sorted by path. `ArtifactRef.sha256` is the digest of its canonical JSON."""

    files: tuple[ManifestEntry, ...] = Field(description="Every file except the manifest itself, sorted by path.")
