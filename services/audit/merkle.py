"""Computes Merkle tree roots of record sequences, and audit paths that prove a record is included (RFC 6962, section 2.1).

Pure. Leaf hashes are read once as a stream, so memory grows with the logarithm of their number.
https://www.rfc-editor.org/rfc/rfc6962#section-2.1
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

from pydantic import Field

from schemas.base import Frozen

_LEAF, _NODE = b"\x00", b"\x01"
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of a sequence without records."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of one leaf; its prefix distinguishes it from the hash of a node."""
    return hashlib.sha256(_LEAF + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node, from the hashes of its two subtrees."""
    return hashlib.sha256(_NODE + left + right).digest()


class Tree:
    """A tree that grows leaf by leaf and stores only the roots of its complete subtrees."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append one leaf by its hash."""
        size, subtree = self.size, leaf
        while size & 1:
            subtree = node_hash(self._subtrees.pop(), subtree)
            size >>= 1
        self._subtrees.append(subtree)
        self.size += 1

    def root(self) -> bytes:
        """Merkle tree hash of the leaves so far."""
        if not self._subtrees:
            return EMPTY_ROOT
        root = self._subtrees[-1]
        for subtree in reversed(self._subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


class Sibling(Frozen):
    """One hash on the way from a leaf to the root."""

    side: Literal["left", "right"] = Field(description="Side of the path on which the hash is.")
    sha256: str = Field(description="Lower-case hex.")


def audit_path(leaves: Iterable[bytes], index: int, size: int) -> tuple[Sibling, ...]:
    """Return the sibling hashes from leaf `index` up to the root of the first `size` leaves, lowest first.

    `leaves` are the hashes of all leaves, in order. Raises ValueError if they are fewer or `index` is out of range.
    """
    return audit_paths(leaves, (index,), size)[1][index]


def audit_paths(leaves: Iterable[bytes], indexes: Iterable[int], size: int) -> tuple[bytes, dict[int, tuple[Sibling, ...]]]:
    """Return the root of the first `size` leaves, and the audit path of each of `indexes`.

    The hashes in `leaves` are read once, in order. Raises ValueError if they are fewer or an index is out of range.
    """
    wanted = sorted(set(indexes))
    if out := [index for index in wanted if not 0 <= index < size]:
        raise ValueError(f"leaf {out[0]} does not exist among {size}")
    paths: dict[int, list[Sibling]] = {index: [] for index in wanted}
    found = _root(iter(leaves), wanted, paths, (0, size), size)
    return found, {index: tuple(path) for index, path in paths.items()}


def _root(
    hashes: Iterator[bytes], wanted: Sequence[int], paths: Mapping[int, list[Sibling]], span: tuple[int, int], size: int
) -> bytes:
    """Return the root of the next hashes, which are the leaves `span`, and add what belongs to the paths of those `wanted` in it.

    It is no inner function: that would refer to itself, and keep the file open from which the hashes come.
    """
    start, end = span
    inside = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
    if not inside or end - start == 1:
        return _root_of_next(hashes, end - start, size)
    middle = _middle(start, end)
    left, right = (_root(hashes, wanted, paths, part, size) for part in ((start, middle), (middle, end)))
    for index in inside:
        paths[index].append(_sibling("right", right) if index < middle else _sibling("left", left))
    return node_hash(left, right)


def _root_of_next(hashes: Iterator[bytes], count: int, size: int) -> bytes:
    tree = Tree()
    for leaf in islice(hashes, count):
        tree.add(leaf)
    if tree.size < count:
        raise ValueError(f"there are fewer than {size} leaves")
    return tree.root()


def _sibling(side: Literal["left", "right"], sha256: bytes) -> Sibling:
    return Sibling(side=side, sha256=sha256.hex())


def siblings(index: int, size: int, hashes: Sequence[str]) -> tuple[Sibling, ...] | None:
    """Return the path of leaf `index` among `size` whose siblings have these hashes, lowest first; None if a path there has another
    length. So an index cannot be that of another leaf."""
    if not 0 <= index < size:
        return None
    spans = list(_spans(index, 0, size))
    if len(spans) != len(hashes):
        return None
    return tuple(
        Sibling(side="left" if start < index else "right", sha256=sha256)
        for (start, _), sha256 in zip(spans, hashes, strict=True)
    )


def _middle(start: int, end: int) -> int:
    """Return where RFC 6962 divides a range: the left part is the largest power of two below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _spans(index: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of leaves whose roots form the path of `index`, lowest first."""
    if end - start == 1:
        return
    middle = _middle(start, end)
    if index < middle:
        yield from _spans(index, start, middle)
        yield middle, end
    else:
        yield from _spans(index, middle, end)
        yield start, middle


def root_of_path(leaf: bytes, path: Sequence[Sibling]) -> bytes:
    """Return the root that results from a leaf's hash and `path`."""
    at = leaf
    for sibling in path:
        other = bytes.fromhex(sibling.sha256)
        at = node_hash(other, at) if sibling.side == "left" else node_hash(at, other)
    return at
