"""The `neuroweaver` command as a process: what it prints and how it ends."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any


@dataclass
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run(address: str, *arguments: str, stdin: str = "", **environment: str) -> Ended:
    """Run `neuroweaver` with `arguments` against the services at `address`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli.main", *arguments,
        env={**os.environ, "NEUROWEAVER_HTTP": address, "COLUMNS": "200", **environment},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(stdin.encode())
    return Ended(process.returncode, out.decode(), err.decode())
