"""Checks in `prepare` that this machine and the architecture are able to do what the settings of a training ask for."""

from schemas.reasons import Reason, shown
from schemas.recipes.lora import LoraSettings
from schemas.recipes.methods import MethodSettings, trains_all
from services.chassis.executor.child import UserFault
from services.language_models.precision import device, is_computable
from services.trainer.engine.eight_bits import EIGHT_BITS, require_eight_bits
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.four_bits import require_four_bits
from services.trainer.modelling.packing import mixes_rows


def check_abilities(architecture: Architecture, settings: MethodSettings, section: str) -> None:
    """Raise UserFault for the first setting of `section` that cannot be followed."""
    if not is_computable(settings.precision, device()):
        message, remedy = "the GPU of this machine does not compute in bf16", f"set {section}.precision to auto or fp32"
        raise UserFault(Reason(field=f"{section}.precision", value="bf16", message=message, remedy=remedy))
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


def check_continuation(settings: MethodSettings, section: str, base_model: str) -> None:
    """Raise UserFault for a setting of `section` that an adapter which the job starts from has already decided."""
    started = f"the job starts from a version that is an adapter for {shown(base_model)}"
    if trains_all(settings):
        remedy = "merge the version with a step of kind compress and start from the model, or set adaptation to lora"
        message = f"{started}, and an adapter is not among the weights that are trained"
        raise UserFault(Reason(field=f"{section}.adaptation", value="full", message=message, remedy=remedy))
    if settings.lora != LoraSettings():
        changed = settings.lora.model_dump(exclude_defaults=True)
        remedy = "leave it out, or name the base model of the version to train a new adapter"
        message = f"{started}, and it keeps the options that it was made with"
        raise UserFault(Reason(field=f"{section}.lora", value=shown(changed), message=message, remedy=remedy))
