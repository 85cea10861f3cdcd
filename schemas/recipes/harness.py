"""Defines which tasks of lm-evaluation-harness an evaluation measures."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Strict, Whole, WholeOrNone

TaskReference = Annotated[str, Field(min_length=1, max_length=2048)]
"""Names a task file: a path or URL, or the name of a task of the installed harness."""


class HarnessSettings(Strict):
    """Tasks of lm-evaluation-harness, which are measured besides the held-out split.

    The harness builds prompts and checks answers; they are generated, and choices scored, as the model is served. Each metric is
    named `harness_<task>_<metric>`, and has the bounds of its 95 % confidence interval.
    """

    tasks: tuple[TaskReference, ...] = Field(
        min_length=1,
        max_length=50,
        description="Task files (YAML): a path, `s3://` or `https://` URI, or the name of a task of the harness, such as `arc_easy`. "
        "A file that names Python code is refused.",
    )
    num_fewshot: WholeOrNone = Field(
        default=None,
        ge=0,
        le=64,
        description="Solved examples before each question; null: the task's own number. As in the harness, a task whose file says 0 "
        "keeps 0.",
    )
    limit: WholeOrNone = Field(default=None, ge=1, description="The most rows per task, in their order; null: all rows.")
    chat: bool = Field(
        default=True,
        description="Whether prompts are chats in the model's template, with examples as earlier turns; false: plain texts, as "
        "for models without chat training.",
    )
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the drawn examples and of sampled answers.")

    @model_validator(mode="after")
    def _each_task_once(self) -> Self:
        if twice := sorted({name for name in self.tasks if self.tasks.count(name) > 1}):
            raise ValueError(f"the task {twice[0]} is named twice; name each task once")
        return self
