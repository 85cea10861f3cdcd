"""Caches HTTP responses as bytes, keyed by the content of the rows that they are made from.

A response is a pure function of that content, so a cached one is never older than the rows.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import TypeVar

from fastapi import Response
from pydantic import BaseModel

from services.chassis.serving.web.offloading import in_thread_if_large

JSON = "application/json"
_KEPT_BYTES = 16 * 2**20
_KEEPING_BYTES = 1024
"""Bytes that a cached response takes besides its text and that of the rows: table entries, times, small numbers."""
_Content = TypeVar("_Content", bound=Hashable)


def json_answer(body: str | bytes) -> Response:
    """A response from text that is JSON already."""
    return Response(body, media_type=JSON)


def page_answer(items: list[str], cursor: str | None) -> Response:
    """The response for a page of a list, whose items are JSON already."""
    behind = "null" if cursor is None else f'"{cursor}"'  # a cursor has only characters that JSON needs not escape
    return json_answer(f'{{"items":[{",".join(items)}],"next":{behind}}}')


def size_of(*texts: str) -> int:
    """Bytes that texts take in memory: two or four per character in a text with a character beyond Latin-1."""
    return sum(map(getsizeof, texts))


class ResponseCache:
    """An LRU cache of one service's responses, limited to `limit` bytes including what they were made from."""

    def __init__(self, limit: int = _KEPT_BYTES) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[tuple[Callable[..., BaseModel], Hashable], tuple[bytes, int]] = OrderedDict()

    async def of(self, make: Callable[[_Content], BaseModel], content: _Content, size: int) -> Response:
        """The response of `make`, a pure function, for the `content` of rows of `size` bytes (see `size_of`)."""
        key = (make, content)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return json_answer(kept[0])
        body = await in_thread_if_large(size, _made, make, content)
        if key not in self._kept and (together := size + len(body) + _KEEPING_BYTES) <= self._limit:
            self._kept[key] = (body, together)
            self._size += together
        while self._size > self._limit:
            _, (_, gone) = self._kept.popitem(last=False)
            self._size -= gone
        return json_answer(body)


def _made(make: Callable[[_Content], BaseModel], content: _Content) -> bytes:
    return make(content).model_dump_json().encode()
