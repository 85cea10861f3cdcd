"""Many readers of server-sent events, in a process of their own, on plain sockets, so that reading costs the server nothing."""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

_AT_ONCE = 50
_CONNECT_SECONDS = 120


@dataclass
class Heard:
    """What all listeners have received so far."""

    listening: int = 0
    refused: int = 0
    lost: int = 0
    events: dict[str, int] = field(default_factory=dict)


async def listen(port: int, path: str, heard: Heard, opening: asyncio.Semaphore) -> None:
    """Listen until this is cancelled or the server ends the stream."""
    async with opening:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            async with asyncio.timeout(_CONNECT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 200 " not in head.split(b"\r\n", 1)[0]:
                    heard.refused += 1
                    return
                await reader.readuntil(b"event: job\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            heard.refused += 1
            return
    heard.listening += 1
    try:
        async for line in reader:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
                heard.events[name] = heard.events.get(name, 0) + 1
    except (OSError, ValueError):
        pass
    finally:
        heard.listening -= 1
    heard.lost += 1


async def main(port: int, paths: list[str]) -> None:
    """Print what was received as JSON for each line of standard input; end when that ends."""
    heard, opening = Heard(), asyncio.Semaphore(_AT_ONCE)
    listeners = [asyncio.create_task(listen(port, path, heard, opening)) for path in paths]
    while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        said: dict[str, Any] = vars(heard)
        print(json.dumps(said), flush=True)
    for listener in listeners:
        listener.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
