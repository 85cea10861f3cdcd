"""What an event costs after a million of them, against what it cost after ten thousand."""

from benchmarks.full_loop import Servers, answers_of_chassis
from benchmarks.load import rate

_EARLY = (5_000, 25_000)


async def measure(servers: Servers, *, events: int) -> dict[str, float]:
    """Return the events per second around the ten-thousandth and at the end."""
    times = await answers_of_chassis(servers, events)
    late = max(_EARLY[1], round(events * 0.95))
    return {
        "early": rate(times, _EARLY[0] / len(times), _EARLY[1] / len(times)),
        "late": rate(times, late / len(times), 1.0),
    }


def summary(found: dict[str, float]) -> dict[str, float]:
    """Return the ratio of an event's cost late to its cost early."""
    return {"cost_per_event_10k_to_1m": found["early"] / found["late"]}
