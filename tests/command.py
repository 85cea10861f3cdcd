"""The `neuroweaver` command as a process: what it prints and how it ends."""

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm


@dataclass
class Ended:
    """The result of a command."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run(address: str, *arguments: str, stdin: str = "", **environment: str) -> Ended:
    """Run `neuroweaver` with `arguments` against the services at `address`."""
    wanted = {**os.environ, "NEUROWEAVER_HTTP": address, "COLUMNS": "200", **environment}
    return await asyncio.to_thread(ended, arguments, wanted, stdin)


def ended(arguments: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> Ended:
    """Run `neuroweaver` with these arguments and only this environment."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        code = warm.run(arguments, environment, [file.fileno() for file in (given, out, err)])
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read().decode(), err.read().decode())


def unread(arguments: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run `neuroweaver` with an output whose reader has closed it."""
    reads, writes = os.pipe()
    os.close(reads)
    with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as err:
        code = warm.run(arguments, environment, [nothing.fileno(), writes, err.fileno()])
        os.close(writes)
        err.seek(0)
        return Ended(code, "", err.read().decode())
