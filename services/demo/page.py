"""Renders the demo's report as one HTML file without external resources; all text from outside is escaped."""

from collections.abc import Sequence
from html import escape

from schemas.jobs import FeedbackRecorded
from services.chassis.reports import elements
from services.chassis.reports.elements import scroll, section
from services.demo.chart import loss_chart
from services.demo.findings import ArtifactFindings, Curve, HeldOutExample, SampledAnswer
from services.demo.observed_job import ObservedJob
from services.demo.report import COLUMNS, STAGE_TITLES, Report, duration, percent, table

_TEXT_LIMIT = 180


def page(found: Report, job: ObservedJob, artifacts: ArtifactFindings) -> str:
    """The HTML text of the report."""
    name = f"{found.model.name} {found.model.version}"
    sections = (
        _scores(found),
        _curves(artifacts.curves),
        _feedback(job.feedback),
        _examples(artifacts.examples),
        _times(found),
        _trail(found),
    )
    return elements.page(
        title=f"{name} · NeuroWeaver demo",
        kicker="NeuroWeaver demo",
        heading=name,
        lede=_lede(found),
        sections=sections,
        footer=f"<p>{_footer(found, job)}</p>",
    )


def _lede(found: Report) -> str:
    scores = found.scores
    text = f"One event on Kafka became this model in {duration(found.seconds['total'])}."
    last = scores.rlaif or scores.sft
    if scores.base and last:
        text += (
            f" On {found.rows} customer requests with words that it never saw, it finds the right queue and priority in "
            f"{percent(last.exact_match)} of the cases; the base model found them in {percent(scores.base.exact_match)}."
        )
    if scores.sft and scores.rlaif:
        text += (
            f" AI feedback raised the share of good replies from {percent(scores.sft.good_reply)} to "
            f"{percent(scores.rlaif.good_reply)}."
        )
    return text


def _scores(found: Report) -> str:
    note = (
        f"<p>Measured on {found.rows} held-out requests. Queue and priority are compared in the most likely answer. Replies are"
        " sampled at temperature 1 and checked by rules that no judge sees: kind, names the item, promises nothing absolute,"
        " definite, neither short nor long. In brackets is the 95 % confidence interval. The judge score is a log-likelihood ratio; above 0 means closer to the "
        "principle.</p>"
    )
    return section(
        "scores",
        "Before and after, in numbers",
        note + scroll("Scores", elements.table(COLUMNS, table(found))),
    )


def _curves(curves: Sequence[Curve]) -> str:
    charts = "\n".join(
        elements.figure(loss_chart(curve), f"{curve.title}, step {curve.step}") for curve in curves if curve.points
    )
    note = '<p class="quiet">Training loss by optimiser step: thin as measured, bold as moving mean.</p>'
    return section("loss", "Training loss", f'{note}\n<div class="charts">{charts}</div>') if charts else ""


def _feedback(feedback: FeedbackRecorded | None) -> str:
    if feedback is None:
        return ""
    facts = (
        ("replies compared", str(feedback.candidates)),
        ("preference pairs", str(feedback.pairs)),
        ("ties, not used", str(feedback.ties)),
        ("not judged", str(feedback.invalid)),
        ("rules agree with the judge", percent(feedback.agreement)),
        ("longer reply preferred", percent(feedback.longer_preferred)),
    )
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return section(
        "feedback", "Results of the judge", f"<p>Judge: <code>{escape(feedback.judge)}</code></p>\n<dl>{items}</dl>"
    )


def _examples(examples: Sequence[HeldOutExample]) -> str:
    if not examples:
        return ""
    note = f"<p>The first {len(examples)} held-out requests, without any selection, each with one sampled answer.</p>"
    return section("examples", "Before and after, in words", note + "\n".join(map(_example, examples)))


def _example(example: HeldOutExample) -> str:
    answers = "\n".join(map(_answer, example.answers))
    return (
        f'<article class="example"><blockquote>{escape(example.request)}</blockquote>'
        f'<div class="quiet">belongs to {escape(example.queue)}, priority {escape(example.priority)}</div>'
        f'<div class="answers">{answers}</div></article>'
    )


def _answer(answer: SampledAnswer) -> str:
    text = answer.text if answer.reply is None else answer.reply
    shown = escape(text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT].rstrip() + " …")
    if answer.reply is None:
        marks = _mark(False, "no readable JSON answer")
    else:
        marks = _mark(answer.routed, "routed right" if answer.routed else "routed wrong")
        marks += _mark(not answer.broken, "good reply" if not answer.broken else "breaks: " + ", ".join(answer.broken))
    title = escape(STAGE_TITLES.get(answer.stage, answer.stage))
    return f'<div class="answer"><h3>{title}</h3><p>{shown}</p><ul class="marks">{marks}</ul></div>'


def _mark(good: bool, text: str) -> str:
    sign = '<span aria-hidden="true">✓</span>' if good else '<span aria-hidden="true">✗</span>'
    return f'<li class="{"yes" if good else "no"}">{sign} {escape(text)}</li>'


def _times(found: Report) -> str:
    steps = {name: seconds for name, seconds in found.seconds.items() if name != "total"}
    longest = max(steps.values(), default=0) or 1
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td><span class="bar" style="width:{100 * seconds / longest:.1f}%"></span></td><td>{escape(duration(seconds))}</td></tr>'
        for name, seconds in steps.items()
    )
    head = '<thead><tr><th scope="col">step</th><td></td><th scope="col">time</th></tr></thead>'
    return section(
        "times",
        "Time of each step",
        f"<p>{escape(duration(found.seconds['total']))} from the request to the end of the job; at most"
        f" {found.peak_memory_bytes / 1e9:.1f} GB of memory for all processes together, broker and database included.</p>\n"
        f'<table class="bars">{head}<tbody>{rows}</tbody></table>',
    )


def _trail(found: Report) -> str:
    rows = [(topic, str(count)) for topic, count in found.events.items()]
    commands = "\n".join(read_commands(found))
    return section(
        "trail",
        "The audit trail",
        "<p>Every fact of the job is on Kafka as readable JSON.</p>\n"
        + scroll("Events", elements.table(("topic", "events of this job"), rows))
        + f"\n<pre>{escape(commands)}</pre>",
    )


def read_commands(found: Report) -> list[str]:
    """Commands with which a person reads the job's history."""
    keys = {"neuroweaver.models": found.model.name}
    return [f"neuroweaver topics read {topic} --key {keys.get(topic, found.job_id)}" for topic in found.events]


def _footer(found: Report, job: ObservedJob) -> str:
    ended = f"{job.ended:%Y-%m-%d %H:%M} UTC" if job.ended else ""
    return f"Job <code>{escape(found.job_id)}</code> ended {escape(ended)}. Artifact <code>{escape(found.model.digest)}</code>."
