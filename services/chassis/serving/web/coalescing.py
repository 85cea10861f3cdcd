"""Sends a response's headers together with the start of its body: one system call and one packet, where uvicorn makes two.

A write is held until the next write, until the transport is closed, or until the event loop continues. So a response that
has only headers at first, such as a stream of events, still sends them at once.
"""

import asyncio
from typing import Any

_JOINED_BYTES = 64 * 1024
"""Copying a larger body costs more than the system call that is saved."""


class CoalescingTransport:
    """A transport that sends small writes of one loop iteration in pairs."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write to the transport, now or together with the next write."""
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
        """Close the transport after sending the held write."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Abort the transport; the held write is never sent."""
        self._held = b""
        self._transport.abort()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
