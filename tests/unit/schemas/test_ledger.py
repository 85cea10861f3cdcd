"""A ledger says of every row how often a training learnt from it, and stays small."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import RowsUsed

IDS = st.builds("{}-{}".format, st.sampled_from(["train", "row", "a-b"]), st.integers(1, 400)) | st.text(max_size=9)


@given(st.lists(st.tuples(IDS, st.integers(0, 9)), max_size=60))
def test_every_row_is_found_with_the_times_that_it_was_used(uses: list[tuple[str, int]]) -> None:
    wanted = Counter[str]()
    for row_id, times in uses:
        wanted[row_id] += times
    ledger = RowsUsed.model_validate_json(RowsUsed.of(uses).model_dump_json())
    assert all(ledger.times(row_id) == times for row_id, times in wanted.items())
    assert all(
        ledger.times(other) == 0
        for other in ("train-401", "valid-1", "", "-", "-1", "train-0", "train-00")
        if other not in wanted
    )


def test_a_hundred_thousand_rows_of_which_half_were_used_once_more_take_a_few_bits_each() -> None:
    ledger = RowsUsed.of((f"train-{number}", 2 + (hash((number, 7)) & 1)) for number in range(1, 100_001))
    assert len(ledger.model_dump_json()) < 40_000
