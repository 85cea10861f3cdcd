"""A pipeline may register what nothing has evaluated; a dry run says so, since the version would have no metrics."""

from typing import Any

import pytest

from schemas.reasons import Reason
from schemas.requests import JobRequest
from services.orchestrator.domain.planning import plan
from services.orchestrator.domain.presets import PRESETS
from services.orchestrator.domain.unevaluated import unevaluated
from tests.unit.orchestrator.scenario import a_request
from tests.unit.orchestrator.test_planning import PREPARE, TRAIN, a_step, preset

DATA, OWN = {"dataset": "prepare.dataset"}, {"adapter": "train.adapter"}
REGISTER = a_step("register", "register", inputs=OWN)
EVALUATE = a_step("measure", "evaluate", inputs=DATA | OWN)
BASE = a_step("base", "evaluate", inputs=DATA)
MERGE = a_step("merge", "compress", inputs=OWN)
MERGED = {"model": "merge.model"}
JUDGE = a_step("train", "train", algorithm="reward", inputs={"preferences": "prepare.preferences"})
SPLIT = {"dataset": {"reference": "/data", "split": {"test": None}}}


def said(*steps: dict[str, Any], **fields: Any) -> list[Reason]:
    request = JobRequest.model_validate(a_request(pipeline=list(steps), **fields))
    return list(unevaluated(request, plan(request)))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_measures_what_it_registers(name: str) -> None:
    request = JobRequest.model_validate(a_request(**preset(name)))
    assert list(unevaluated(request, plan(request))) == []


@pytest.mark.parametrize(
    "steps",
    [
        (PREPARE, TRAIN, EVALUATE, REGISTER | {"needs": ["measure"]}),
        (PREPARE, TRAIN, EVALUATE, MERGE | {"needs": ["measure"]}, REGISTER | {"needs": ["merge"]}),
        (PREPARE, TRAIN, MERGE, EVALUATE | {"inputs": DATA | MERGED}, REGISTER | {"inputs": MERGED, "needs": ["measure"]}),
        (PREPARE, JUDGE, REGISTER),
        (PREPARE, TRAIN),
    ],
    ids=[
        "evaluated",
        "evaluated further back",
        "a whole model",
        "a reward model with held-out pairs",
        "nothing registered",
    ],
)
def test_what_is_measured_before_is_not_remarked_on(steps: tuple[dict[str, Any], ...]) -> None:
    assert said(*steps) == []


@pytest.mark.parametrize(
    ("steps", "remedy"),
    [
        ((PREPARE, TRAIN, REGISTER), "add a step of kind evaluate"),
        ((PREPARE, TRAIN, EVALUATE, REGISTER), "add measure to its needs"),
        ((PREPARE, TRAIN, BASE, REGISTER | {"needs": ["base"]}), "add a step of kind evaluate"),
        (
            (PREPARE, TRAIN, EVALUATE, MERGE, REGISTER | {"inputs": MERGED, "needs": ["measure"]}),
            "add a step of kind evaluate",
        ),
    ],
    ids=["no evaluation", "one that it does not wait for", "of the base model only", "of what it was merged from"],
)
def test_a_registration_without_an_evaluation_is_told(steps: tuple[dict[str, Any], ...], remedy: str) -> None:
    (note,) = said(*steps)
    assert note.field == f"pipeline.{len(steps) - 1}.needs"
    assert "not evaluated" in note.message
    assert remedy in note.remedy


def test_a_reward_model_without_held_out_pairs_is_told() -> None:
    (note,) = said(PREPARE, JUDGE, REGISTER, **SPLIT)
    assert "not evaluated" in note.message
