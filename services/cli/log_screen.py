"""Shows the logs of a job's attempts: a title for each attempt with its lines below, or JSON for programs."""

import json
import sys
from typing import Any

from services.cli.job_logs import AttemptLog
from services.cli.output import out, print_json
from services.cli.printable import printable
from services.orchestrator.views import JobView


class LogScreen:
    """The output of `jobs logs`. `each`: JSON is written line by line as it comes, not as one list at the end."""

    def __init__(self, job: JobView, *, json: bool, each: bool) -> None:
        self._job, self._json, self._each = job, json, each
        self._entries: list[dict[str, Any]] = []
        self._title = ""

    def show(self, log: AttemptLog) -> None:
        """Show some lines of one attempt."""
        if self._json and self._each:
            self._write_lines(log)
        elif self._json:
            self._add(log)
        else:
            self._print(log)

    def end(self) -> None:
        """Write what was collected, or say that there is nothing."""
        if self._json and not self._each:
            print_json(self._entries)
        elif not self._json and not self._title:
            said = f"No attempt of job {self._job.job_id} has been started; it is {self._job.status}."
            out.print(said, markup=False, soft_wrap=True)

    def _add(self, log: AttemptLog) -> None:
        last = self._entries[-1] if self._entries else {}
        if (last.get("step"), last.get("attempt")) == (log.step, log.attempt):
            last["log_tail"] += log.lines
            return
        told = log.fault.model_dump(exclude={"log_tail"}) if log.fault else {}
        about = {
            "step": log.step,
            "attempt": log.attempt,
            "status": log.status,
            "missing": log.missing,
            "no_report": log.no_report,
        }
        self._entries.append({**about, **told, "log_tail": list(log.lines)})

    def _print(self, log: AttemptLog) -> None:
        title = f"{log.step}, attempt {log.attempt}: "
        title += f"{log.fault.cause}: {log.fault.message}" if log.fault else log.status
        title += f"; its report: {log.no_report}" if log.no_report else ""
        if (title != self._title and (log.lines or log.missing or log.fault)) or not self._title:
            self._title = title
            out.print(printable(title), style="bold", markup=False, highlight=False, soft_wrap=True)
        for line in (f"({log.missing})",) if log.missing else log.lines:
            out.print(f"  {printable(line)}", markup=False, highlight=False, soft_wrap=True)

    def _write_lines(self, log: AttemptLog) -> None:
        for line in log.lines:
            sys.stdout.write(
                json.dumps({"step": log.step, "attempt": log.attempt, "line": line}, ensure_ascii=False) + "\n"
            )
        sys.stdout.flush()
