"""A trace as pages that a person reads from top to bottom: the verdict, each version with its chain, each step with all of
it."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.audit.summary import feedback
from services.audit.tracing import Hop, Trace, TracedStep, TracedVersion
from services.chassis.reports.metric_text import metrics_line

_VALUE_LIMIT = 100
_NAME_WIDTH = 16


def trace_lines(trace: Trace) -> Iterator[str]:
    """Yield the lines of a trace. The text comes from events and is not yet escaped for a terminal."""
    yield (
        f"job {trace.job_id}, requested by {trace.requester or 'an unnamed requester'}: {trace.status or 'never requested'}"
    )
    if trace.complete:
        yield f"The chain is complete: {trace.events} events, every link is on the log."
    else:
        yield f"The chain is NOT complete. Of {trace.events} events on the log, these are missing:"
        yield from (f"  - {what}" for what in trace.missing)
    yield from (f"  {_hop(hop)}" for hop in trace.milestones)
    if trace.fault:
        yield f"It failed ({trace.fault.cause}): {trace.fault.message}"
    for version in trace.versions:
        yield ""
        yield from _version(version)
    if trace.steps and not any(step.kind == "register" for step in trace.steps):
        yield ""
        yield "No step of the plan registers a version."
    for step in trace.steps:
        yield ""
        yield from _step(step)


def _version(made: TracedVersion) -> Iterator[str]:
    lineage = made.lineage
    names = ", ".join(dict.fromkeys(made.aliases))
    yield f"{made.model}@{made.version}" + (f", which got the alias {names}" if names else "")
    yield from _pairs(
        {
            "artifact": f"{made.artifact.sha256}  {made.artifact.uri}",
            "base model": f"{lineage.base_model_sha256 or 'digest unknown'}  {lineage.base_model}",
            "data set": lineage.dataset_sha256 or "digest unknown",
            "metrics": metrics_line(made.metrics),
            "recipe": _settings(lineage.configuration),
        }
    )
    yield "  chain"
    yield from (f"    {_hop(hop)}" for hop in made.chain)


def _step(step: TracedStep) -> Iterator[str]:
    attempts = "" if step.attempts <= 1 else f", {step.attempts} attempts"
    by = f", by {step.worker}" if step.worker else ""
    yield f"step {step.name} ({step.kind}): {step.status}{attempts}{by}"
    yield from _pairs({"settings": _settings(step.settings)})
    yield from _pairs({f"read {name}": sha256 for name, sha256 in step.inputs.items()})
    yield from _pairs({f"made {name}": f"{ref.sha256}  {ref.uri}" for name, ref in step.outputs.items()})
    yield from _pairs(
        {"metrics": metrics_line(step.metrics), "facts": ", ".join(f"{k}={v}" for k, v in step.facts.items())}
    )
    for batch in step.batches:
        unused = "" if batch.counted else " (of an attempt whose result was not used)"
        yield f"  {'feedback':<{_NAME_WIDTH}} {feedback(batch.recorded)}{unused} [{batch.hop.place}]"


def _pairs(pairs: Mapping[str, str]) -> Iterator[str]:
    return (f"  {name:<{_NAME_WIDTH}} {value}" for name, value in pairs.items() if value)


def _hop(hop: Hop) -> str:
    about = f" {hop.step}" if hop.step else ""
    return f"{hop.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" {hop.type}{about}, by {hop.source} [{hop.place}]"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={_short(value)}" for path, value in _flat("", settings))


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Return all settings by dotted path, without those that are null or empty."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(f"{path}.{name}" if path else str(name), item)
    elif value is not None and value not in ("", []):
        yield path, value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"
