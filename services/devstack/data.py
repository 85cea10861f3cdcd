"""Checks whether a running server still has the data folder that it started with."""

import os
from pathlib import Path

from services.devstack.process import ServerProcess


class DataFolder:
    """The data folder's identity at the server's start, compared while it runs, since the folder may be replaced."""

    def __init__(self, path: Path) -> None:
        self._path, self._began = path, path.stat()

    def trouble(self, server: ServerProcess) -> str | None:
        """Return why the server is no longer usable, if so."""
        try:
            same = os.path.samestat(self._began, self._path.stat())
        except OSError:
            same = False
        if not same:
            return f"{self._path}, the data of {server.name}, was removed or replaced while it ran, and its content is lost"
        return None if server.running else f"{server.name} has ended; see {server.log}"
