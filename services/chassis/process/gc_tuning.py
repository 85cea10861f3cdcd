"""Tunes Python's garbage collector, so that it does not scan the objects of all imports again and again under load.

Measured: this scanning costs a tenth of the processor time per event (docs/performance.md).
"""

import gc

_NEW_OBJECTS = 50_000


def spare_the_collector() -> None:
    """Exclude the objects that exist now from collections, and collect young ones less often; call once, after the
    imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)


def collect() -> None:
    """Free reference cycles now, such as asyncio's transports after many connections were closed. Takes milliseconds."""
    gc.collect()
