"""A history as lines that a person reads: what happened, when, because of which line, and where it lies."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from services.audit.causal_order import EventGroup, Line, Order

LEGEND = "Columns: number, ← number of its cause, time in the log (UTC), event, summary, [record]."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE_WIDTH = 19


def history_lines(groups: Sequence[EventGroup]) -> Iterator[str]:
    """Yield each group of events under a heading. The text comes from events and is not yet escaped for a terminal."""
    width = len(str(sum(len(group.lines) for group in groups)))
    for group in groups:
        yield f"— {', '.join(group.about) or 'no aggregate named'} —"
        for line in group.lines:
            yield _line(line, width)
        yield ""


def _line(line: Line, width: int) -> str:
    record = line.record
    because = "" if line.because is None else f"←{line.because}"
    remark = f" ({line.remark})" if line.remark else ""
    place = f"{record.order.topic}:{record.order.partition}:{record.order.offset}"
    return f"{line.number:>{width}} {because:<{width + 1}} {_time(record.order)} {record.type:<{_TYPE_WIDTH}} {record.text}{remark} [{place}]"


def _time(order: Order) -> str:
    try:
        return f"{_EPOCH + timedelta(milliseconds=order.timestamp):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    except OverflowError:
        return f"{order.timestamp} ms"
