"""The loss of an evaluation counts tokens, whichever row they are in."""

import math

import pytest

from services.trainer.steps.metrics import loss_metrics
from services.trainer.steps.references import ReferenceLoss


def loss(nll: float, tokens: int) -> ReferenceLoss:
    return ReferenceLoss(nll, tokens, cut=False)


def test_the_loss_is_the_mean_over_tokens_and_the_perplexity_its_exponential() -> None:
    metrics = loss_metrics([loss(6.0, 2), loss(4.0, 8)], seed=0)
    assert metrics["loss"] == pytest.approx(1.0)
    assert metrics["perplexity"] == pytest.approx(math.e)
    assert (metrics["loss_low"], metrics["loss_high"]) == (0.5, 3.0)


def test_a_row_without_a_supervised_token_does_not_count() -> None:
    assert loss(0.0, 0).mean is None
    assert loss_metrics([loss(0.0, 0), loss(6.0, 2)], seed=0)["loss"] == 3.0
    assert loss_metrics([loss(0.0, 0)], seed=0)["loss"] is None


def test_a_perplexity_beyond_every_number_is_not_measurable() -> None:
    metrics = loss_metrics([loss(800.0, 1)], seed=0)
    assert (metrics["loss"], metrics["perplexity"]) == (800.0, None)
