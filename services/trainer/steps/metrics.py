"""Computes the metrics of an evaluation from the losses and answers of its rows, each with its confidence interval."""

import math
from collections.abc import Sequence

from schemas.lines import Prediction
from schemas.recipes.evaluation import EvaluationSettings
from services.trainer.steps.intervals import interval, mean
from services.trainer.steps.measures import (
    Check,
    exact_match,
    greedy_shares,
    keeps_rules,
    number_match,
    pass_at,
    sampled_shares,
    valid_json,
)
from services.trainer.steps.references import ReferenceLoss

Metrics = dict[str, float | None]


def loss_metrics(losses: Sequence[ReferenceLoss], seed: int) -> Metrics:
    """Return `loss`, the mean negative log-likelihood of a token of the references, and `perplexity`, its exponential."""
    measured = [(loss.mean, float(loss.tokens)) for loss in losses if loss.mean is not None]
    loss = _with_interval("loss", [mean for mean, _ in measured], seed, [tokens for _, tokens in measured])
    return loss | {name.replace("loss", "perplexity"): _exponential(value) for name, value in loss.items()}


def length_metrics(lengths: Sequence[int], limit: int) -> Metrics:
    """Return how many answers there are, how many of them `limit` cut, and their mean length, in tokens."""
    cut = sum(length >= limit for length in lengths)
    return {"answers": float(len(lengths)), "answers_cut": float(cut), "answer_tokens": mean(list(map(float, lengths)))}


def answer_metrics(settings: EvaluationSettings, rows: Sequence[Prediction]) -> Metrics:
    """Return the requested metrics of answers, by name, and how much the sampled answers to a prompt differ."""
    metrics: Metrics = {}
    for metric in settings.metrics:
        match metric:
            case "valid_json":
                metrics |= _with_interval("valid_json", greedy_shares(valid_json, rows), settings.seed)
            case "exact_match":
                metrics |= _greedy("exact_match", exact_match(settings.exact_match_fields), rows, settings)
            case "rules":
                check = keeps_rules(settings.rules, settings.rules_field)
                metrics |= _with_interval("good_reply", sampled_shares(check, rows), settings.seed)
                metrics |= _pass_at("good_reply", check, rows, settings)
    if settings.number_match:
        metrics |= _greedy("number_match", number_match, rows, settings)
    if settings.samples > 1:
        distinct = [len(set(row.samples)) / len(row.samples) for row in rows]
        metrics |= _with_interval("samples_distinct", distinct, settings.seed)
    return metrics


def _greedy(name: str, check: Check, rows: Sequence[Prediction], settings: EvaluationSettings) -> Metrics:
    return _with_interval(name, greedy_shares(check, rows), settings.seed) | _pass_at(name, check, rows, settings)


def _pass_at(name: str, check: Check, rows: Sequence[Prediction], settings: EvaluationSettings) -> Metrics:
    wanted = (settings.samples,) if settings.pass_at is None else settings.pass_at
    metrics: Metrics = {}
    for k in wanted:
        metrics |= _with_interval(f"{name}_pass_at_{k}", pass_at(k, check, rows), settings.seed)
    return metrics


def _with_interval(name: str, values: Sequence[float], seed: int, weights: Sequence[float] | None = None) -> Metrics:
    found = interval(values, weights, seed=seed)
    low, high = (found.low, found.high) if found else (None, None)
    return {name: mean(values, weights), f"{name}_low": low, f"{name}_high": high}


def _exponential(value: float | None) -> float | None:
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None
