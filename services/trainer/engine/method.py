"""Defines what a method gives to the engine: its examples as rows of a data set, and how TRL's trainer for them is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.recipes.optimiser import OptimiserSettings

Figures = Mapping[str, float]
Build = Callable[[Any, Mapping[str, Any], Any, Callable[[], None]], Any]


@dataclass(frozen=True)
class Method:
    """One run of a method, before its model is loaded."""

    name: str
    section: str
    """The request's field with the method's settings, for messages."""
    optimiser: OptimiserSettings
    rows: Sequence[Mapping[str, Any]]
    """The examples, with the columns that the trainer reads."""
    names: Sequence[str]
    """The id of the data set's row that each example is of."""
    lengths: Sequence[int]
    """Tokens of each example, by which examples of like length share a forward pass."""
    longest: int
    """Tokens of the longest sequence that the model reads."""
    build: Build
    """Makes the trainer from the model, the arguments that all methods share, the data set and a function to call between the
    parts of what the trainer computes before its first step; that function reports that the run is alive and may end it."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """The trainer's metrics that go into the curve, and their names there."""
    validate: Callable[[Any], Figures] = lambda _: {}
    """Measures the model on held-out examples, at every checkpoint and at the end."""
    lean_head: bool = True
    """Whether TRL's trainer puts its head of log-probabilities on the model, which ours replaces on a CPU."""
    group: int = 1
    """How often each example is in a batch: the answers that the trainer samples to it."""
    generated: int = 0
    """The most tokens of an answer that the trainer samples; 0 if it samples none."""
    temperature: float = 1.0
    """Softmax temperature of the log-probabilities that are learnt."""
    made: Callable[[Figures], float] = lambda _: 0.0
    """Tokens that the trainer has sampled in a step, by its metrics, which count for the speed."""
    measure: Callable[[Any, Callable[[], None]], Figures] = lambda *_: {}
    """Measures the model once, when it is trained; calls a function between parts, as `build` does."""
    check: Callable[[Sequence[Figures]], None] = lambda _: None
    """Is called with the whole curve at the end; raises UserFault if nothing was learnt."""
    counts: Figures = field(default_factory=dict)
    """Metrics of the examples."""
    left_out: str | None = None
    """Which examples are left out and why, in words; None if none is."""
    facts: Callable[[], Mapping[str, str]] = dict
    """Facts of the result that are known when the training has ended."""
