"""Ends a command about a job with the service's reasons, and names the route of a job."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import typer

from schemas.reasons import Reason
from services.cli.edge import RequestRefused
from services.cli.output import err, print_json
from services.cli.printable import printable


def job_path(job_id: str) -> str:
    """Return the route of a job."""
    return f"/training/{quote(job_id, safe='')}"


@contextmanager
def refusals(json: bool) -> Iterator[None]:
    """End the command with the service's reasons, one on each line, if it refuses a request inside the block."""
    try:
        yield
    except RequestRefused as refusal:
        reasons = [Reason.model_validate(reason) for reason in refusal.problem.get("reasons", ())]
        if json:
            print_json(dict(refusal.problem))
        elif reasons:
            err.print(str(refusal.problem.get("title", "Refused")), markup=False)
            print_reasons(reasons)
        else:
            raise
        raise typer.Exit(int(refusal.exit)) from None


def print_reasons(reasons: Iterable[Reason]) -> None:
    """Print reasons to standard error, one on each line."""
    for reason in reasons:
        err.print(printable(str(reason)), markup=False, highlight=False, soft_wrap=True)
