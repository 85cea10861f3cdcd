"""Carries the openai SDK's requests to a judge, bounded in size and time; only headers listed here pass either way.

The SDK reads its own settings from the environment (headers, an organisation, a key) and describes this machine in each
request; a response may contain cookies and instructions to retry. The author of the job chose the endpoint.
"""

import asyncio

import httpx2

_SENT = ("Host", "Content-Type", "Content-Length", "Accept")
_RECEIVED = ("Content-Type", "Retry-After")


class AnswerRefused(Exception):
    """The response is not one that a judge gives; the message quotes nothing of it. The SDK does not retry."""


class JudgeTransport(httpx2.AsyncBaseTransport):
    """Sends the key, and nothing else that the SDK adds; reads the whole response before the SDK sees it."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, key: str | None, seconds: float, bytes_at_most: int) -> None:
        """`seconds` and `bytes_at_most` limit one response; the time includes all of its parts."""
        self._inner, self._key, self._seconds, self._limit = inner, key, seconds, bytes_at_most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises AnswerRefused, the errors of `inner`, and httpx2.ReadTimeout if the response is not complete in time."""
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._inner.handle_async_request(self._sent(request))
                try:
                    content = await self._content(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no complete answer within {self._seconds:g} s") from None
        return httpx2.Response(response.status_code, headers=_listed(response.headers, _RECEIVED), content=content)

    def _sent(self, request: httpx2.Request) -> httpx2.Request:
        headers = {**_listed(request.headers, _SENT), "Accept-Encoding": "identity", "User-Agent": "neuroweaver"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )

    async def _content(self, response: httpx2.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise AnswerRefused("it is compressed, although the request does not allow it")
        read = bytearray()
        async for block in response.aiter_raw():
            read += block
            if len(read) > self._limit:
                raise AnswerRefused(f"it is longer than {self._limit} bytes")
        return bytes(read)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _listed(headers: httpx2.Headers, names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
