"""The evidence about a version has every event of the registry about it; where it was deployed is another story."""

import pytest

from schemas.generate.examples import EXAMPLES
from schemas.topics import MODELS, TOPIC_OF
from services.audit.evidence import _version_of

ABOUT_VERSIONS = sorted(
    name
    for name, topic in TOPIC_OF.items()
    if topic is MODELS and not name.startswith("Deployment") and hasattr(EXAMPLES[name].data, "version")
)


def test_several_kinds_of_events_are_about_a_version() -> None:
    assert {"ModelRegistered", "VersionDescribed", "VersionStateChanged", "GatesChecked"} <= set(ABOUT_VERSIONS)


@pytest.mark.parametrize("name", ABOUT_VERSIONS)
def test_each_of_them_is_found_by_model_and_version(name: str) -> None:
    event = EXAMPLES[name]
    assert _version_of(event) == (event.data.model, event.data.version)  # type: ignore[attr-defined]
