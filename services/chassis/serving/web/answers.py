"""Answers made once: bytes from the start, and kept for whoever asks for the same while the rows behind it say the same.

An answer is a pure function of what rows say, and is found again by exactly that, so that it can be no older than they are.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import TypeVar

from fastapi import Response
from pydantic import BaseModel

from services.chassis.serving.web.beside import beside_the_loop

JSON = "application/json"
_KEPT_BYTES = 16 * 2**20
_KEEPING_BYTES = 1024
"""What keeping an answer takes besides its text and the rows': places in tables, times, small numbers."""
_Said = TypeVar("_Said", bound=Hashable)


def json_answer(body: str | bytes) -> Response:
    """An answer whose JSON is made already."""
    return Response(body, media_type=JSON)


def page_answer(items: list[str], cursor: str | None) -> Response:
    """A page of a list, whose items are JSON already."""
    behind = "null" if cursor is None else f'"{cursor}"'  # a cursor is made of letters that JSON takes as they are
    return json_answer(f'{{"items":[{",".join(items)}],"next":{behind}}}')


def size_of(*texts: str) -> int:
    """Bytes that texts of rows take: of one with a sign beyond Latin-1, two or four for each of its signs."""
    return sum(map(getsizeof, texts))


class Answers:
    """The answers of one service that were asked for last: of `limit` bytes together with what they were made from."""

    def __init__(self, limit: int = _KEPT_BYTES) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[tuple[Callable[..., BaseModel], Hashable], tuple[bytes, int]] = OrderedDict()

    async def of(self, make: Callable[[_Said], BaseModel], said: _Said, size: int) -> Response:
        """What `make`, a pure function, makes of what rows say that take `size` bytes, as `size_of` has it."""
        key = (make, said)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return json_answer(kept[0])
        body = await beside_the_loop(size, _made, make, said)
        if key not in self._kept and (together := size + len(body) + _KEEPING_BYTES) <= self._limit:
            self._kept[key] = (body, together)
            self._size += together
        while self._size > self._limit:
            _, (_, gone) = self._kept.popitem(last=False)
            self._size -= gone
        return json_answer(body)


def _made(make: Callable[[_Said], BaseModel], said: _Said) -> bytes:
    return make(said).model_dump_json().encode()
