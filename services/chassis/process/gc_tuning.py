"""Python's garbage collector walks through everything that imports made, again and again, while a backlog is applied.

Measured: a tenth of the processor time per event (docs/performance.md).
"""

import gc

_NEW_OBJECTS = 50_000


def spare_the_collector() -> None:
    """Leave what exists now out of later collections, and collect young objects less often; call once, after the imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)


def collect() -> None:
    """Find what nothing but itself refers to, now: asyncio's transports, where many connections were closed. Takes milliseconds."""
    gc.collect()
