"""Gives the harness a model as it is served: the same chat template, tokens, precision and decoder as the rest of an evaluation."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from services.chassis.executor.child import Context, Stopping
from services.language_models.chat_format.chat import Chat
from services.language_models.chat_format.plain import plain_start
from services.language_models.chat_format.tokens import Tokens
from services.language_models.chat_format.written import THOUGHT_BEGINS, THOUGHT_ENDS, visible
from services.language_models.chats import token_ids
from services.language_models.generation import Rng, SamplingParams, rng
from services.language_models.lengths import context_length
from services.trainer.harness.prompts import LogLikelihoods, PromptedModel
from services.trainer.modelling.likelihood import pad, row_scores
from services.trainer.steps.answering import answers_of

_SPARE_TOKENS = 8
"""Tokens before a stop text that are read with it, since some tokenizers write the first one otherwise."""


class ServedModel(PromptedModel):
    """A loaded model. A prompt beyond its context length loses its beginning, as with the harness's own models; `cut` has the
    numbers of these rows by task.
    """

    def __init__(self, context: Context, chat: Chat, model: Any, *, chats: bool, batch_size: int, seed: int) -> None:
        super().__init__(chat, context_length(model.config), chats=chats)
        self._context, self._model, self._chats = context, model, chats
        self._batch_size, self._seed = batch_size, seed
        self.cut: dict[str, set[int]] = defaultdict(set)

    def loglikelihood(self, requests: Sequence[Any]) -> LogLikelihoods:
        """Return for each context and continuation the log-probability, and whether greedy decoding would write it."""
        pairs = self.pairs([request.args for request in requests])
        rows = [self._fitting(request, Tokens.of(*pair)) for request, pair in zip(requests, pairs, strict=True)]
        return self._scores(rows)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each text, whose windows are as long as the model reads, without a chat template."""
        start = plain_start(self.chat.tokenizer)[0]
        windows, owners = list[Tokens](), list[int]()
        for number, ids in enumerate(token_ids(self.chat.tokenizer, [request.args[0] for request in requests])):
            size = max(1, len(ids) if self.limit is None else self.limit - 1)
            found = get_rolling_token_windows(ids, prefix_token=start, max_seq_len=size, context_len=1)
            of_text = [Tokens.of(*make_disjoint_window(window)) for window in found]
            windows += of_text
            owners += [number] * len(of_text)
        totals = [0.0] * len(requests)
        for number, (score, _) in zip(owners, self._scores(windows), strict=True):
            totals[number] += score
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return an answer to each prompt, which ends before the first of the task's stop texts."""
        groups = defaultdict[str, list[int]](list)
        for number, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(number)
        answers = [""] * len(requests)
        for given, numbers in groups.items():
            made = self._generated([requests[number] for number in numbers], json.loads(given))
            for number, text in zip(numbers, made, strict=True):
                answers[number] = text
        return answers

    def _generated(self, requests: Sequence[Any], given: Mapping[str, Any]) -> list[str]:
        settings = self.generation(given)
        tokens, sampled = settings["max_gen_toks"], bool(settings["do_sample"])
        prompts = self.prompts([request.args[0] for request in requests])
        room = None if self.limit is None else self.limit - tokens
        asked = [self._end_of(request, ids, room) for request, ids in zip(requests, prompts, strict=True)]
        done = 0

        def draws(number: int) -> list[Rng]:
            return [rng(self._seed, number) if sampled else None]

        def on_batch(answered: int, made: int) -> None:
            nonlocal done
            done += answered
            self._context.progress(done, len(asked), "harness answers")

        warmth = float(settings.get("temperature") or 1.0)
        ends = self.ends(settings["until"], [request.args[0] for request in requests])
        top_p = float(settings.get("top_p", 1.0))
        decoding = SamplingParams(self.chat.stop_ids, self.chat.pad_id, tokens, warmth, top_p, ends=ends)
        made = answers_of(self._context, self._model, asked, draws, decoding, self._batch_size, on_batch=on_batch)
        return [postprocess_generated_text(self._text(ids), settings["until"], None) for (ids,) in made]

    def ends(self, stops: Sequence[str], prompts: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Return whether answers to the prompts end behind some of their tokens, since they contain a stop text; None: never.

        An answer does not end within a thought: what follows the thought is the answer.
        """
        stops = [stop for stop in stops if stop]
        if not stops:
            return None
        reach = max(len(stop.encode()) for stop in stops) + _SPARE_TOKENS
        thinks = any(prompt.rstrip().endswith(THOUGHT_BEGINS) for prompt in prompts)

        def ended(ids: Sequence[int]) -> bool:
            if not any(stop in self._decoded(ids[-reach:]) for stop in stops):
                return False
            said = self._decoded(ids)
            if self._chats and (thinks or THOUGHT_BEGINS in said) and THOUGHT_ENDS not in said:
                return False
            return any(stop in self._text(ids) for stop in stops)

        return ended

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.chat.tokenizer.decode(ids, skip_special_tokens=True))

    def _text(self, ids: Sequence[int]) -> str:
        """Return an answer as it is compared elsewhere in an evaluation; of a plain text all that was written."""
        return visible(self.chat.text(ids)) if self._chats else self._decoded(ids)

    def _end_of(self, request: Any, ids: list[int], room: int | None) -> list[int]:
        if room is None or len(ids) <= room:
            return ids
        self.cut[request.task_name].add(request.doc_id)
        return ids[-room:]

    def _fitting(self, request: Any, row: Tokens) -> Tokens:
        if self.limit is None or len(row) <= self.limit:
            return row
        self.cut[request.task_name].add(request.doc_id)
        learnt = list(row.learnt[-self.limit :])
        return Tokens(row.ids[-self.limit :], [False, *learnt[1:]])

    @torch.inference_mode()
    def _scores(self, rows: Sequence[Tokens]) -> LogLikelihoods:
        """Return the scores of the supervised tokens of each row; of none 0, as certain."""
        scores: LogLikelihoods = [(0.0, True)] * len(rows)
        order = sorted((at for at, row in enumerate(rows) if row.supervised), key=lambda at: len(rows[at]))
        size = max(1, self._batch_size >> self._context.task.memory_failures)
        for first in range(0, len(order), size):
            if self._context.stopping:
                raise Stopping
            batch = order[first : first + size]
            padded = pad([rows[at] for at in batch], self.chat.pad_id, self._model.device)
            for at, score in zip(batch, row_scores(self._model, padded), strict=True):
                scores[at] = score
            self._context.progress(first + len(batch), len(order), "harness choices")
        return scores
