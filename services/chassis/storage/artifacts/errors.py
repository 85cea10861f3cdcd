"""The errors of artifacts, and how errors of file systems and libraries become one of them: corrupt, missing, away or refused."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import PurePosixPath

import fsspec

from services.chassis.process.transient import described
from services.chassis.storage.stores import foreign

MANIFEST = "manifest.json"
"""Name of the manifest in the folder of an artifact."""


class ArtifactCorrupt(Exception):
    """An artifact differs from what its reference promises and is not used; the message names the file and the remedy."""

    def __init__(self, uri: str, file: str, expected: str, found: str) -> None:
        super().__init__(
            f"artifact {uri}: file {file}: expected {expected}, found {found}; "
            "restore the folder from a copy, or delete it and run the step that made it again"
        )
        self.uri, self.file, self.expected, self.found = uri, file, expected, found


class ArtifactMissing(ArtifactCorrupt):
    """The store exists, but it holds no artifact at the reference."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri, MANIFEST, "a file", "nothing: the artifact is missing")


class ArtifactErased(ArtifactCorrupt):
    """Rows of the artifact were erased, so that some of its files are gone; what remains of it is another artifact."""

    def __init__(self, uri: str, remains: str) -> None:
        super().__init__(uri, MANIFEST, "an artifact of which no row was erased", "one with rows that were erased")
        self.args = (f"artifact {uri}: rows of it were erased; read what remains of it, {remains}",)


class StoreAway(OSError):
    """The store does not answer or does not exist; nothing is known about the artifact, and a retry may help."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"artifact store of {uri}: {why}; restore it, or correct NEUROWEAVER_ARTIFACTS")


class ArtifactRefused(ValueError):
    """A folder cannot become an artifact."""


@contextlib.contextmanager
def missing_file_errors(uri: str, file: str) -> Iterator[None]:
    """Turn the error of a missing file into StoreAway, ArtifactMissing or ArtifactCorrupt, and that of a link into ArtifactCorrupt."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if not _store_is_there(uri):
            raise StoreAway(uri, "its folder sha256 is not there") from error
        if file == MANIFEST:
            raise ArtifactMissing(uri) from error
        raise ArtifactCorrupt(uri, file, "a file", "nothing") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ArtifactCorrupt(uri, file, "a regular file", "a link") from error


def _store_is_there(uri: str) -> bool:
    """Whether the folder of all artifacts exists.

    Without it (empty mount point, removed bucket) no artifact counts as missing.
    """
    fs, root = fsspec.url_to_fs(uri)
    fs.invalidate_cache()
    return bool(fs.exists(str(PurePosixPath(str(root)).parent.parent)))


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a remote store's libraries raise into StoreAway, except errors that state what the store answered."""
    try:
        yield
    except (ArtifactCorrupt, StoreAway, FileNotFoundError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not foreign(type(error)):
            raise
        raise StoreAway(uri, f"it does not answer: {described(error)}") from error
