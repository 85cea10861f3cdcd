"""Checks pipelines with a step of kind import: what it makes, an adapter or a whole model, is known when it has read the files."""

from collections.abc import Iterator, Mapping, Sequence

from schemas.reasons import Reason, shown
from schemas.requests import IMPORT, NO_DATASET, JobRequest, PipelineStep
from schemas.results import ADAPTER, MODEL
from schemas.versions import version_reference
from services.orchestrator.domain.graph import producer_of


def reads_data(request: JobRequest) -> bool:
    """Whether the request names a data set."""
    return request.dataset.reference != NO_DATASET


def imported_by(step: PipelineStep, known: Mapping[str, PipelineStep]) -> str | None:
    """Return the import whose adapter and model the step both binds, of which it gets what there is; None if it binds none so."""
    if not {ADAPTER, MODEL} <= step.inputs.keys():
        return None
    first, second = (producer_of(step.inputs[name])[0] for name in (ADAPTER, MODEL))
    return first if first == second and first in known and known[first].kind == IMPORT else None


def faults_of_imports(steps: Sequence[PipelineStep], request: JobRequest) -> Iterator[Reason]:
    """Yield fields that an import needs or cannot have, and steps that bind half of what it may make."""
    imports = [step for step in steps if step.kind == IMPORT]
    yield from _faults_of_fields(imports, request)
    if not reads_data(request) and any(step.kind == "prepare" for step in steps):
        message, remedy = "a step of kind prepare reads a data set, and none is named", "name one, or leave that step out"
        yield Reason(field="dataset.reference", value=NO_DATASET, message=message, remedy=remedy)
    known = {step.name: step for step in reversed(steps)}
    for index, step in enumerate(steps):
        for name, binding in step.inputs.items():
            maker = known.get(producer_of(binding)[0])
            if maker is not None and maker.kind == IMPORT and imported_by(step, known) is None:
                both = f"{{'adapter': '{maker.name}.adapter', 'model': '{maker.name}.model'}}"
                message = f"whether {shown(maker.name)} makes an adapter or a model is known when it has read the files"
                yield Reason(
                    field=f"pipeline.{index}.inputs.{name}", value=shown(binding), message=message,
                    remedy=f"bind both, {both}; the step gets what there is",
                )  # fmt: skip


def _faults_of_fields(imports: Sequence[PipelineStep], request: JobRequest) -> Iterator[Reason]:
    source = request.import_from
    if len(imports) > 1:
        message = f"{len(imports)} steps are of kind import, and import_from names one source"
        yield Reason(field="pipeline", value=shown(imports[1].name), message=message, remedy="send a job for each")
    if imports and source is None:
        message, remedy = "the pipeline imports, and nothing is named", "name a folder, an s3:// URI or a hub id"
        yield Reason(field="import_from", message=message, remedy=remedy)
    if not imports and source is not None:
        message, remedy = "no step of the pipeline imports", "leave it out, or send pipeline: import"
        yield Reason(field="import_from", value=shown(source), message=message, remedy=remedy)
    if source is not None and version_reference(source):
        message = "it names a version that is registered already"
        remedy = "move an alias to it, or start a job from it with base_model"
        yield Reason(field="import_from", value=shown(source), message=message, remedy=remedy)
    if imports and request.chat_template is not None:
        message = "an import stores the files as they are, and they are served with their own template"
        yield Reason(
            field="chat_template", value=shown(request.chat_template), message=message,
            remedy="leave it out, and put it into the folder as chat_template.jinja",
        )  # fmt: skip
