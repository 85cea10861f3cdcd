"""The line that tells people what an event says: each type has one, and a move of an alias says who made it and why."""

from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.generate.examples import EXAMPLES
from schemas.models import Lineage, ModelRegistered
from services.audit.summary import sentence

LINEAGE = Lineage(
    job_id="j", step="register", requester="r", base_model="b", base_model_sha256=None, dataset_sha256=None, configuration={},
    results={},
)  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_type_of_event_has_a_line(name: str) -> None:
    assert sentence(EXAMPLES[name].data, EXAMPLES[name].source)


def test_a_move_of_an_alias_says_who_made_it_and_why() -> None:
    assert sentence(EXAMPLES["ModelRolledBack"].data, "neuroweaver/registry") == (
        "support-router@production is 1.0.0 again, and 1.1.0 no longer, by ana: Answers are empty."
    )


def said(**fields: Any) -> str:
    artifact = ArtifactRef(uri="/a", sha256="1" * 64, size=1)
    made = ModelRegistered(model="m", version="1.0.0", artifact=artifact, lineage=LINEAGE, **fields)
    return sentence(made, "neuroweaver/registry")


def test_a_metric_is_told_with_its_bounds_and_the_first_four_of_many() -> None:
    metrics = {"loss": 0.44123, "loss_low": 0.4, "loss_high": 0.481, "rows": 90.0, "size_bytes": 2.0**21, "judge": None}
    told = (
        "m@1.0.0 is the adapter 111111111111, loss 0.4412 (0.4 to 0.481), rows 90, size_bytes 2 MiB, judge not measurable"
    )
    assert said(metrics=metrics) == told
    assert said(metrics={**metrics, "more": 1.0}) == f"{told}, …"


def test_a_whole_model_that_nothing_measured_is_named_as_such() -> None:
    assert said(metrics={}, kind="model", evaluated=False) == "m@1.0.0 is the model 111111111111, not evaluated"
