"""One answer on its way: how it is sampled, what it said so far, and what its caller is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.language_models.generation import Rng
from services.registry.model_server.growing_text import GrowingText, TextForm

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was said, with the natural logarithm of its probability, and the likeliest ones in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """What an answer's caller is told: text that is new, and in the last update how it ended."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    tokens: int = 0
    """Tokens of the answer, in the last update."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is sampled and when it ends."""

    max_tokens: int
    temperature: float
    """0 decodes greedily."""
    top_p: float
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many likeliest tokens are told beside each token; None: no probabilities are."""


@dataclass(slots=True, eq=False)
class Answer:
    """An answer that is generated; the decoder's thread writes it, and `tell` takes its updates in that thread."""

    prompt: Sequence[int]
    sampling: Sampling
    rng: Rng
    form: TextForm
    streams: bool
    tell: Callable[[Update], None]
    cancelled: bool = False
    """Set by anyone who does not want it any more; it leaves its batch before the next token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None
    _text: GrowingText | None = None

    def __post_init__(self) -> None:
        if self.streams or self.sampling.stops:
            self._text = GrowingText(self.form, self.sampling.stops)

    @property
    def most(self) -> int:
        """The most tokens that its row can have."""
        return len(self.prompt) + self.sampling.max_tokens

    def said(self, token: int, logprob: TokenLogprob | None, *, ends: bool) -> None:
        """Take the next token; `ends`: it is one that ends answers, and no part of them."""
        if ends:
            self._end("stop")
            return
        self.ids.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        new = self._text.add(token) if self._text else ""
        if self._text and self._text.stopped:
            self._end("stop", new)
        elif len(self.ids) >= self.sampling.max_tokens:
            self._end("length", new)
        elif self.streams and new:
            self._tell(Update(new, self._taken()))

    def fail(self) -> None:
        """End it without the rest of its text: the decoder could not go on."""
        self.finish = "error"
        self.tell(Update("", finish="error", tokens=len(self.ids)))

    def _end(self, how: Finish, new: str = "") -> None:
        if self._text is None:
            text = self.form.whole(self.ids)
        else:
            text = new + self._text.end()
            text = text if self.streams else self._text.told
            how = "stop" if self._text.stopped else how
        self.finish = how
        self._tell(Update(text, self._taken(), how, len(self.ids)))

    def _taken(self) -> tuple[TokenLogprob, ...]:
        taken, self.logprobs = tuple(self.logprobs), []
        return taken

    def _tell(self, update: Update) -> None:
        if not self.cancelled:
            self.tell(update)
