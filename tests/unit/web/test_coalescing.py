"""Headers and the beginning of a body leave in one write; nothing is held longer than a turn of the loop, or said in another order."""

import asyncio
from typing import cast

from services.chassis.serving.web.coalescing import CoalescingTransport


class Wire:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def close(self) -> None:
        self.said.append("closed")

    def abort(self) -> None:
        self.said.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.said


def together(wire: Wire) -> CoalescingTransport:
    return CoalescingTransport(cast(asyncio.Transport, wire), asyncio.get_running_loop())


async def test_headers_leave_with_the_body_in_one_write() -> None:
    wire = Wire()
    transport = together(wire)
    for part in (b"headers ", b"body", b""):
        transport.write(part)
    assert wire.said == [b"headers body"]
    await asyncio.sleep(0)
    assert wire.said == [b"headers body"]


async def test_headers_without_a_body_leave_as_soon_as_the_loop_goes_on() -> None:
    wire = Wire()
    together(wire).write(b"headers")
    assert wire.said == []
    await asyncio.sleep(0)
    assert wire.said == [b"headers"]


async def test_a_large_body_is_not_copied_and_comes_behind_its_headers() -> None:
    wire, large = Wire(), b"x" * 100_000
    transport = together(wire)
    transport.write(b"headers")
    transport.write(large)
    transport.write(b"end")
    await asyncio.sleep(0)
    assert wire.said == [b"headers", large, b"end"]


async def test_what_is_held_is_said_before_the_end_and_never_after_an_abort() -> None:
    closed, aborted = Wire(), Wire()
    transport = together(closed)
    transport.write(b"last words")
    transport.close()
    assert closed.said == [b"last words", "closed"]
    assert transport.is_closing()
    transport = together(aborted)
    transport.write(b"never said")
    transport.abort()
    await asyncio.sleep(0)
    assert aborted.said == ["aborted"]
