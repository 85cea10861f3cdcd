"""Prepares bitsandbytes' optimiser, which keeps its moments in 8 bits."""

from services.trainer.modelling.four_bits import require_bitsandbytes

EIGHT_BITS = "adamw_8bit"


def require_eight_bits(section: str) -> None:
    """Import the optimiser. Raises UserFault if it does not work on this machine."""
    require_bitsandbytes(f"{section}.optimiser.name", EIGHT_BITS, "adamw or adafactor")


def begin_eight_bits(section: str) -> None:
    """Prepare one run of the method in `section`. Raises UserFault if the optimiser does not work on this machine.

    The optimiser remembers by their addresses weights of earlier runs in this process whose moments it does not quantise; they
    are forgotten.
    """
    require_eight_bits(section)
    from bitsandbytes.optim import GlobalOptimManager

    GlobalOptimManager.get_instance().initialize()
