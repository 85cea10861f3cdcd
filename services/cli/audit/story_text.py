"""A story as lines that a person reads: what happened, when, because of which line, and where it lies."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from services.audit.story import Chapter, Line, Order

LEGEND = "Columns: number, ← number of its cause, time in the log (UTC), event, what it says, [where it lies]."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE_WIDTH = 19


def story_lines(chapters: Sequence[Chapter]) -> Iterator[str]:
    """Chapters with a heading each. Text of others: not yet safe for a terminal."""
    width = len(str(sum(len(chapter.lines) for chapter in chapters)))
    for chapter in chapters:
        yield f"— {', '.join(chapter.about) or 'about nothing that it names'} —"
        for line in chapter.lines:
            yield _line(line, width)
        yield ""


def _line(line: Line, width: int) -> str:
    told = line.told
    because = "" if line.because is None else f"←{line.because}"
    remark = f" ({line.remark})" if line.remark else ""
    place = f"{told.order.topic}:{told.order.partition}:{told.order.offset}"
    return f"{line.number:>{width}} {because:<{width + 1}} {_time(told.order)} {told.type:<{_TYPE_WIDTH}} {told.text}{remark} [{place}]"


def _time(order: Order) -> str:
    try:
        return f"{_EPOCH + timedelta(milliseconds=order.timestamp):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    except OverflowError:
        return f"{order.timestamp} ms"
