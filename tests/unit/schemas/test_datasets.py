"""Names data sets: what a reference to a registered one looks like, and which name data get whose job gives none."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.datasets import dataset_name, dataset_reference
from schemas.recipes.dataset import DATASET_NAME_PATTERN, DatasetSettings


@pytest.mark.parametrize(
    ("reference", "name", "digest"),
    [("support@0123456789ab", "support", "0123456789ab"), ("a.b-c@ABCDEF" + "0" * 58, "a.b-c", "abcdef" + "0" * 58),
     ("x@12", "x", "12")],
)  # fmt: skip
def test_a_name_with_digits_of_a_digest_is_a_registered_data_set(reference: str, name: str, digest: str) -> None:
    assert dataset_reference(DatasetSettings(reference=reference)) == (name, digest)


@pytest.mark.parametrize(
    "reference",
    ["support", "./support@0123456789ab", "owner/name@0123456789ab", "support@main", "support@", "@0123456789ab",
     "s3://bucket/a@0123456789ab", "support@0123456789ab\n", "support@" + "a" * 65, "../a@0123456789ab", "é@0123456789ab"],
)  # fmt: skip
def test_paths_urls_and_ids_of_the_hub_are_none(reference: str) -> None:
    assert dataset_reference(DatasetSettings(reference=reference)) is None


def test_an_id_of_the_hub_at_a_revision_stays_one() -> None:
    assert dataset_reference(DatasetSettings(reference="squad@0123456789ab", format="hub")) is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"reference": "/data/tickets.jsonl"}, "tickets"),
        ({"reference": "/data/tickets/"}, "tickets"),
        ({"reference": "s3://bucket/a/rows%202026.csv?versionId=7"}, "rows-2026"),
        ({"reference": "owner/name@main", "format": "hub"}, "owner.name"),
        ({"reference": "support@0123456789ab"}, "support"),
        ({"reference": "support@0123456789ab", "name": "other"}, "other"),
        ({"reference": "データ.jsonl"}, "dataset"),
        ({"reference": ".."}, "dataset"),
        ({"reference": "/"}, "dataset"),
    ],
)
def test_the_name_is_the_given_one_or_the_last_part_of_the_reference(settings: dict[str, str], name: str) -> None:
    assert dataset_name(DatasetSettings.model_validate(settings)) == name


@given(st.text(min_size=1, max_size=300))
def test_every_reference_gives_a_name(reference: str) -> None:
    name = dataset_name(DatasetSettings(reference=reference))
    assert re.fullmatch(DATASET_NAME_PATTERN, name)


@pytest.mark.parametrize("name", [".", "..", ".hidden", "a/b", "", "n" * 129, "a@b", "a b", "é"])
def test_a_name_that_no_reference_could_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        DatasetSettings(reference="rows.jsonl", name=name)
