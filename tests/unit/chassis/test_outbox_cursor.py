"""Where the relay reads the outbox from: never behind a row that a transaction may still show it."""

from hypothesis import example, given
from hypothesis import strategies as st

from services.chassis.kernel.relay.outbox import OutboxCursor


def test_the_first_look_is_at_everything() -> None:
    assert OutboxCursor().is_due(0.0)
    assert OutboxCursor().floor == 0


def test_rows_are_sent_unread_only_where_every_earlier_one_is_known() -> None:
    window = OutboxCursor()
    assert window.follow([1, 2])
    assert not window.follow([4]), "the third may still appear"
    window.seen([4, 5])
    assert not window.follow([6])
    assert window.follow([3])
    assert window.follow([6])
    assert not window.follow([7, 9]), "another transaction has the eighth"


def test_after_a_gap_that_stays_they_are_again_once_every_transaction_of_then_has_ended() -> None:
    window = OutboxCursor()
    window.seen([100])
    window.start_whole(0.0, xmin=10, xmax=20)
    window.seen([101])
    assert not window.follow([102])
    window.start_whole(1.0, xmin=20, xmax=30)
    assert not window.follow([102]), "the outbox is not read yet"
    window.seen([], more=False)
    assert window.follow([102])


def test_the_floor_rises_when_every_transaction_of_then_has_ended() -> None:
    window = OutboxCursor()
    window.seen([500])
    window.start_whole(0.0, xmin=10, xmax=20)
    assert not window.is_due(0.5)
    window.start_whole(1.0, xmin=19, xmax=30)
    assert window.floor == 0, "transaction 19 may show a row below 500"
    window.start_whole(2.0, xmin=20, xmax=40)
    assert window.floor == 500


Step = tuple[str, int]
_AT_ONCE = 2
"""So many rows one read takes."""
_HALF_SEEN = [
    ("look", 0), ("insert", 0), ("insert", 1), ("insert", 2), ("insert", 3), ("commit", 3), ("read", 0), ("look", 0),
    ("commit", 0), ("commit", 1), ("commit", 2), ("look", 0),
]  # fmt: skip
"""More rows lie below a floor that has just risen than the read takes with which it rose; what is left is of the third key."""


_PAST_A_GAP = [("insert", 0), ("insert", 1), ("commit", 1), ("read", 0), ("commit", 0), ("insert", 0), ("hand over", 0)]
"""A row appears in a gap, and the next row of its key is handed over before the outbox is read."""


@example([*_HALF_SEEN, ("insert", 2), ("commit", 2), ("read", 0)])
@example(_PAST_A_GAP)
@given(
    st.lists(st.tuples(st.sampled_from(["insert", "commit", "hand over", "read", "look"]), st.integers(0, 4)), max_size=60)
)
def test_a_row_is_never_read_or_taken_after_a_later_row_of_its_key(steps: list[Step]) -> None:
    """Five keys; a key's next row is inserted when the transaction of the one before has ended, as its aggregate's lock has it. Who
    commits may be another process, or this one, which hands the row over."""
    window, now = OutboxCursor(), 0.0
    position, transaction = 0, 0
    open_rows: dict[int, tuple[int, int]] = {}
    shown: dict[int, int] = {}
    read: dict[int, list[int]] = {}
    for what, key in [*steps, *(("commit", key) for key in range(5)), *(("look", 0) for _ in steps)]:
        if what == "insert" and key not in open_rows:
            position, transaction = position + 1, transaction + 1
            open_rows[key] = (position, transaction)
        elif what == "commit" and key in open_rows:
            shown[open_rows.pop(key)[0]] = key
        elif what == "hand over" and key in open_rows:
            row, _ = open_rows.pop(key)
            if window.follow([row]):
                read.setdefault(key, []).append(row)
            else:
                shown[row] = key
        elif what in ("read", "look"):
            now += 0.4 if what == "read" else 1.0
            if window.is_due(now):
                xmin = min((xid for _, xid in open_rows.values()), default=transaction + 1)
                after = window.start_whole(now, xmin, transaction + 1)
            else:
                after = window.floor
            found = sorted(row for row in shown if row > after)[:_AT_ONCE]
            for row in found:
                read.setdefault(shown.pop(row), []).append(row)
            window.seen(found, more=len(found) == _AT_ONCE)
    assert not shown
    assert all(rows == sorted(rows) for rows in read.values())
