"""TRL's trainers of sampled answers (GRPO, RLOO), with our own sampling and with rewards that may be missing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer, RLOOTrainer

from services.language_models.chat_format.chat import Chat
from services.language_models.padding import common_width
from services.trainer.engine.own_sampling import OwnSampling, Sample, without_dropout

Score = Callable[[Sequence[int], Sequence[str]], list[float | None]]
"""Rewards of answers to rows with these numbers, in the order of the answers; None for one that could not be computed."""
REWARDS_FAILED = "rewards_failed"
"""Name of the metric: the share of answers that have no reward."""
_REFERENCE = "ref"


@dataclass(frozen=True)
class Rollouts:
    """How answers are sampled and rewarded."""

    chat: Chat
    sample: Sample
    names: Sequence[str]
    """Names of the rewards in the metrics."""
    scores: Sequence[Score]


class _RewardedTrainer(OwnSampling):
    """A mixin in front of a trainer of TRL, for rows with `prompt`, the tokens of a prompt, and `row`, their number.

    An answer of which one reward is missing has no reward at all: it is not compared, and nothing is learnt from it.
    """

    accelerator: Any
    num_generations: int
    _metrics: Any

    def __init__(self, model: Any, config: Any, rows: Any, rollouts: Rollouts) -> None:
        self._rollouts, self._sample = rollouts, rollouts.sample
        chat = rollouts.chat
        chat.tokenizer.pad_token = chat.tokenizer.eos_token  # an added padding token often has no embedding
        functions = [_named(self._scorer(score), name) for name, score in zip(rollouts.names, rollouts.scores, strict=True)]
        super().__init__(  # type: ignore[call-arg]  # of the trainer behind the mixin
            model=model, args=config, train_dataset=rows, processing_class=chat.tokenizer, reward_funcs=functions
        )
        self.eos_token_ids = sorted(chat.stop_ids)
        self.model.get_base_model().register_forward_pre_hook(_with_positions, with_kwargs=True)
        for name, weight in self.model.named_parameters():
            if f".{_REFERENCE}." in name:
                weight.requires_grad_(False)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return a part of the step's answers, without the columns that only its other parts need."""
        return _trimmed(super()._prepare_inputs(generation_batch))  # type: ignore[misc]  # as above

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Compute log-probabilities; those that are not learnt, of the reference, without dropout."""
        batch = common_width(ids, mask)
        with nullcontext() if torch.is_grad_enabled() else without_dropout(self.model):
            return super()._get_per_token_logps_and_entropies(model, batch.ids, batch.mask, *args, **kwargs)  # type: ignore[misc]  # as above

    def _scorer(self, score: Score) -> Callable[..., list[float | None]]:
        def rewards(*, completion_ids: Sequence[Sequence[int]], row: Sequence[int], **_: Any) -> list[float | None]:
            return score(row, [self._text(ids) for ids in completion_ids])

        return rewards

    def _text(self, ids: Sequence[int]) -> str:
        return self._rollouts.chat.text(ids[:-1] if ids[-1] in self._rollouts.chat.stop_ids else ids)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the rewards [answers, rewards]; NaN for an answer of which one is missing. Raises RuntimeError if all are missing.

        TRL would add up the others, which counts the missing one as 0.
        """
        found: torch.Tensor = super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]  # as above
        failed = found.isnan().any(dim=1)
        if bool(failed.all()):
            raise RuntimeError(f"none of the {len(found)} answers of a step could be rewarded")
        found[failed] = torch.nan
        self._metrics["train"][REWARDS_FAILED].append(failed.float().mean().item())
        return found


class GrpoTrainer(_RewardedTrainer, GRPOTrainer):  # type: ignore[misc]  # TRL has no types
    """TRL's GRPO."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        return self._sampled(prompt_ids[:: self.num_generations]), None


class RlooTrainer(_RewardedTrainer, RLOOTrainer):  # type: ignore[misc]  # TRL has no types
    """TRL's RLOO."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        return self._sampled(prompt_ids[:: self.num_generations])


def _with_positions(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Give a pass over prompts that are padded on the left the positions that sampling had; TRL leaves them to the model."""
    mask = kwargs.get("attention_mask")
    if kwargs.get("fused_lm_head") and mask is not None and kwargs.get("position_ids") is None:
        kwargs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return args, kwargs


def _trimmed(part: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the columns of padding on the left of all prompts and on the right of all answers."""
    begin = int(part["prompt_mask"].any(dim=0).long().argmax())
    width = part["completion_mask"].shape[1]
    end = max(1, width - int(part["completion_mask"].any(dim=0).flip(0).long().argmax()))
    prompts = {name: part[name][:, begin:] for name in ("prompt_ids", "prompt_mask")}
    answers = {
        name: value[:, :end]
        for name, value in part.items()
        if name not in prompts and isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == width
    }
    return {**part, **prompts, **answers}


def _named(function: Callable[..., list[float | None]], name: str) -> Callable[..., list[float | None]]:
    function.__name__ = name  # TRL's name of it in the metrics
    return function
