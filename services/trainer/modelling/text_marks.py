"""Refuses texts of a model that begin with a byte order mark, which editors write and which neither JSON nor a template has."""

import codecs
from pathlib import Path

from services.trainer.modelling.base_files import BaseFault

_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"), (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip


def refuse_marks(folder: Path) -> None:
    """Raise BaseFault for the first such file. The library reads JSON with one as damaged, and a template's as a character of the prompt."""
    for pattern in ("*.json", "*.jinja"):
        for file in sorted(folder.glob(pattern)):
            if (encoding := _marked(file)) is not None:
                what = f"its file {file.name} begins with a byte order mark ({encoding})"
                raise BaseFault(what, "save the file as UTF-8 without a byte order mark")


def _marked(file: Path) -> str | None:
    """Return the encoding that a file's mark names; None if it has no mark or is no file."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        head = opened.read(4)
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
