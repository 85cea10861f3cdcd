"""Collects what is found about the rows of a data set, as metrics, as sentences and as the reasons for a refusal."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy

from schemas.lines import Split
from schemas.reasons import Reason, shown
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.tokens import answers_of
from services.trainer.data.bad_rows import BadRows, Places, rows_are
from services.trainer.data.sameness import Sameness, SeenRows

_REMARKS_AT_MOST = 50


class RowFindings:
    """What is found about the rows so far."""

    def __init__(self, settings: DatasetSettings, max_length: int) -> None:
        self._settings, self._max_length = settings, max_length
        self.rows = 0
        """The rows that were read."""
        self.erased = 0
        """The rows that were erased, and so are left out."""
        self.bad = BadRows(settings)
        self.long = Places()
        """The rows with more than `max_length` tokens that still have a token of an answer, or are left out."""
        self.seen = SeenRows(leave_out=settings.deduplicate)
        self.counts: Counter[str] = Counter(dict.fromkeys(answers_of([]), 0))
        self.lengths = array("I")
        """The tokens of each row, of a pair of the longer answer."""
        self._remarks = dict[str, Places]()
        """The rows of each remark."""
        self.most_supervised = 0
        """The most supervised tokens of a row, of a pair of one of its answers."""

    def remark(self, what: str, place: str) -> None:
        """Count a row of which something is to be said. Of very many kinds of remarks only the first ones are kept."""
        if what in self._remarks or len(self._remarks) < _REMARKS_AT_MOST:
            self._remarks.setdefault(what, Places()).note(place)

    def refuse(self, splits: Sequence[Split]) -> None:
        """Raise UserFault if too many rows are bad, rows are longer than is wanted, or a split has no rows."""
        self.bad.refuse_too_many(self.rows)
        if self.long.number and self._settings.on_long_row == "refuse":
            raise UserFault(
                Reason(
                    field="dataset.on_long_row", value=str(self.long),
                    message=f"{rows_are(self.long.number)} longer than max_length ({self._max_length} tokens)",
                    remedy="raise training.max_length, shorten the rows, or set dataset.on_long_row to cut or skip",
                )
            )  # fmt: skip
        if reasons := list(self._empty(splits)):
            raise UserFault(*reasons)

    def _empty(self, splits: Sequence[Split]) -> Iterator[Reason]:
        why = [
            f"{rows_are(number)} {what}" for number, what in ((self.bad.number, "bad"), (self.erased, "erased")) if number
        ]
        left_out = f" that can be learnt from: {' and '.join(why)}" if why else ""
        for split in dict.fromkeys(("train", "test", *splits)):
            name = getattr(self._settings.split, split)
            if name is not None and not self.counts[f"rows_{split}"]:
                if split == "train" and self.counts["labels"]:
                    yield self._unwanted()
                    continue
                yield Reason(
                    field=f"dataset.split.{split}",
                    value=shown(name),
                    message=f"split {split} of {self._settings.reference} has no rows{left_out}",
                    remedy="add rows" if split == "train" else "add rows, or set the split to null",
                )

    def _unwanted(self) -> Reason:
        return Reason(
            field="dataset.columns.label",
            message=f"none of the {self.counts['labels']} labelled answers is wanted, so that there is nothing to prefer",
            remedy="add answers with the label true, or name the column with the label",
        )

    def metrics(self, same: Sameness) -> dict[str, float]:
        """Return the counts of rows and tokens."""
        cut = 0 if self._settings.on_long_row == "skip" else self.long.number
        lengths = numpy.frombuffer(self.lengths, dtype=numpy.uint32) if self.lengths else numpy.zeros(1)
        return {
            **{name: float(number) for name, number in sorted(self.counts.items())},
            **({"rows_erased": float(self.erased)} if self.erased else {}),
            "rows_bad": float(self.bad.number),
            **self.bad.metrics(),
            "rows_cut": float(cut),
            "rows_too_long": float(self.long.number - cut),
            "rows_repeated": float(same.repeated),
            "rows_contradicting": float(same.contradicting),
            "rows_test_seen_in_train": float(same.test_seen),
            "tokens_median_row": float(numpy.quantile(lengths, 0.5)),
            "tokens_p95_row": float(numpy.quantile(lengths, 0.95)),
            "tokens_longest_row": float(lengths.max()),
        }

    def notes(self, same: Sameness) -> list[str]:
        """Return what a person should know, one sentence each."""
        notes = self.bad.notes()
        if self.erased:
            notes.append(f"{rows_are(self.erased)} erased and left out")
        if self.long.number:
            done = "left out" if self._settings.on_long_row == "skip" else "cut"
            notes.append(f"{rows_are(self.long.number)} longer than {self._max_length} tokens and {done} ({self.long})")
        if same.repeated:
            done = "left out" if self._settings.deduplicate else "kept; dataset.deduplicate leaves them out"
            notes.append(f"{rows_are(same.repeated)} a repetition of an earlier row and {done}")
        if same.contradicting:
            what = "another row of the training split says something else about the same prompt"
            notes.append(f"{rows_are(same.contradicting)} contradicted: {what}")
        if same.test_seen:
            notes.append(f"{rows_are(same.test_seen)} in the test split although the prompt is learnt")
        return [*notes, *(f"{what} ({places})" for what, places in self._remarks.items())]
