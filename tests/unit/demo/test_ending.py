"""A demo that worked says where everything is; one that did not says which step, why, and what to do."""

import io
import json
from pathlib import Path

from rich.console import Console

from schemas.jobs import JobCancelled, JobFailed, JobRejected, StepFault
from schemas.reasons import Reason
from services.cli.demo.ending import failure_lines, print_failure, print_success, write_report
from tests.unit.demo.fabricated import finished
from tests.unit.demo.test_observed_job import ACCEPTED, JOB, observed

REASON = Reason(
    field="dataset.columns.prompt", value="'question'", message="no such column", remedy="name one of request, answer"
)


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100), out


def test_a_completed_job_leaves_both_reports_and_says_where_things_are(tmp_path: Path) -> None:
    job = finished("rlaif", tmp_path / "artifacts")
    folder = tmp_path / "deep" / "demo"
    made = write_report(job, "rlaif", lambda ref: Path(ref.uri), peak_memory_bytes=3_210_000_000, folder=folder)
    assert json.loads((folder / "report.json").read_text()) == made.model_dump()
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    shown, out = console()
    print_success(shown, job, made, folder)
    text = out.getvalue()
    counts = [line.split(" on ")[0].strip() for line in text.splitlines() if " on neuroweaver." in line]
    assert counts == [f"{count} event" if count == 1 else f"{count} events" for count in made.events.values()]
    assert "1 event" in counts
    for part in (
        "after RLAIF", "support-router 1.0.0 · alias candidate", "ab" * 32, "14 min 54 s, at most 3.2 GB",
        "neuroweaver topics read neuroweaver.jobs --key demo-1", "neuroweaver audit trace support-router@1.0.0",
        "neuroweaver models try support-router", "report.html",
    ):  # fmt: skip
        assert part in text, part


def test_a_failed_job_names_step_cause_reasons_and_the_last_lines_of_the_log() -> None:
    fault = StepFault(
        cause="user", message="the data cannot be used", reasons=(REASON,), log_tail=("loading", "[red]no[/red]")
    )
    shown, out = console()
    print_failure(shown, observed(ACCEPTED, JobFailed(job_id=JOB, step="prepare", fault=fault)))
    text = out.getvalue()
    assert "failed in step prepare; cause: user." in text
    assert f"neuroweaver audit replay --job {JOB}" in text
    assert "dataset.columns.prompt: no such column (got 'question'); name one of request, answer" in text
    assert "[red]no[/red]" in text


def test_a_rejected_a_cancelled_and_a_late_job_say_why() -> None:
    deadline = StepFault(cause="user", message="the deadline has passed")
    assert str(REASON) in "\n".join(failure_lines(observed(JobRejected(job_id=JOB, reasons=(REASON,)))))
    assert "cancelled: by a person" in "\n".join(
        failure_lines(observed(ACCEPTED, JobCancelled(job_id=JOB, reason="by a person")))
    )
    late = "\n".join(failure_lines(observed(ACCEPTED, JobFailed(job_id=JOB, step=None, fault=deadline))))
    assert "failed; cause: user." in late
    assert "the deadline has passed" in late
