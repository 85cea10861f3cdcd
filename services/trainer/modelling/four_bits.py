"""Defers the import of bitsandbytes until its 4-bit weights or its optimiser are needed: with torch's compiler it takes 1.6 s of
processor time.

PEFT imports it wherever it is installed. Neither PEFT nor transformers looks for it again once it was not found.
"""

import sys

from schemas.reasons import Reason
from services.chassis.executor.child import UserFault


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


def require_bitsandbytes(field: str, value: str, instead: str) -> None:
    """Import it for the setting `field`. Raises UserFault, with the remedy to set `instead`, if it does not work on this machine."""
    with_bitsandbytes()
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        message = f"bitsandbytes does not work on this machine ({type(error).__name__})"
        remedy = f"set {field} to {instead}, or use a machine that bitsandbytes supports"
        raise UserFault(Reason(field=field, value=value, message=message, remedy=remedy)) from error


def require_four_bits(section: str) -> None:
    """Import it for 4-bit weights. Raises UserFault if it does not work on this machine."""
    require_bitsandbytes(f"{section}.quantization", "nf4", "none")
