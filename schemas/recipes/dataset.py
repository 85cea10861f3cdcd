"""Defines the settings of a data set: its reference, its rows' layout and columns, its splits, and what becomes of bad rows."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Storable, Strict

DATASET_NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
"""Pattern of names of data sets; what begins with a dot is a path where a job names its data."""


class ColumnMapping(Strict):
    """The columns of the data set that are read. A dotted path leads into a column: `instances.0.output`.

    While all are at their defaults, the layout of the rows is recognised by the usual names of their columns.
    """

    prompt: str = Field(default="prompt", description="Column with the user's text, or a chat up to the answer.")
    completion: str = Field(
        default="completion",
        description="Column with the reference answer. Pipelines that learn from sampled answers only (grpo, rloo) need none; their "
        "rewards and the evaluation compare with it where it is.",
    )
    messages: str | None = Field(
        default=None,
        description="Column with a chat (list of role and content); replaces `prompt`, and `completion` if it ends with an answer.",
    )
    system: str | None = Field(default=None, description="Column with a system prompt of the row; null for none.")
    input: str | None = Field(
        default=None,
        description="Column with text that follows the prompt on a new line, as in Alpaca's rows; null for none.",
    )
    history: str | None = Field(
        default=None, description="Column with earlier turns, a list of pairs of a question and its answer; null for none."
    )
    text: str | None = Field(
        default=None, description="Column with plain text, which is learnt as a whole without a chat template."
    )
    tools: str | None = Field(
        default=None,
        description="Column with the tools that the assistant may call; null: `tools` or `functions` of a chat.",
    )
    chosen: str | None = Field(default=None, description="Column with the better answer of a preference pair.")
    rejected: str | None = Field(default=None, description="Column with the worse answer of a preference pair.")
    label: str | None = Field(
        default=None, description="Column that says whether an answer is wanted (true) or not (false)."
    )

    @model_validator(mode="after")
    def _a_pair_has_two_answers(self) -> Self:
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("`chosen` and `rejected` are the two answers of a pair: name both or neither")
        return self


Layout = Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference", "kto"]
"""The layout of a data set's rows."""


class SplitSettings(Strict):
    """The sources of the three splits: names of files (without extension) in a folder, or of splits on the hub. If the
    reference is one file, all rows come from it: `validation_fraction` and `test_fraction` are split off by a hash of the
    prompt, so that the same row always falls into the same split.
    """

    train: str = Field(default="train", min_length=1, description="Split for training.")
    validation: str | None = Field(default=None, description="Split for the loss during training; null for none.")
    test: str | None = Field(default="test", description="Held-out split for evaluation; null for none.")
    validation_fraction: Real = Field(
        default=0.05, ge=0, lt=0.5, description="Share of the rows, if the reference is a single file."
    )
    test_fraction: Real = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the rows, if the reference is a single file."
    )


class DatasetSettings(Strict):
    """A reference to a data set, and how its rows are read."""

    reference: str = Field(
        min_length=1,
        max_length=2048,
        description="A local path, an `s3://` or `https://` URI, or a hub id; or a registered data set, `name@digest`, with at least the "
        "first 12 digits of its digest.",
    )
    name: Annotated[str, Field(pattern=DATASET_NAME_PATTERN)] | None = Field(
        default=None,
        description="Name under which the stored rows are registered; null: the last part of `reference`. The same name with other "
        "rows is a further version of the data set.",
    )
    source: Annotated[Storable, Field(min_length=1, max_length=500)] | None = Field(
        default=None, description="Where the data come from, for people: an address, a contract, a ticket."
    )
    licence: Annotated[Storable, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Licence of the data, such as CC-BY-4.0."
    )
    format: Literal["jsonl", "json", "csv", "parquet", "hub"] = Field(
        default="jsonl",
        description="File format of the rows. jsonl also reads an array of objects, and files that end in .json, .csv, .tsv "
        "and .parquet.",
    )
    layout: Layout = Field(
        default="auto",
        description="Layout of the rows; auto: recognised by the names of the columns, and refused if it is ambiguous.",
    )
    columns: ColumnMapping = ColumnMapping()
    split: SplitSettings = SplitSettings()
    system_prompt: str | None = Field(default=None, max_length=20_000, description="System prompt for rows without one.")
    on_bad_row: Literal["skip", "refuse"] = Field(
        default="skip",
        description="What becomes of rows that cannot be learnt from. skip: they are left out and counted, and the data set is "
        "refused if there are more than `bad_rows_limit`; refuse: one of them suffices.",
    )
    bad_rows_limit: Real = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The largest share of bad rows that is left out; of more than ten rows, one may always be bad unless this "
        "is 0.",
    )
    on_long_row: Literal["cut", "skip", "refuse"] = Field(
        default="cut",
        description="What becomes of rows with more than `max_length` tokens: cut at the end, left out, or the data set is "
        "refused. A row that is cut must still contain a token of an answer.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Whether rows that repeat an earlier row of their split are left out; otherwise they are kept and counted.",
    )
