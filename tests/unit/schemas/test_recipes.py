"""Settings that are valid alone but make no sense together are refused."""

import pytest
from pydantic import ValidationError

from schemas.recipes.feedback import FeedbackSettings


def test_a_field_cannot_be_judged_and_kept_equal() -> None:
    with pytest.raises(ValidationError, match="both answers would be the same"):
        FeedbackSettings(judged_field="reply", equal_fields=("queue", "reply"))


def test_fields_can_be_kept_equal_only_beside_a_judged_one() -> None:
    with pytest.raises(ValidationError, match="`equal_fields` needs `judged_field`"):
        FeedbackSettings(equal_fields=("queue",))
