"""Roots and proofs are those of RFC 6962: the vectors of Certificate Transparency, and what must hold for any tree."""

import gc
import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.merkle import EMPTY_ROOT, Tree, audit_path, audit_paths, leaf_hash, node_hash, root_of_path, siblings

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Of the first 0 to 8 leaves; the test data of the Certificate Transparency reference implementation."""
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
"""Audit paths of the same test data, by index of the leaf and size of the tree."""


def tree(leaves: list[bytes]) -> Tree:
    made = Tree()
    for leaf in leaves:
        made.add(leaf_hash(leaf))
    return made


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert tree(LEAVES[:size]).root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_paths_are_those_of_certificate_transparency(index: int, size: int) -> None:
    path = audit_path(map(leaf_hash, LEAVES), index, size)
    assert [sibling.sha256 for sibling in path] == PATHS[index, size]


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_a_tree_that_grew_leaf_by_leaf_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    assert tree(leaves).root() == by_definition(leaves)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_every_leaf_has_a_path_to_the_root_and_no_other_leaf_has_it(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = audit_path(map(leaf_hash, leaves), index, len(leaves))
    root = tree(leaves).root()
    assert root_of_path(leaf_hash(leaves[index]), path) == root
    other = data.draw(st.binary(max_size=8).filter(lambda leaf: leaf != leaves[index]))
    assert root_of_path(leaf_hash(other), path) != root


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70, unique=True), st.data())
def test_several_paths_come_from_one_reading_and_fit_one_index_only(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    wanted = data.draw(st.sets(st.integers(0, len(leaves) - 1)))
    root, paths = audit_paths(iter(hashes), wanted, len(leaves))
    assert (root, set(paths)) == (tree(leaves).root(), wanted)
    for index, path in paths.items():
        assert path == audit_path(hashes, index, len(leaves))
        known = [sibling.sha256 for sibling in path]
        assert siblings(index, len(leaves), known) == path
        for other in range(len(leaves)):
            moved = siblings(other, len(leaves), known)
            assert other == index or moved is None or root_of_path(hashes[index], moved) != root


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40, unique=True), st.data())
def test_whatever_is_altered_dropped_added_or_moved_leads_to_another_root(leaves: list[bytes], data: st.DataObject) -> None:
    root = tree(leaves).root()
    index = data.draw(st.integers(0, len(leaves) - 1))
    altered = [*leaves[:index], leaves[index] + b"!", *leaves[index + 1 :]]
    dropped = [*leaves[:index], *leaves[index + 1 :]]
    added = [*leaves[:index], b"new leaf that no other is", *leaves[index:]]
    moved = [*leaves[1:], leaves[0]]
    for changed in (altered, dropped, added, moved):
        assert changed == leaves or tree(changed).root() != root


def test_a_leaf_that_looks_like_a_node_is_not_taken_for_it() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_a_tree_keeps_no_more_than_the_roots_of_its_subtrees() -> None:
    made = Tree()
    for number in range(100_000):
        made.add(leaf_hash(str(number).encode()))
        assert len(made._subtrees) <= 17
    assert Tree().root() == EMPTY_ROOT


def test_a_path_is_not_made_for_a_leaf_that_is_not_there_or_from_too_few_leaves() -> None:
    with pytest.raises(ValueError, match="does not exist among 3"):
        audit_path([], 3, 3)
    with pytest.raises(ValueError, match="fewer than 4"):
        audit_path(map(leaf_hash, LEAVES[:3]), 0, 4)


def test_whoever_gives_the_leaves_is_let_go_at_once() -> None:
    """A file from which they come is closed then, and not when the garbage collector finds it."""
    closed = []

    def leaves() -> Iterator[bytes]:
        try:
            yield from map(leaf_hash, LEAVES)
        finally:
            closed.append(True)

    gc.disable()
    try:
        audit_path(leaves(), 1, len(LEAVES))
        assert closed
    finally:
        gc.enable()
