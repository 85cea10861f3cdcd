"""Decompresses batches up to a bound, since 300 KB of gzip can become 300 MB of records."""

import zlib
from collections.abc import Callable, Mapping

import cramjam

Decompress = Callable[[memoryview, int], bytearray]
"""Takes the payload and the most bytes that it may become."""

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_LEAST_ROOM = 16 * 1024
_GROWTH = 8
_MEMBERS = 100
"""The most members of a gzip stream; a producer writes one. The rest of the stream is copied once for each member."""


class TooLarge(ValueError):
    """The decompressed data exceed the bound."""

    def __init__(self, bound: int) -> None:
        super().__init__(f"it becomes more than {bound} bytes when it is decompressed")


def gzip(payload: memoryview, bound: int) -> bytearray:
    """RFC 1952, of one member or several. Raises TooLarge, ValueError, zlib.error and EOFError."""
    out = bytearray()
    rest: bytes | memoryview = payload
    for _ in range(_MEMBERS):
        if not rest:
            return out
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(rest, bound + 1 - len(out))
        if len(out) > bound or member.unconsumed_tail:
            raise TooLarge(bound)
        if not member.eof:
            raise EOFError("the gzip stream ends before its end")
        rest = member.unused_data.lstrip(b"\x00")  # padding is allowed between members and after the last
    if rest:
        raise ValueError(f"the gzip stream has more than {_MEMBERS} members")
    return out


def snappy(payload: memoryview, bound: int) -> bytearray:
    """Raw snappy, or blocks of it as the Java clients write them. Raises TooLarge and ValueError."""
    if bytes(payload[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(payload, bound)
    out = bytearray()
    at = _XERIAL_HEAD
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        out += _snappy_block(payload[at + 4 : at + 4 + size], bound - len(out))
        at += 4 + size
    return out


def _snappy_block(block: memoryview, bound: int) -> bytearray:
    raw = bytes(block)
    if cramjam.snappy.decompress_raw_len(raw) > bound:
        raise TooLarge(bound)
    return bytearray(cramjam.snappy.decompress_raw(raw))


def lz4(payload: memoryview, bound: int) -> bytearray:
    """LZ4 frames. Raises TooLarge and ValueError."""
    return _into_room(cramjam.lz4.decompress_into, payload, bound)


def zstd(payload: memoryview, bound: int) -> bytearray:
    """Zstandard frames. Raises TooLarge and ValueError."""
    return _into_room(cramjam.zstd.decompress_into, payload, bound)


def _into_room(decompress_into: Callable[[bytes, bytearray], int], payload: memoryview, bound: int) -> bytearray:
    """Decompress with a codec that needs a buffer and fails if it is too small: the buffer grows up to the bound."""
    raw = bytes(payload)
    size = min(max(_LEAST_ROOM, _GROWTH * len(raw)), bound)
    while True:
        room = bytearray(size)
        try:
            del room[decompress_into(raw, room) :]
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise ValueError(str(error)) from None
            if size == bound:
                raise TooLarge(bound) from None
            size = min(_GROWTH * size, bound)
        else:
            return room


CODECS: Mapping[int, tuple[str, Decompress]] = {
    1: ("gzip", gzip),
    2: ("snappy", snappy),
    3: ("lz4", lz4),
    4: ("zstd", zstd),
}
"""Decompressors by the number in the lowest three bits of a batch's attributes."""
