"""The line that tells people what an event says: each type has one, and a move of an alias says who made it and why."""

import pytest

from schemas.generate.examples import EXAMPLES
from services.audit.summary import sentence


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_type_of_event_has_a_line(name: str) -> None:
    assert sentence(EXAMPLES[name].data, EXAMPLES[name].source)


def test_a_move_of_an_alias_says_who_made_it_and_why() -> None:
    assert sentence(EXAMPLES["ModelRolledBack"].data, "neuroweaver/registry") == (
        "support-router@production is 1.0.0 again, and 1.1.0 no longer, by ana: Answers are empty."
    )
