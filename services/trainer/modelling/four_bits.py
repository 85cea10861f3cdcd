"""bitsandbytes is imported only where weights of four bits are wanted: with torch's compiler, which it brings, it takes 1.6 s of a core.

PEFT imports it wherever it is installed. Neither it nor transformers looks for it again once it was not found.
"""

import sys


def without_bitsandbytes() -> None:
    """Have this process go on as if it were not installed, unless it is imported already."""
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]  # what CPython takes for "is not to be found"


def with_bitsandbytes() -> None:
    """Have it found again, whoever has looked for it in vain."""
    if sys.modules.get("bitsandbytes", sys) is not None:
        return
    del sys.modules["bitsandbytes"]
    for name, looks in (
        ("peft.import_utils", ("is_bnb_available", "is_bnb_4bit_available")),
        ("transformers.utils.import_utils", ("is_bitsandbytes_available",)),
    ):
        for look in looks if name in sys.modules else ():
            getattr(sys.modules[name], look).cache_clear()
