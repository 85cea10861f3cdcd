"""Checks in `prepare` that this machine and the architecture are able to do what the settings of a training ask for."""

from schemas.reasons import Reason
from schemas.recipes.methods import MethodSettings
from services.chassis.executor.child import UserFault
from services.trainer.engine.eight_bits import EIGHT_BITS, require_eight_bits
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.four_bits import require_four_bits
from services.trainer.modelling.packing import mixes_rows


def check_abilities(architecture: Architecture, settings: MethodSettings, section: str) -> None:
    """Raise UserFault for the first setting of `section` that cannot be followed."""
    if settings.quantization == "nf4":
        require_four_bits(section)
    if settings.optimiser.name == EIGHT_BITS:
        require_eight_bits(section)
    if getattr(settings, "packing", False) and mixes_rows(architecture):
        raise UserFault(
            Reason(
                field=f"{section}.packing",
                value="true",
                message=f"models of type {architecture.config.model_type} read across the rows of a sequence",
                remedy=f"set {section}.packing to false",
            )
        )
