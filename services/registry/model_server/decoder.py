"""Decodes answers in batches that they join and leave at any token.

Each lane is a thread with a batch of its own: on a processor there is one for each core, because cores that share small matrix
multiplications wait for each other at every one of them. Tokens are chosen as `services.language_models.generation` chooses them for
sampling and evaluation, so that equal settings give equal answers.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.language_models.generation import DecodingState, choose, prefill
from services.registry.model_server.answer import Answer, TokenLogprob

_log = logging.getLogger(__name__)


class Full(Exception):
    """The queue has no place for an answer."""


class Closed(Exception):
    """The model takes no new answers: it is being unloaded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decoder holds at once."""

    rows: int = 32
    """Answers that one lane decodes together."""
    cells: int = 262_144
    """Tokens of all rows of a lane, each as long as the longest can become; a single answer is always decoded."""
    waiting: int = 256
    """Answers that wait for a place, in all lanes together."""


class Decoder:
    """A model, whose head reads the last position only, with its lanes."""

    def __init__(self, model: Any, stop_ids: frozenset[int], pad_id: int, lanes: int, limits: Limits) -> None:
        self._limits, self._closed = limits, False
        self._lanes = [Lane(model, stop_ids, pad_id, limits) for _ in range(lanes)]

    def submit(self, answers: Sequence[Answer]) -> None:
        """Queue answers in the lane with the least work. Raises Full or Closed, and then queues none."""
        if self._closed:
            raise Closed
        if sum(lane.waiting for lane in self._lanes) + len(answers) > self._limits.waiting:
            raise Full
        min(self._lanes, key=lambda lane: lane.open).submit(answers)

    @property
    def open(self) -> int:
        """Answers that are decoded or wait."""
        return sum(lane.open for lane in self._lanes)

    @property
    def waiting(self) -> int:
        """Answers that wait for a place in a batch."""
        return sum(lane.waiting for lane in self._lanes)

    @property
    def alive(self) -> bool:
        """Whether all lanes run."""
        return all(lane.alive for lane in self._lanes)

    def drain(self, seconds: float) -> None:
        """Take no new answers, and block until all are done, or so many seconds have passed."""
        self._closed = True
        ends = time.monotonic() + seconds
        for lane in self._lanes:
            lane.wait_until_idle(ends)

    def close(self) -> None:
        """End all lanes; answers that are not done fail. Blocks for at most a token."""
        self._closed = True
        for lane in self._lanes:
            lane.close()


class Lane:
    """One batch and the thread that decodes it."""

    def __init__(self, model: Any, stop_ids: frozenset[int], pad_id: int, limits: Limits) -> None:
        self._model, self._stop_ids, self._pad_id, self._limits = model, stop_ids, pad_id, limits
        self._queue: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rows: list[Answer] = []
        self._state: DecodingState | None = None
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Answers that are decoded or wait."""
        return len(self._rows) + len(self._queue)

    @property
    def waiting(self) -> int:
        """Answers that wait."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, answers: Sequence[Answer]) -> None:
        """Queue answers."""
        with self._changed:
            self._queue.extend(answers)
            self._changed.notify_all()

    def wait_until_idle(self, ends: float) -> None:
        """Block until nothing is decoded and nothing waits, or the monotonic clock shows `ends`."""
        with self._changed:
            self._changed.wait_for(lambda: not self.open, max(0.0, ends - time.monotonic()))

    def close(self) -> None:
        """End the thread before its next token."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.notify_all()  # who waits until it is idle
                while not (self._closing or self._queue or self._rows):
                    self._changed.wait()
                if self._closing:
                    break
                taken = self._taken()
            try:
                self._step(taken)
            except Exception:  # memory ran out, or the model fails on these tokens: the next answers may do
                _log.exception("%d answers failed", len(self._rows))
                self._fail_all()
        self._fail_all()

    def _fail_all(self) -> None:
        with self._changed:
            failed, self._rows, self._state = self._rows, [], None
            if self._closing:
                failed, self._queue = [*failed, *self._queue], deque()
        for answer in failed:
            if answer.finish is None:
                answer.fail()

    def _taken(self) -> list[Answer]:
        """Take from the queue what fits beside the rows, in order."""
        if self._state is not None and not self._state.joins:
            return []
        taken: list[Answer] = []
        longest = max((row.most for row in self._rows), default=0)
        while self._queue:
            rows, length = len(self._rows) + len(taken) + 1, max(longest, self._queue[0].most)
            if rows > 1 and (rows > self._limits.rows or rows * length > self._limits.cells):
                break
            longest = length
            taken.append(self._queue.popleft())
        self._rows = self._rows + taken
        return taken

    @torch.inference_mode()
    def _step(self, taken: Sequence[Answer]) -> None:
        """Read the prompts of new rows, then say one token of each row."""
        if taken:
            new = prefill(self._model, [answer.prompt for answer in taken], 1, self._pad_id)
            if self._state is None:
                self._state = new
            else:
                self._state.join(new)
        state = self._state
        if state is None:
            raise RuntimeError("a lane has rows and no state")
        tokens = next_tokens(state.logits, self._rows)
        told = _logprobs(state.logits, tokens, self._rows)
        for row, token, logprob in zip(self._rows, tokens.tolist(), told, strict=True):
            if row.finish is None and not row.cancelled:
                row.said(token, logprob, ends=token in self._stop_ids)
        kept = [number for number, row in enumerate(self._rows) if row.finish is None and not row.cancelled]
        if not kept:
            self._rows, self._state = [], None
            return
        if len(kept) < len(self._rows) and state.shrinks:
            numbers = torch.tensor(kept, device=tokens.device)
            state.keep(numbers)
            if state.joins:
                state.narrow()
            tokens, self._rows = tokens[numbers], [self._rows[number] for number in kept]
        state.advance(self._model, tokens)


def next_tokens(logits: torch.Tensor, rows: Sequence[Answer]) -> torch.Tensor:
    """Choose the next token of each row by its own settings and random numbers."""
    groups: dict[tuple[float, float], list[int]] = {}
    for number, row in enumerate(rows):
        greedy = row.rng is None
        groups.setdefault((1.0, 1.0) if greedy else (row.sampling.temperature, row.sampling.top_p), []).append(number)
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for (temperature, top_p), numbers in groups.items():
        members = [rows[number] for number in numbers]
        drawn = [0.0 if row.rng is None else row.rng.random() for row in members]
        tokens[numbers] = choose(
            logits[numbers],
            torch.tensor(drawn, dtype=torch.float64, device=logits.device),
            torch.tensor([row.rng is None for row in members], device=logits.device),
            temperature,
            top_p,
        )
    return tokens


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor, rows: Sequence[Answer]) -> list[TokenLogprob | None]:
    """Return the probabilities that rows want, of the model itself, without temperature or nucleus."""
    told: list[TokenLogprob | None] = [None] * len(rows)
    for number, row in enumerate(rows):
        wanted = row.sampling.logprobs
        if wanted is None or row.finish is not None:
            continue
        logs = torch.log_softmax(logits[number].float(), dim=-1)
        best = torch.topk(logs, wanted) if wanted else None
        top = () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        told[number] = TokenLogprob(int(tokens[number]), float(logs[tokens[number]]), top)
    return told
