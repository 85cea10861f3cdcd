"""Estimates what the later steps of a job need of a machine, and refuses a step that the machine of this one cannot hold.

Both use the rows that were read. A step that runs out of memory is tried again in smaller pieces, so one is refused only if its smallest
piece does not fit; for sharing a machine, each step counts as large as it begins.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from schemas.jobs import StepNeed
from schemas.reasons import Reason
from schemas.recipes.distill import DistillSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.online import OnlineSettings
from schemas.recipes.sampled import SampledSettings
from schemas.steps import COMPRESSION, GENERATION, JUDGING, AnswersAtOnce, PrepareSettings
from services.chassis.executor.child import UserFault
from services.language_models.precision import compute_dtype, device
from services.trainer.harness.generated import Generated
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.generation_memory import Decoded, InferenceEstimate, generation_estimate, scored_at_once
from services.trainer.steps.inference_memory import decoders
from services.trainer.steps.made_needs import compression_need, judging_need
from services.trainer.steps.memory import batch_of, estimate_of, refuse_too_large, rows_at_once
from services.trainer.steps.need_bytes import device_bytes, need_of_bytes, traced

_GB = 2**30


class RowSizes(NamedTuple):
    """The largest rows of a data set and of the tasks that are measured beside it, in tokens."""

    longest: int
    supervised: int
    """The most supervised tokens of a row."""
    tasks: Generated = Generated()
    """What tasks of the harness generate."""


class LoadedModels(NamedTuple):
    """The models that later steps load."""

    base: Architecture
    teacher: Architecture | None = None
    judge: Architecture | None = None
    """Null: no judge is a model, or this machine does not have it."""


def checked_needs(
    models: LoadedModels, settings: PrepareSettings, sizes: RowSizes, memory: int, shards: int = 1
) -> Mapping[str, StepNeed]:
    """Return the needs of later steps, as `StepResult.needs`; of trainings that of each process if so many share the weights. Raises
    UserFault for a step that `memory` bytes cannot hold at all.

    What cannot be estimated, because the architecture's forward pass cannot be traced, is left out.
    """
    found: dict[str, StepNeed] = {}
    for section, method in settings.methods.items():
        # pairs that a judge makes later, and answers that are sampled, may be as long as the method allows
        read = section == "training" or (settings.learns != "answers" and not isinstance(method, SampledSettings))
        largest = sizes if read else RowSizes(method.max_length, method.max_length)
        beside = models.teacher if isinstance(method, DistillSettings) else None
        need = traced(partial(_training, models.base, method, largest, beside, shards))
        if need is None or device_bytes(need) > memory:
            refuse_too_large(models.base, method, section, min(sizes.longest, method.max_length), memory, beside, shards)
        if need is not None:
            found[section] = need
    if settings.answers is not None:
        found |= _generation(models.base, settings.answers, sizes, memory)
    if settings.compressions and (made := compression_need(models.base, settings.compressions, sizes.longest, memory)):
        found[COMPRESSION] = made
    if settings.judged is not None and models.judge is not None:
        judging = traced(partial(judging_need, models.judge, settings.judged, sizes.longest))
        found |= {} if judging is None else {JUDGING: judging}
    return found


def _training(
    architecture: Architecture, settings: MethodSettings, sizes: RowSizes, teacher: Architecture | None, shards: int
) -> StepNeed:
    rows = rows_at_once(settings.optimiser)
    length = min(sizes.longest, settings.max_length)
    learnt = settings.max_new_tokens if isinstance(settings, SampledSettings) else min(length, sizes.supervised)
    found = estimate_of(architecture, settings, batch_of(settings, rows, length, learnt), teacher, shards)
    gathered = (found.weights + found.optimiser) * shards if shards > 1 else found.weights
    return need_of_bytes(found.total + sampled_bytes(architecture, settings), gathered)


def sampled_bytes(architecture: Architecture, settings: MethodSettings) -> int:
    """Return what sampling the answers of an optimiser step takes, besides the model; 0 for a method that samples none."""
    if not isinstance(settings, OnlineSettings | DistillSettings):
        return 0
    where = device()
    group = settings.group_size if isinstance(settings, OnlineSettings) else 1
    prompts = -(-settings.optimiser.batch_size // group)
    batch = Decoded(prompts, group, settings.max_prompt_tokens, settings.max_new_tokens, 0)
    found = generation_estimate(architecture, batch, compute_dtype(settings.precision, where), where.type)
    return found.cache + found.logits + found.activations


def _generation(architecture: Architecture, answers: AnswersAtOnce, sizes: RowSizes, memory: int) -> Mapping[str, StepNeed]:
    """Return the need of generating answers, by its name. On a processor every core decodes prompts of its own."""
    where = device()
    prompt = architecture.within(sizes.longest)

    def of_rows(prompts: int, cores: int) -> InferenceEstimate:
        scored = scored_at_once(architecture, prompts, sizes.supervised)
        return estimated(Decoded(prompts * cores, answers.answers, prompt, answers.tokens, scored))

    def of_tasks(prompts: int, cores: int) -> InferenceEstimate:
        return estimated(Decoded(prompts * cores, 1, sizes.tasks.prompt, sizes.tasks.answer, 0))

    def estimated(batch: Decoded) -> InferenceEstimate:
        return generation_estimate(architecture, batch, compute_dtype(answers.precision, where), where.type, adapted=True)

    need: dict[str, StepNeed] = {}
    for of in (of_rows, of_tasks) if sizes.tasks.answer else (of_rows,):
        found = traced(partial(of, answers.prompts, decoders()))
        if found is None:
            return {}
        if found.total > memory and (least := of(1, 1)).total > memory:
            raise UserFault(
                _too_large(answers, least, memory) if of is of_rows else _task_too_large(sizes.tasks, least, memory)
            )
        here = need_of_bytes(found.total, found.weights)
        need[GENERATION] = max(need.get(GENERATION, here), here, key=device_bytes)
    return need


def _task_too_large(asked: Generated, least: InferenceEstimate, memory: int) -> Reason:
    return Reason(
        field="evaluation.harness.tasks",
        value=str(asked.answer),
        message=f"the device's memory does not suffice: one answer of so many tokens takes about {least.total / _GB:.1f} GiB, and "
        f"there are {memory / _GB:.1f}",
        remedy="lower max_gen_toks in the task file, or leave the task out",
    )


def _too_large(answers: AnswersAtOnce, least: InferenceEstimate, memory: int) -> Reason:
    what = f"answers to one prompt take about {least.total / _GB:.1f} GiB, and there are {memory / _GB:.1f}"
    if least.weights + least.merging > least.cache + least.logits:
        return Reason(
            field="base_model",
            message=f"the device's memory does not suffice to generate with it: {what}",
            remedy="name a smaller base model",
        )
    return Reason(
        field="max_new_tokens",
        value=str(answers.tokens),
        message=f"the device's memory does not suffice: {what}",
        remedy="lower max_new_tokens of sampling and evaluation, or sampling.n and evaluation.samples",
    )
