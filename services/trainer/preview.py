"""Shows what a job would learn from a data set: rows as tokens, statistics, and everything that `prepare` finds, without a job."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.lines import Row, split_file
from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.artifacts.erasing import erased_ids
from services.chassis.storage.sources.allowed import AllowedSources
from services.language_models.chat_format.chat import Chat, ChatFault, Tokens
from services.trainer.data.layouts import Learns, RowReading
from services.trainer.data.prepared import Prepared, prepare_rows
from services.trainer.data.sources import Source, read
from services.trainer.data.stored import read_stored

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_BYTES_AT_MOST = 4
"""The longest character in UTF-8; some tokenizers divide one into several tokens."""


class Piece(NamedTuple):
    """One token; several where one character is divided into them."""

    ids: tuple[int, ...]
    text: str
    learnt: bool


class PreviewedRow(NamedTuple):
    """One row of the training split."""

    id: str
    tokens: int
    learnt: int
    """How many of the tokens are supervised."""
    cut: int
    """How many tokens `max_length` cuts away."""
    pieces: Sequence[Piece]


class Preview(NamedTuple):
    """What a job would learn, and what it would say."""

    layout: str
    metrics: Mapping[str, float]
    notes: Sequence[str]
    refused: Sequence[Reason]
    """Why a job would refuse the data set; empty if it would not."""
    rows: Sequence[PreviewedRow]


def preview(
    settings: DatasetSettings,
    base: Path,
    max_length: int,
    learns: Learns,
    number: int,
    cache: Path,
    allowed: AllowedSources,
    stored: tuple[Path, Path | None] | None = None,
) -> Preview:
    """Read the whole data set as `prepare` does, and return its first `number` rows. `stored` has the folders of a registered data set with
    its rows, and with their pairs or labels.

    Rows are shown even where a job would refuse the data set for its bad or long rows. Raises UserFault if none can be.
    """
    try:
        chat = Chat(base)
    except ChatFault as fault:
        remedy = "name a model that was tuned for chats"
        raise UserFault(Reason(field="base_model", value=base.name, message=str(fault), remedy=remedy)) from fault

    def prepared(settings: DatasetSettings) -> tuple[Prepared, list[PreviewedRow]]:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as preferences:
            source, reading, erased = _source(settings, learns, cache, allowed, stored)
            made = prepare_rows(
                source,
                settings,
                learns,
                chat,
                max_length,
                Path(folder),
                Path(preferences),
                lambda done, of: None,
                learnt=learns != "prompts",
                reading=reading,
                erased_before=erased,
            )
            with (Path(folder) / split_file("train")).open(encoding="utf-8") as lines:
                rows = [Row.model_validate_json(line) for line in itertools.islice(lines, number)]
        return made, [
            _previewed(row, tokens, chat, max_length) for row, tokens in zip(rows, chat.encode(rows), strict=True)
        ]

    refused: Sequence[Reason] = ()
    try:
        made, rows = prepared(settings)
    except UserFault as fault:
        lenient = {"on_bad_row": "skip", "bad_rows_limit": 1.0, "on_long_row": "cut"}
        refused = fault.reasons
        try:
            made, rows = prepared(settings.model_copy(update=lenient))
        except UserFault:
            raise fault from None
    return Preview(made.reading.words, made.metrics, made.notes, refused, rows)


def _source(
    settings: DatasetSettings, learns: Learns, cache: Path, allowed: AllowedSources, stored: tuple[Path, Path | None] | None
) -> tuple[Source, RowReading | None, int]:
    """Return the rows, how those of a registered data set were read, and how many were erased from it."""
    if stored is None:
        return read(settings, cache, allowed), None, 0
    rows, preferences = stored
    source, reading, _ = read_stored(settings, learns, rows, preferences)
    return source, reading, len(erased_ids(rows))


def _previewed(row: Row, tokens: Tokens, chat: Chat, max_length: int) -> PreviewedRow:
    kept = tokens.cut(max_length)
    return PreviewedRow(row.id, len(kept), kept.supervised, len(tokens) - len(kept), list(_pieces(kept, chat)))


def _pieces(tokens: Tokens, chat: Chat) -> Iterator[Piece]:
    """Yield the tokens with their texts; tokens that are parts of one character are one piece."""
    held: list[int] = []
    for place, (token, learnt) in enumerate(zip(tokens.ids, tokens.learnt, strict=True), 1):
        held.append(token)
        text = str(chat.tokenizer.decode(held))
        ends = place == len(tokens.ids) or tokens.learnt[place] != learnt
        if _UNFINISHED not in text or len(held) == _BYTES_AT_MOST or ends:
            yield Piece(tuple(held), text, learnt)
            held = []
