"""Under any schedule and any fault, live state is what the log says, and what was asked for happens once; and the rules matter."""

import os
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from tests.simulation.run import Unsound, run
from tests.simulation.variants import VARIANTS, Variant
from tests.simulation.world import Summary

SEEDS = 100
_BLOCK = 25
_UNSOUND_WITHIN = 400
_FAULTS_OF_THE_TEST = (TypeError, AttributeError, NameError, NotImplementedError)


@cache
def sound(seed: int) -> Summary:
    """What happened in the run of `seed`, which every test may ask for and is run once. Raises Unsound."""
    return run(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, _BLOCK))
def test_every_run_is_sound(first: int) -> None:
    for seed in range(first, first + _BLOCK):
        sound(seed)


def test_every_run_is_sound_in_which_jobs_are_retried_paused_resumed_and_reprioritised() -> None:
    types = Counter[str]()
    for seed in range(_BLOCK):
        types.update(run(seed, controls=True).types)
    assert types.keys() >= {"JobControlled", "JobControlRefused", "StepPriorityChanged", "StepCheckpointRequested"}


def test_a_run_is_its_seed_in_any_process() -> None:
    asked = "from tests.simulation.run import run; print([run(seed).digest for seed in (3, 8, 21)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", asked], env={**os.environ, "PYTHONHASHSEED": number}, capture_output=True, check=True
        ).stdout
        for number in ("1", "2")
    }
    assert said == {f"{[sound(seed).digest for seed in (3, 8, 21)]}\n".encode()}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_without_one_rule_some_run_is_unsound(variant: Variant) -> None:
    with pytest.raises(Unsound, match=r"run it again: python -m tests\.simulation\.soak --seed \d+") as found:
        _run_all(variant)
    assert not isinstance(found.value.__cause__, _FAULTS_OF_THE_TEST), "a run that cannot be run proves nothing"


def test_the_runs_do_what_they_are_about() -> None:
    """Else that they are sound would prove nothing."""
    types, happened, letters = Counter[str](), Counter[str](), Counter[str]()
    for summary in map(sound, range(_BLOCK)):
        happened.update(summary.happened)
        letters.update(summary.letters)
        types.update(summary.types)
    assert types.keys() >= {
        "JobCompleted", "JobFailed", "JobCancelled", "JobRejected", "StepCancelRequested", "StepCancelled", "StepFailed",
        "FeedbackRecorded", "ModelRegistered", "ModelPromoted", "RecordDiscarded",
    }  # fmt: skip
    assert types["StepStarted"] > types["StepCompleted"]
    assert letters.keys() >= {"unreadable", "failed", "parked", "retried", "discarded"}
    assert happened.keys() >= {
        "request", "again", "cancel", "kill", "rebalance", "notice", "lose_session", "operate", "lose_database", "jump", "hang",
        "freeze", "raise_partitions", "notice_partitions", "lose_answer", "garbage", "bad_release", "see_to_letters",
    }  # fmt: skip


def _run_all(variant: Variant) -> None:
    for seed in range(_UNSOUND_WITHIN):
        run((variant.first + seed) % _UNSOUND_WITHIN, variant)
