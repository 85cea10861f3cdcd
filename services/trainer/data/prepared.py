"""Makes the files of a `dataset` artifact, and of `preferences`, from stored rows, one batch of rows in memory at a time."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from schemas.lines import Judged, Message, Preference, Row, Split, held_out_pairs_file, row_digests_file, split_file
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.model import AssistantTurns
from schemas.row_digest import row_digest
from services.chassis.storage.json_lines import json_line
from services.language_models.chat_format.chat import Chat, ChatFault, Tokens
from services.language_models.chat_format.tokens import answers_of
from services.trainer.data.columns import RowFault
from services.trainer.data.findings import RowFindings
from services.trainer.data.layouts import Learns, RowReading, reading_of
from services.trainer.data.mapping import example_of
from services.trainer.data.raw import RawRow, StoredExample
from services.trainer.data.remarks import remarks
from services.trainer.data.sources import Source
from services.trainer.data.splitting import prompt_key, split_of

_BATCH = 500
_LOOKED_AT = 100
_PAIRS: Mapping[Learns, str] = {"pairs": Preference.FILE, "labels": Judged.FILE}


@dataclass(frozen=True)
class Prepared:
    """What became of the rows."""

    reading: RowReading
    metrics: Mapping[str, float]
    notes: Sequence[str]
    """What a person should know about the rows, one sentence each."""
    splits: Sequence[Split]
    """The splits that were written; each is a file of its name."""
    most_supervised: int
    """The most tokens of a row that are learnt; of a pair, of one of its answers."""


Check = Callable[[str, Row, Tokens], None]
"""Is called with each row of the training split: its position, the row and its tokens. Raises RowFault for a bad one."""


class Watch(Protocol):
    """Hears after each batch how many rows of about how many are done; may raise to end the work."""

    def __call__(self, done: int, of: int, /) -> None: ...


def prepare_rows(
    source: Source,
    settings: DatasetSettings,
    learns: Learns,
    chat: Chat,
    max_length: int,
    folder: Path,
    preferences: Path,
    watch: Watch,
    *,
    turns: AssistantTurns = "all",
    learnt: bool = True,
    check: Check = lambda *_: None,
    reading: RowReading | None = None,
    erased: AbstractSet[str] = frozenset(),
    erased_before: int = 0,
) -> Prepared:
    """Write the rows of each split to `folder`, and the pairs of each split, or the labels of the training split, to
    `preferences`.

    `turns` says which answers of a chat are learnt. If the rows' own answers are not `learnt`, their lengths do not matter.
    `reading` says how rows are read that were stored before; None: it follows from the first rows. `check` is called with the position, the row and the tokens of each row of the training split.
    Rows whose digest is `erased` are left out and counted; `erased_before` were erased from the source.

    Raises UserFault with every kind of fault if more rows are bad than the settings leave out, or a split has no rows.
    """
    expected = sum(rows.expected for rows in source.values()) if isinstance(source, dict) else source.expected
    placed = _placed(source)
    first = list(itertools.islice(placed, _LOOKED_AT))
    readable = [raw.values for _, _, raw in first if raw.fault is None]
    if not readable:
        _refuse_unreadable(first, settings, source, max_length)
    reading = reading or reading_of(settings, readable, learns)
    work = _Work(settings, reading, learns, chat, turns, max_length if learnt else None, check, source, erased)
    work.found.erased = erased_before
    with ExitStack() as files:
        work.open(folder, preferences, files)
        rows = itertools.chain(first, placed)
        while batch := list(itertools.islice(rows, _BATCH)):
            work.add(batch)
            watch(work.found.rows, max(expected, work.found.rows))
    work.found.refuse(work.splits)
    same = work.found.seen.found()
    found = work.found
    return Prepared(reading, found.metrics(same), found.notes(same), work.splits, found.most_supervised)


def _refuse_unreadable(first: Sequence["Placed"], settings: DatasetSettings, source: Source, max_length: int) -> None:
    """Raise UserFault with the faults of the first rows, none of which can be read, or because there are no rows."""
    found = RowFindings(settings, max_length)
    found.rows = len(first)
    for _, _, raw in first:
        if raw.fault is not None:
            found.bad.note(raw.place, raw.fault)
    found.refuse(list(source) if isinstance(source, dict) else ["train"])


Placed = tuple[Split | None, int, RawRow]
"""A split if the source names one, the number of a row in it, and the row."""


def _placed(source: Source) -> Iterator[Placed]:
    for split, rows in source.items() if isinstance(source, dict) else [(None, source)]:
        for number, raw in enumerate(rows, 1):
            yield split, number, raw


@dataclass
class _Example:
    split: Split
    place: str
    digest: str
    """Of the row as it was given."""
    example: StoredExample
    tokens: list[Tokens] = field(default_factory=list)
    """Of the answer, and of the worse answer of a pair."""
    cut: list[Tokens] = field(default_factory=list)
    """The same within max_length."""


class _Work:
    """Maps, tokenises and writes rows."""

    def __init__(
        self,
        settings: DatasetSettings,
        reading: RowReading,
        learns: Learns,
        chat: Chat,
        turns: AssistantTurns,
        max_length: int | None,
        check: Check,
        source: Source,
        erased: AbstractSet[str],
    ) -> None:
        self._settings, self._reading, self._learns, self._erased = settings, reading, learns, erased
        self._chat, self._turns, self._max_length, self._check = chat, turns, max_length, check
        self.found = RowFindings(settings, max_length or 0)
        self.splits: list[Split] = list(source) if isinstance(source, dict) else []
        self._files: dict[Split, TextIO] = {}
        self._pairs: dict[Split, TextIO] = {}
        self._digests: dict[Split, TextIO] = {}

    def open(self, folder: Path, preferences: Path, files: ExitStack) -> None:
        """Open the files that rows are written to."""
        self._folder, self._preferences, self._open_files = folder, preferences, files
        for split in self.splits:
            self._files[split] = self._opened(folder / split_file(split))
        if self._learns in _PAIRS:
            self._pairs["train"] = self._opened(preferences / _PAIRS[self._learns])

    def _opened(self, path: Path) -> TextIO:
        return self._open_files.enter_context(path.open("w", encoding="utf-8"))

    def add(self, batch: Sequence[Placed]) -> None:
        """Map, tokenise and write rows."""
        self.found.rows += len(batch)
        examples = [one for placed in batch if (one := self._mapped(*placed))]
        for one in self._encoded(examples):
            if self._fits(one) and self._passes(one):
                self._write(one)

    def _mapped(self, split: Split | None, number: int, raw: RawRow) -> _Example | None:
        digest = _digest(raw)
        if digest in self._erased:
            self.found.erased += 1
            return None
        try:
            example = example_of(raw, f"{split or 'row'}-{number}", self._settings, self._reading)
            if self._learns in _PAIRS:
                _refuse_calls(example.row.answer)
        except RowFault as fault:
            self.found.bad.note(raw.place, fault)
            return None
        if digest is None:
            what, remedy = "its values are nested too deeply", "flatten or remove the row"
            self.found.bad.note(raw.place, RowFault("dataset.columns", what, remedy))
            return None
        for what in remarks(raw.values, example.row, self._reading):
            self.found.remark(what, raw.place)
        return _Example(split or split_of(example.row, self._settings.split), raw.place, digest, example)

    def _encoded(self, examples: Sequence[_Example]) -> Iterator[_Example]:
        try:
            sides = [one.example.row for one in examples]
            worse = [
                (one.example.row.messages, one.example.rejected, one.example.row.tools)
                for one in examples
                if one.example.rejected is not None
            ]
            encoded = iter(self._chat.encode([*sides, *worse], self._turns))
        except ChatFault as fault:
            if len(examples) > 1:
                for one in examples:
                    yield from self._encoded([one])
            else:
                self.found.bad.note(examples[0].place, RowFault("dataset.columns", str(fault), fault.remedy))
            return
        for one in examples:
            one.tokens.append(next(encoded))
        for one in examples:
            if one.example.rejected is not None:
                one.tokens.append(next(encoded))
        yield from examples

    def _passes(self, one: _Example) -> bool:
        """Whether the row is kept, by the check of what is learnt from it."""
        try:
            if one.split == "train":
                self._check(one.place, one.example.row, one.tokens[0])
        except RowFault as fault:
            self.found.bad.note(one.place, fault)
            return False
        return True

    def _fits(self, one: _Example) -> bool:
        """Whether the row is kept, by its length."""
        longest = max(map(len, one.tokens))
        self.found.lengths.append(longest)
        if self._max_length is None:
            one.cut = one.tokens
            self.found.most_supervised = max(self.found.most_supervised, one.tokens[0].supervised)
            return True
        if any(not tokens.supervised for tokens in one.tokens):
            what, remedy = "no answer of the row is learnt, because all have weight 0", "remove the row"
            self.found.bad.note(one.place, RowFault("dataset.columns", what, remedy))
            return False
        one.cut = [tokens.cut(self._max_length) for tokens in one.tokens]
        self.found.most_supervised = max(self.found.most_supervised, *(tokens.supervised for tokens in one.cut))
        if any(not tokens.supervised for tokens in one.cut):
            what = f"no token of the answer is within max_length ({self._max_length} tokens), because the prompt fills it"
            remedy = "raise training.max_length, shorten the prompt or remove the row"
            if self._settings.on_long_row != "skip" or longest <= self._max_length:
                self.found.bad.note(one.place, RowFault("training.max_length", what, remedy))
                return False
        if longest > self._max_length:
            self.found.long.note(one.place)
            return self._settings.on_long_row != "skip"
        return True

    def _write(self, one: _Example) -> None:
        row, example = one.example.row, one.example
        if self.found.seen.note(one.split, row, *said(example)):
            return
        learnt = one.cut[0]
        learns_labels = self._learns == "labels" and one.split == "train"
        if example.label is not False or learns_labels:
            self._file_of_digests(one.split).write(f"{one.digest} {row.id}\n")
        if example.label is not False:
            self._file(one.split).write(json_line(row))
            self.found.counts[f"rows_{one.split}"] += 1
            self.found.counts[f"supervised_tokens_{one.split}"] += learnt.supervised
            if one.split == "train":
                self.found.counts.update(answers_of([learnt]))
        if self._learns == "pairs" or learns_labels:
            for line in _lines_of(example, self._learns):
                self._file_of_pairs(one.split).write(json_line(line))
                self.found.counts[self._learns if one.split == "train" else f"{self._learns}_{one.split}"] += 1

    def _file(self, split: Split) -> TextIO:
        if split not in self._files:
            self.splits.append(split)
            self._files[split] = self._opened(self._folder / split_file(split))
        return self._files[split]

    def _file_of_digests(self, split: Split) -> TextIO:
        if split not in self._digests:
            self._digests[split] = self._opened(self._folder / row_digests_file(split))
        return self._digests[split]

    def _file_of_pairs(self, split: Split) -> TextIO:
        if split not in self._pairs:
            self._pairs[split] = self._opened(self._preferences / held_out_pairs_file(split))
        return self._pairs[split]


def _digest(raw: RawRow) -> str | None:
    """Return the digest of a row as it was given; None for one that is nested too deeply."""
    try:
        return raw.digest or row_digest(raw.values)
    except RecursionError:
        return None


def _refuse_calls(answer: Message) -> None:
    if answer.tool_calls or answer.reasoning:
        what = "the answer has tool_calls or reasoning_content, and the answers of pairs and labels are learnt as text"
        raise RowFault("dataset.columns.messages", what, "remove the row, or write the call or the thought as text")


def said(example: StoredExample) -> tuple[str, str]:
    """Return what a row speaks of and what it says about that: rows of one subject that say different things contradict."""
    row, prompt = example.row, prompt_key(example.row)
    if example.rejected is not None:
        return json.dumps([prompt, *sorted((row.completion, example.rejected))]), row.completion
    answer = json.dumps([row.completion, row.tool_calls])
    return (prompt, answer) if example.label is None else (prompt + answer, str(example.label))


def _lines_of(example: StoredExample, learns: Learns) -> Iterator[Preference | Judged]:
    row, rejected = example.row, example.rejected
    if learns == "labels":
        labelled = [(row.completion, example.label is not False), *([(rejected, False)] if rejected is not None else [])]
        for answer, label in labelled:
            yield Judged(id=row.id, messages=row.messages, completion=answer, label=label, tools=row.tools)
    elif rejected is not None:
        yield Preference(id=row.id, messages=row.messages, chosen=row.completion, rejected=rejected, tools=row.tools)
