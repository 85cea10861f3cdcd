"""An answer's headers leave with the beginning of its body: one system call, and one packet, where uvicorn makes two.

What is written is held until something more is, until the transport is closed, or until the event loop goes on: whoever has only
headers to say so far, as a stream of events has, says them at once all the same.
"""

import asyncio
from typing import Any

_JOINED_BYTES = 64 * 1024
"""A larger body costs more to copy than the call that is saved."""


class Together:
    """A transport whose small writes within one turn of the loop leave in pairs."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As of a transport."""
        if not data:
            return
        if self._held:
            held, self._held = self._held, b""
            if len(data) <= _JOINED_BYTES:
                self._transport.write(held + data)
                return
            self._transport.write(held)
            self._transport.write(data)
        elif len(data) > _JOINED_BYTES:
            self._transport.write(data)
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """As of a transport: what is held is said before."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """As of a transport: what is held is never said."""
        self._held = b""
        self._transport.abort()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
