"""Defers the import of bitsandbytes until 4-bit weights are needed: with torch's compiler it takes 1.6 s of processor time.

PEFT imports it wherever it is installed. Neither PEFT nor transformers looks for it again once it was not found.
"""

import sys


def without_bitsandbytes() -> None:
    """Make this process treat it as not installed, unless it is imported already."""
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]  # CPython's mark of a module not to be found


def with_bitsandbytes() -> None:
    """Make it importable again, also for libraries that did not find it before."""
    if sys.modules.get("bitsandbytes", sys) is not None:
        return
    del sys.modules["bitsandbytes"]
    for name, looks in (
        ("peft.import_utils", ("is_bnb_available", "is_bnb_4bit_available")),
        ("transformers.utils.import_utils", ("is_bitsandbytes_available",)),
    ):
        for look in looks if name in sys.modules else ():
            getattr(sys.modules[name], look).cache_clear()
