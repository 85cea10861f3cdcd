"""Settings that are valid alone but make no sense together are refused, and what is left out has the default of its method."""

import pytest
from pydantic import ValidationError

from schemas.base import Strict
from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.rloo import RlooSettings
from schemas.recipes.sft import TrainingSettings


def test_a_field_cannot_be_judged_and_kept_equal() -> None:
    with pytest.raises(ValidationError, match="both answers would be the same"):
        FeedbackSettings(judged_field="reply", equal_fields=("queue", "reply"))


def test_fields_can_be_kept_equal_only_beside_a_judged_one() -> None:
    with pytest.raises(ValidationError, match="`equal_fields` needs `judged_field`"):
        FeedbackSettings(equal_fields=("queue",))


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        (TrainingSettings, 1e-3),
        (PreferenceSettings, 2e-4),
        (KtoSettings, 2e-4),
        (RewardModelSettings, 2e-4),
        (DistillSettings, 2e-4),
        (GrpoSettings, 1e-4),
        (RlooSettings, 1e-4),
    ],
)
def test_a_method_keeps_its_own_rate_where_a_request_sets_only_the_steps(settings: type[Strict], rate: float) -> None:
    requests: list[dict[str, object]] = [{}, {"optimiser": {}}, {"optimiser": {"steps": 10}}]
    for given in requests:
        assert settings.model_validate(given).model_dump()["optimiser"]["learning_rate"] == rate
    asked = settings.model_validate({"optimiser": {"learning_rate": 0.5}})
    assert asked.model_dump()["optimiser"]["learning_rate"] == 0.5
