"""Recognises the layout of a data set's rows by the names of their columns, and says it in words. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.recipes.dataset import ColumnMapping, DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.columns import found
from services.trainer.data.raw import fault_of

Known = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference", "kto"]
Learns = Literal["answers", "prompts", "pairs", "labels"]
"""What a pipeline learns from; one that learns from prompts samples the answers itself, and needs none in the rows."""

_LOOKED_AT = 100
"""Rows whose columns are looked at."""
_CHATS = ("messages", "conversations", "conversation")
_LABELS = ("label", "kto_tag")
_TRUTHS = ("true", "false")
_REFERENCES = ("solution", "answer", "ground_truth", "reference", "reward_model.ground_truth")
"""Usual names of the column that the answers to a prompt are compared with, where no answer is given."""
_EXPECTED = (
    "messages, or conversations, or instruction and output, or prompt and completion, or text; for pairs chosen and rejected, "
    "or preferred_output and non_preferred_output; for labelled answers label"
)
_OPTIONAL = ("system", "input", "history", "tools")
_MEANT = (
    *_OPTIONAL,
    "functions",
    *_LABELS,
    "rejected",
    "weight",
    "loss_mask",
    "chat_template_kwargs",
    "documents",
    "image",
    "images",
    "video",
    "videos",
    "audio",
    "audios",
)
"""Names with a usual meaning: a person is told if such a column is filled and not read."""


@dataclass(frozen=True)
class RowReading:
    """How rows are read: their layout, and the columns by which it is read."""

    layout: Known
    columns: ColumnMapping
    words: str
    """The layout and its columns, for people."""
    needs_answers: bool = True
    """Whether a row without an answer is bad."""

    def unread(self, values: Mapping[str, object]) -> Iterator[str]:
        """Yield the names with a usual meaning of columns of a row that are filled and not read."""
        read = {path for column in self.columns.model_dump().values() if column for path in (column, column.split(".")[0])}
        return (name for name in _MEANT if name in values and name not in read and _is_filled(values[name]))


def reading_of(settings: DatasetSettings, rows: Iterable[Mapping[str, object]], learns: Learns) -> RowReading:
    """Return how rows like these are read for what later steps learn. Raises UserFault, which tells the columns that are
    expected and never those that there are.
    """
    there = _Columns(rows)
    given = settings.columns
    if given != ColumnMapping():
        layout = settings.layout if settings.layout != "auto" else _named_layout(given)
    else:
        layout = settings.layout if settings.layout != "auto" else _recognised(there, learns)
        given = _usual_columns(layout, there, learns)
    _require_fitting(layout, learns)
    for name in _OPTIONAL:
        column = getattr(settings.columns, name)
        if column is not None:
            _require_there(there, name, column)
    if learns == "prompts" and given.completion == settings.columns.completion != "completion":
        _require_there(there, "completion", given.completion)
    return RowReading(layout, given, _words(layout, given, there, learns), needs_answers=learns != "prompts")


def _require_there(there: "_Columns", field: str, column: str) -> None:
    if there.rows and not there.anywhere(column):
        what = f"none of the first rows has a column named {column!r}"
        raise UserFault(fault_of(f"columns.{field}", column, what, "correct the name, or leave it out"))


class _Columns:
    """The columns of the first rows, with their kinds."""

    def __init__(self, rows: Iterable[Mapping[str, object]]) -> None:
        self._values: dict[str, list[object]] = {}
        self.rows = [values for values, _ in zip(rows, range(_LOOKED_AT), strict=False)]
        for values in self.rows:
            for name, value in values.items():
                self._values.setdefault(name, []).append(value)

    @property
    def number(self) -> int:
        return len(self._values)

    def has(self, *names: str) -> bool:
        return all(name in self._values for name in names)

    def first(self, names: Iterable[str]) -> str | None:
        return next((name for name in names if name in self._values), None)

    def anywhere(self, path: str) -> bool:
        """Whether a row has the column, which may be a dotted path."""
        return any(found(values, path)[0] for values in self.rows)

    def labelled(self, learns: Learns) -> str | None:
        """The column with the name of a label; if answers are learnt only one whose values are truth values where there are any."""
        named = [name for name in _LABELS if self.has(name)]
        return next((name for name in named if learns == "labels" or self._has_truths(name)), None)

    def _has_truths(self, name: str) -> bool:
        filled = [value for value in self._values[name] if _is_filled(value)]
        return bool(filled) and all(map(_is_truth, filled))


def _is_filled(value: object) -> bool:
    return value == value and value not in (None, "", "[]", [])  # NaN is no value


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _TRUTHS)


def _named_layout(columns: ColumnMapping) -> Known:
    if columns.chosen is not None:
        return "preference"
    if columns.label is not None:
        return "kto"
    if columns.messages is not None:
        return "messages"
    return "text" if columns.text is not None else "prompt_completion"


def _recognised(there: _Columns, learns: Learns) -> Known:
    answers: list[Known] = []
    if there.has("prompt", "completion"):
        answers = ["prompt_completion"]
    else:
        if there.has("messages"):
            answers.append("messages")
        if there.first(("conversations", "conversation")):
            answers.append("sharegpt")
        if there.has("instruction", "output") or (there.has("instruction") and learns == "prompts"):
            answers.append("alpaca")
        if not answers and there.has("prompt") and learns == "prompts":
            answers.append("prompt_completion")
        if not answers and there.has("text"):
            answers.append("text")
    pairs = there.has("chosen", "rejected") or there.has("preferred_output", "non_preferred_output")
    labels = there.labelled(learns) is not None and bool(answers) and answers != ["text"]
    if learns in ("pairs", "labels"):
        if pairs:
            return "preference"
        if labels and learns == "labels":
            return "kto"
        raise _unknown(there) if not (labels or answers) else _unfit("kto" if labels else answers[0], learns)
    if pairs and answers != ["prompt_completion"]:
        return "preference"
    if labels:
        return "kto"
    if len(answers) > 1:
        raise UserFault(
            fault_of(
                "layout",
                "auto",
                f"the columns fit several layouts: {', '.join(answers)}",
                "name one of them in dataset.layout",
            )
        )
    if not answers:
        raise _unanswered(there) if there.has("prompt") else _unknown(there)
    return answers[0]


def _unanswered(there: _Columns) -> UserFault:
    return UserFault(
        fault_of(
            "columns.completion",
            f"{there.number} columns",
            "the rows have prompts and no answers, and the pipeline learns from answers",
            "name the column with the answers, or request the pipeline grpo or rloo, which rewards answers that the model samples",
        )
    )


def _unknown(there: _Columns) -> UserFault:
    return UserFault(
        fault_of(
            "columns",
            f"{there.number} columns",
            f"the layout of the rows is not recognised; it is by the columns {_EXPECTED}",
            "name the columns of your rows in dataset.columns, for example prompt and completion",
        )
    )


def _unfit(layout: Known, learns: Learns) -> UserFault:
    if learns in ("answers", "prompts"):
        what = {
            "preference": "the rows are preference pairs (an answer chosen over one that was rejected), and the pipeline learns "
            "from answers",
            "kto": "the rows have labels that say which answers are wanted, and the pipeline learns all answers",
        }[layout]
        remedy = {
            "preference": "request the pipeline dpo, or set dataset.layout and dataset.columns so that chosen is the completion",
            "kto": "set dataset.layout to the layout without labels in order to learn all answers, or remove the unwanted ones",
        }[layout]
    else:
        what = f"the rows are {_LAYOUTS[layout]}, and the pipeline learns from preference pairs"
        remedy = "send rows with chosen and rejected answers, or request the pipeline sft"
        if learns == "labels":
            what = f"the rows are {_LAYOUTS[layout]}, and the pipeline learns from labelled answers"
            remedy = (
                "send rows with a label (true or false) or with chosen and rejected answers, or request the pipeline sft"
            )
    return UserFault(fault_of("layout", layout, what, remedy))


def _require_fitting(layout: Known, learns: Learns) -> None:
    fits: Mapping[Learns, bool] = {
        "answers": layout not in ("preference", "kto"),
        "prompts": layout not in ("preference", "kto"),
        "pairs": layout == "preference",
        "labels": layout in ("preference", "kto"),
    }
    if not fits[learns]:
        raise _unfit(layout, learns)


def _usual_columns(layout: Known, there: _Columns, learns: Learns) -> ColumnMapping:
    """Return the columns of a layout by their usual names, also those that only later rows may have."""
    chat = there.first(_CHATS)
    optional = {"system": "system", "tools": "functions" if there.has("functions") and not there.has("tools") else "tools"}
    alpaca: dict[str, str | None] = {
        "prompt": "instruction", "completion": "output", "input": "input", "history": "history", "system": "system",
    }  # fmt: skip
    reference = {}
    if learns == "prompts" and (named := next(filter(there.anywhere, _REFERENCES), None)):
        reference = {"completion": named}
    match layout:
        case "messages" | "sharegpt":
            names = ("messages",) if layout == "messages" else ("conversations", "conversation")
            return ColumnMapping(messages=there.first(names) or names[0], **reference, **optional)
        case "alpaca":
            return ColumnMapping.model_validate(alpaca if there.has("output") else {**alpaca, **reference})
        case "prompt_completion" if not there.has("completion"):
            return ColumnMapping(**reference)
        case "text":
            return ColumnMapping(text="text")
        case "kto":
            label = there.labelled(learns) or "label"
            if there.has("prompt", "completion") or not (chat or there.has("instruction")):
                return ColumnMapping(label=label)
            if chat:
                return ColumnMapping(messages=chat, label=label, **optional)
            return ColumnMapping.model_validate({**alpaca, "label": label})
        case "preference":
            if there.has("preferred_output", "non_preferred_output"):
                names_of = {"chosen": "preferred_output", "rejected": "non_preferred_output", "messages": "input.messages"}
                tools = {"tools": "input.tools"} if there.anywhere("input.tools") else {}
                return ColumnMapping(**names_of, **tools)
            pair = {"chosen": "chosen", "rejected": "rejected"}
            if there.has("instruction") and not there.has("prompt"):
                return ColumnMapping.model_validate({**alpaca, "completion": "completion", **pair})
            if chat and not there.has("prompt"):
                return ColumnMapping(messages=chat, **pair, **optional)
            return ColumnMapping(**pair, **optional)
    return ColumnMapping()


_LAYOUTS: Mapping[Known, str] = {
    "messages": "chats as lists of role and content",
    "sharegpt": "ShareGPT chats as lists of from and value",
    "alpaca": "Alpaca instructions with their outputs",
    "prompt_completion": "prompts with their completions",
    "text": "plain texts",
    "preference": "preference pairs",
    "kto": "answers with labels",
}


def _words(layout: Known, columns: ColumnMapping, there: _Columns, learns: Learns) -> str:
    read = {
        "messages": ("messages",), "sharegpt": ("messages",), "text": ("text",),
        "preference": ("messages" if columns.messages else "prompt", "chosen", "rejected"),
        "kto": ("messages", "label") if columns.messages else ("prompt", "completion", "label"),
    }.get(layout, ("prompt", "completion"))  # fmt: skip
    optional = [getattr(columns, name) for name in _OPTIONAL]
    said = _LAYOUTS[layout]
    if learns == "prompts":
        has_answers = there.anywhere(columns.completion)
        said = said if has_answers or columns.messages else "prompts without answers"
        read = (*(name for name in read if name != "completion"), *(("completion",) if has_answers else ()))
    names = [*(getattr(columns, name) for name in read), *(name for name in optional if name and there.anywhere(name))]
    return f"{said}, in the columns {', '.join(dict.fromkeys(name for name in names if name))}"
