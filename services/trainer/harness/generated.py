"""What the tasks of the harness ask a model to generate, for the estimate of memory."""

from typing import NamedTuple


class Generated(NamedTuple):
    """The most tokens that tasks ask a model to read and to write."""

    prompt: int = 0
    """Of a prompt, without what it loses because the model reads no more."""
    answer: int = 0
    """Of an answer; 0 if none is generated."""

    def larger(self, other: "Generated") -> "Generated":
        """Return the larger number of each."""
        return Generated(max(self.prompt, other.prompt), max(self.answer, other.answer))
