"""Defines settings that say how a model computes and how it reads a chat."""

from typing import Annotated, Literal

from pydantic import Field

Precision = Literal["auto", "fp32", "bf16"]
AssistantTurns = Literal["all", "last"]
ChatTemplate = Annotated[str, Field(min_length=1, max_length=100_000)]
"""A chat template, in Jinja."""
