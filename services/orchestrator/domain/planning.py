"""Plans a request's pipeline as a graph of steps, or gives the reasons why it cannot be one.

A preset is only a list of steps defined here; both are planned in the same way, so an explicit pipeline can do whatever a
preset does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from schemas.reasons import Reason, shown
from schemas.requests import JobRequest, PipelineStep
from schemas.steps import (
    INPUTS_OF,
    OUTPUTS_OF,
    EvaluateSettings,
    LabelSettings,
    PlannedStep,
    PrepareSettings,
    RegisterSettings,
    SampleSettings,
    ScoreSettings,
    StepSettings,
    TrainSettings,
)

STEPS_AT_MOST = 100


class PlanFault(Exception):
    """The pipeline is not a graph that can be executed."""

    def __init__(self, reasons: list[Reason]) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)


def _step(name: str, kind: str, *needs: str, method: str | None = None, **inputs: str) -> PipelineStep:
    chosen = {"algorithm" if method == "kto" else "method": method}
    return PipelineStep.model_validate({"name": name, "kind": kind, **chosen, "needs": needs, "inputs": inputs})


_DATA = "prepare.dataset"

PRESETS: Mapping[str, tuple[PipelineStep, ...]] = {
    "sft": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="sft", dataset=_DATA),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
    "rlaif": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("score-base", "score", predictions="evaluate-base.predictions"),
        _step("train", "train", method="sft", dataset=_DATA),
        _step("evaluate-sft", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("score-sft", "score", predictions="evaluate-sft.predictions"),
        _step("sample", "sample", dataset=_DATA, adapter="train.adapter"),
        _step("label", "label", candidates="sample.candidates"),
        _step("align", "train", method="dpo", preferences="label.preferences", adapter="train.adapter"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="align.adapter"),
        _step("score", "score", predictions="evaluate.predictions"),
        _step(
            "register", "register", "evaluate-base", "score-base", "evaluate-sft", "score-sft", "evaluate", "score",
            adapter="align.adapter",
        ),
    ),
    "dpo": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="dpo", preferences="prepare.preferences"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
    "kto": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="kto", preferences="prepare.preferences"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
}  # fmt: skip

_LEARNT_FROM: Mapping[str, Literal["pairs", "labels"]] = {"dpo": "pairs", "reward": "pairs", "kto": "labels"}
"""What the methods learn from that take the preferences of a data set."""

_TRAIN_INPUTS: Mapping[str, Mapping[str, bool]] = {
    "sft": {"dataset": True, "adapter": False},
    "dpo": {"preferences": True, "adapter": False},
    "kto": {"preferences": True, "adapter": False},
}
"""The inputs of each training method; True if the input is required. Training continues from a bound adapter."""


class _Graph(NamedTuple):
    """Steps with their dependencies, and the faults that they have whatever else a request contains."""

    known: Mapping[str, PipelineStep]
    needs: Mapping[str, tuple[str, ...]]
    order: Sequence[str]
    faults_of_names: Sequence[Reason]
    faults_of_bindings: Sequence[Reason]


def plan(request: JobRequest) -> tuple[PlannedStep, ...]:
    """Return the steps of `request` in an order that respects `needs`. Raises PlanFault with every reason found."""
    if isinstance(request.pipeline, str):
        steps, graph = PRESETS[request.pipeline], _PRESET_GRAPHS[request.pipeline]
    else:
        steps = request.pipeline
        if len(steps) > STEPS_AT_MOST:
            raise PlanFault([_too_many(len(steps))])
        graph = _graph(steps)
    reasons = [*graph.faults_of_names, *_faults_of_settings(steps, request), *graph.faults_of_bindings]
    if reasons:
        raise PlanFault(reasons)
    known = graph.known
    return tuple(
        PlannedStep(
            name=name, kind=known[name].kind, needs=graph.needs[name], inputs=known[name].inputs,
            settings=_settings(known[name], request, known.values()),
        )
        for name in graph.order
    )  # fmt: skip


def _graph(steps: tuple[PipelineStep, ...]) -> _Graph:
    known = {step.name: step for step in reversed(steps)}
    reasons = list[Reason]()
    for index, step in enumerate(steps):
        reasons += _faults_of_inputs(index, step, known)
        reasons += _faults_of_needs(index, step, known)
    needs = {step.name: tuple(name for name in _needs(step) if name in known) for step in steps}
    order, circle = _ordered(needs)
    if circle:
        reasons.append(
            Reason(
                field="pipeline",
                value=shown(" → ".join(circle)),
                message="steps wait for each other in a cycle",
                remedy="remove one of these `needs` or inputs",
            )
        )
    return _Graph(known, needs, order, list(_faults_of_names(steps)), reasons)


def producer_of(binding: str) -> tuple[str, str]:
    """Step and output of a binding `step.output`; a step's name may contain dots, an output's never does."""
    step, _, output = binding.rpartition(".")
    return step, output


def ancestors(steps: tuple[PlannedStep, ...], name: str) -> frozenset[str]:
    """Return every step that must be completed before `name`, however far back."""
    needs = {step.name: step.needs for step in steps}
    found: set[str] = set()
    waiting = list(needs.get(name, ()))
    while waiting:
        step = waiting.pop()
        if step not in found:
            found.add(step)
            waiting += needs.get(step, ())
    return frozenset(found)


def _needs(step: PipelineStep) -> tuple[str, ...]:
    producers = (producer_of(binding)[0] for binding in step.inputs.values())
    return tuple(dict.fromkeys((*producers, *step.needs)))


def _too_many(steps: int) -> Reason:
    return Reason(
        field="pipeline",
        value=f"{steps} steps",
        message=f"a pipeline has at most {STEPS_AT_MOST} steps",
        remedy="split it into several jobs",
    )


def _faults_of_names(steps: tuple[PipelineStep, ...]) -> Iterator[Reason]:
    first: dict[str, int] = {}
    for index, step in enumerate(steps):
        if first.setdefault(step.name, index) != index:
            yield Reason(
                field=f"pipeline.{index}.name",
                value=shown(step.name),
                message=f"step {first[step.name]} has this name already",
                remedy="give every step a unique name",
            )


def _faults_of_inputs(index: int, step: PipelineStep, known: Mapping[str, PipelineStep]) -> Iterator[Reason]:
    accepted = _TRAIN_INPUTS[step.trained_by] if step.trained_by else INPUTS_OF[step.kind]
    doer = f"{step.kind} ({step.trained_by})" if step.trained_by else step.kind
    for name, binding in step.inputs.items():
        field = f"pipeline.{index}.inputs.{name}"
        if name not in accepted:
            remedy = f"bind only {', '.join(accepted)}" if accepted else "leave `inputs` empty"
            yield Reason(field=field, value=shown(binding), message=f"{doer} reads no input {shown(name)}", remedy=remedy)
            continue
        producer, output = producer_of(binding)
        if producer not in known:
            yield Reason(
                field=field,
                value=shown(binding),
                message=f"no step is called {shown(producer)}",
                remedy="write `step.output` with the name of a step of this pipeline",
            )
        elif output not in OUTPUTS_OF[known[producer].kind]:
            offered = ", ".join(f"{producer}.{name}" for name in OUTPUTS_OF[known[producer].kind])
            yield Reason(
                field=field,
                value=shown(binding),
                message=f"{producer} ({known[producer].kind}) has no output {shown(output)}",
                remedy=f"bind {offered}" if offered else "bind another step",
            )
        elif output != name:
            yield Reason(
                field=field,
                value=shown(binding),
                message=f"the input {name} cannot take a {output}",
                remedy=f"bind the {name} of a step that has this output",
            )
    missing = [name for name, required in accepted.items() if required and name not in step.inputs]
    if missing:
        yield Reason(
            field=f"pipeline.{index}.inputs",
            value=shown(step.inputs),
            message=f"{doer} needs the input {', '.join(missing)}",
            remedy=f"bind it, for example {{{missing[0]!r}: '<step>.{missing[0]}'}}",
        )


def _faults_of_needs(index: int, step: PipelineStep, known: Mapping[str, PipelineStep]) -> Iterator[Reason]:
    for number, name in enumerate(step.needs):
        if name not in known:
            yield Reason(
                field=f"pipeline.{index}.needs.{number}",
                value=shown(name),
                message="no step has this name",
                remedy="name a step of this pipeline",
            )


def _faults_of_settings(steps: tuple[PipelineStep, ...], request: JobRequest) -> Iterator[Reason]:
    """Faults of settings that are valid alone but make a step of this pipeline meaningless."""
    present = {step.kind for step in steps}
    if "evaluate" in present and request.dataset.split.test is None:
        yield Reason(
            field="dataset.split.test",
            value="null",
            message="the pipeline evaluates, but no split is held out for it",
            remedy="name the held-out split, or send a pipeline without evaluate steps",
        )
    if "evaluate" in present and "rules" in request.evaluation.metrics and not request.evaluation.rules:
        yield Reason(
            field="evaluation.rules",
            value="()",
            message="the metric `rules` has no rule to measure",
            remedy="add rules, or leave `rules` out of evaluation.metrics",
        )
    for index, step in enumerate(steps):
        if step.kind == "prepare" and len({_LEARNT_FROM[method] for method in _learners(step.name, steps)}) > 1:
            yield Reason(
                field=f"pipeline.{index}",
                value=shown(step.name),
                message="of the steps that learn from its preferences, some need pairs and others labels",
                remedy="bind them to two steps of kind prepare",
            )
    if present & {"label", "score"} and request.feedback.judge.kind == "rules" and not request.feedback.rubric.rules:
        yield Reason(
            field="feedback.rubric.rules",
            value="()",
            message="the `rules` judge has no rule to judge by",
            remedy="add rules, or choose another judge",
        )


def _ordered(needs: Mapping[str, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Return a topological order that keeps the given order where possible (Kahn 1962), and a cycle if there is one."""
    waiting, order = dict(needs), list[str]()
    while ready := next((name for name, before in waiting.items() if not any(b in waiting for b in before)), None):
        order.append(ready)
        del waiting[ready]
    if not waiting:
        return order, []
    path = [next(iter(waiting))]
    while (following := next(name for name in waiting[path[-1]] if name in waiting)) not in path:
        path.append(following)
    return order, [*path[path.index(following) :], following]


def _learners(prepare: str, steps: Iterable[PipelineStep]) -> tuple[str, ...]:
    """Return the methods that learn from the preferences of a step of kind prepare."""
    binding = f"{prepare}.preferences"
    return tuple(step.trained_by for step in steps if step.trained_by and step.inputs.get("preferences") == binding)


def _prepare(step: PipelineStep, request: JobRequest, steps: Iterable[PipelineStep]) -> PrepareSettings:
    """Return the settings of a step of kind prepare: what later steps learn from its rows, and up to which length."""
    learners = _learners(step.name, steps)
    limits = {"pairs": request.preference.max_length, "labels": request.kto.max_length}
    lengths = [limits[_LEARNT_FROM[method]] for method in learners]
    if not learners or any(one.method == "sft" for one in steps):
        lengths.append(request.training.max_length)
    methods = {one.method for one in steps if one.kind == "train"}
    return PrepareSettings(
        base_model=request.base_model,
        chat_template=request.chat_template,
        dataset=request.dataset,
        max_length=min(lengths),
        assistant_turns=request.training.assistant_turns,
        learns=_LEARNT_FROM[learners[0]] if learners else "answers",
        training=request.training if "sft" in methods else None,
        preference=request.preference if "dpo" in methods else None,
        kto=request.kto if "kto" in methods else None,
    )


def _settings(step: PipelineStep, request: JobRequest, steps: Iterable[PipelineStep]) -> StepSettings:
    base, template = request.base_model, request.chat_template
    match step.kind, step.trained_by:
        case "prepare", _:
            return _prepare(step, request, steps)
        case "train", "sft":
            return TrainSettings(base_model=base, chat_template=template, training=request.training)
        case "train", "kto":
            return TrainSettings(base_model=base, chat_template=template, kto=request.kto)
        case "train", _:
            return TrainSettings(base_model=base, chat_template=template, preference=request.preference)
        case "sample", _:
            return SampleSettings(base_model=base, chat_template=template, sampling=request.sampling)
        case "label", _:
            return LabelSettings(base_model=base, feedback=request.feedback)
        case "evaluate", _:
            return EvaluateSettings(base_model=base, chat_template=template, evaluation=request.evaluation)
        case "score", _:
            return ScoreSettings(base_model=base, feedback=request.feedback)
        case "register", _:
            return RegisterSettings(base_model=base, model=request.register_as, alias=request.alias)
    raise AssertionError(f"no settings for kind {step.kind}: PipelineStep refuses unknown kinds")


_PRESET_GRAPHS = {name: _graph(steps) for name, steps in PRESETS.items()}
