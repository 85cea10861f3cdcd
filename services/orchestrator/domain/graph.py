"""Makes the graph of a pipeline's steps: what each waits for, in which order they run, and why it cannot be a graph."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.reasons import Reason, shown
from schemas.requests import PipelineStep
from schemas.results import ADAPTER
from schemas.steps import INPUTS_OF, OUTPUTS_OF, PlannedStep

SCORES = "reward"
"""The method whose adapters score answers and write none."""
_TRAIN_INPUTS: Mapping[str, Mapping[str, bool]] = {
    "sft": {"dataset": True, "adapter": False, "model": False},
    "dpo": {"preferences": True, "adapter": False, "model": False},
    "kto": {"preferences": True, "adapter": False, "model": False},
    "grpo": {"dataset": True, "adapter": False, "model": False},
    "rloo": {"dataset": True, "adapter": False, "model": False},
    "distill": {"dataset": True, "adapter": False, "model": False},
    "reward": {"preferences": True, "adapter": False},
}
"""The inputs of each training method; True if the input is required. Training continues from a bound adapter, on a bound model."""


class Graph(NamedTuple):
    """Steps with their dependencies, and the faults that they have whatever else a request contains."""

    known: Mapping[str, PipelineStep]
    needs: Mapping[str, tuple[str, ...]]
    order: Sequence[str]
    faults_of_names: Sequence[Reason]
    faults_of_bindings: Sequence[Reason]


def graph_of(steps: tuple[PipelineStep, ...]) -> Graph:
    """Return the graph of `steps`, with its faults."""
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
    return Graph(known, needs, order, list(_faults_of_names(steps)), reasons)


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
        elif output == ADAPTER and known[producer].trained_by == SCORES and not _takes_scores(step):
            yield Reason(
                field=field,
                value=shown(binding),
                message=f"{producer} makes a reward model, which scores answers, and {doer} needs a model that writes them",
                remedy="bind the adapter of another method; a reward model is registered, or trained further with reward",
            )
    missing = [name for name, required in accepted.items() if required and name not in step.inputs]
    if missing:
        yield Reason(
            field=f"pipeline.{index}.inputs",
            value=shown(step.inputs),
            message=f"{doer} needs the input {', '.join(missing)}",
            remedy=f"bind it, for example {{{missing[0]!r}: '<step>.{missing[0]}'}}",
        )


def _takes_scores(step: PipelineStep) -> bool:
    return step.kind == "register" or step.trained_by == SCORES


def _faults_of_needs(index: int, step: PipelineStep, known: Mapping[str, PipelineStep]) -> Iterator[Reason]:
    for number, name in enumerate(step.needs):
        if name not in known:
            yield Reason(
                field=f"pipeline.{index}.needs.{number}",
                value=shown(name),
                message="no step has this name",
                remedy="name a step of this pipeline",
            )
