"""A file that is no text is refused by what it is, not by what its bytes look like as rows."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.sources import read
from tests.allowed import IN_TESTS

ROWS = b'{"prompt": "a", "completion": "b"}\n' * 3


# Each case has an id of its own: an id made from compressed bytes differs with the clock, and two test processes then
# collect different tests.
OF_ANOTHER_KIND = [
    pytest.param(gzip.compress(ROWS), "gzip", id="gzip"),
    pytest.param(bz2.compress(ROWS), "bzip2", id="bzip2"),
    pytest.param(lzma.compress(ROWS), "xz", id="xz"),
    pytest.param(b"PK\x03\x04" + bytes(60), "spreadsheet", id="spreadsheet"),
    pytest.param(b"PAR1" + bytes(60), "Parquet", id="parquet"),
    pytest.param(b"SQLite format 3\x00" + bytes(60), "SQLite", id="sqlite"),
    pytest.param(b"%PDF-1.7\n", "PDF", id="pdf"),
    pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull", id="lfs"),
    pytest.param(b"<!DOCTYPE html><html></html>", "web page", id="web"),
    pytest.param(ROWS.decode().encode("utf-16-le"), "UTF-16 text without a byte order mark", id="utf-16-le"),
    pytest.param(ROWS.decode().encode("utf-16-be"), "UTF-16 text without a byte order mark", id="utf-16-be"),
]


@pytest.mark.parametrize(("content", "what"), OF_ANOTHER_KIND)
@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, what: str, form: str) -> None:
    path = tmp_path / f"all.{form}"
    path.write_bytes(content)
    with pytest.raises(UserFault) as raised:
        read(DatasetSettings.model_validate({"reference": str(path), "format": form}), tmp_path / "cache", IN_TESTS)
    (reason,) = raised.value.reasons
    assert reason.field == "dataset.reference"
    assert what in f"{reason.message} {reason.remedy}"


@pytest.mark.parametrize(
    "content", [b"", b"{}", '{"prompt": "\u4f60\u597d", "completion": "b"}'.encode()], ids=["empty", "object", "wide"]
)
def test_text_is_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "all.jsonl"
    path.write_bytes(content)
    read(DatasetSettings(reference=str(path)), tmp_path / "cache", IN_TESTS)
