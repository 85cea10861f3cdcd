"""Reads what a server sends without end in bounds."""

import httpx2


async def bounded(answer: httpx2.Response, most: int) -> bytes | None:
    """Return the body of an answer that is streamed; None, as soon as it is known, for one of more than `most` bytes."""
    body = bytearray()
    async for data in answer.aiter_bytes():
        body += data
        if len(body) > most:
            return None
    return bytes(body)
