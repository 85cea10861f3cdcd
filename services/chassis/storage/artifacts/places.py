"""Says where an artifact lies: in its store, and as a copy in a cache."""

from pathlib import Path


def place_in(root: str, digest: str) -> str:
    """Return the folder of an artifact in the store at `root`."""
    return f"{root}/sha256/{digest[:2]}/{digest}"


def copy_in(cache: Path, digest: str) -> Path:
    """Return the folder of its copy in a cache."""
    return cache / "artifacts" / digest[:2] / digest
