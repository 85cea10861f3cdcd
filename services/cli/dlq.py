"""`neuroweaver dlq`: what a service could not process, for the operator who mends it."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.reasons import reasons_of
from schemas.steps import SERVICES
from services.chassis.kernel import store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.listing import MOST, LetterFilter, LetterPage, ListedLetter, page
from services.chassis.kernel.deadletters.models import DeadLetter
from services.chassis.kernel.operations import handling as acting
from services.chassis.kernel.operations.handling import DeadLetterContext, NoSuchLetter, NotPossibleNow, Retried
from services.chassis.kernel.records import RecordId, named
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import brief, out, print_json, print_pairs, print_table, say
from services.cli.printable import printable
from services.cli.serve import composed
from services.cli.service_names import known

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ServiceName = Annotated[str, typer.Argument(help="orchestrator, trainer, feedback or registry.", metavar="SERVICE")]
PlaceText = Annotated[str, typer.Argument(help="The record's id, as `list` shows it.", metavar="TOPIC:PARTITION:OFFSET")]
State = Annotated[str | None, typer.Option(help="unreadable, failed, parked or discarded; default: all but discarded.")]
Type = Annotated[str | None, typer.Option("--type", help="Type of the event.")]
Error = Annotated[str | None, typer.Option(help="Text that the error contains; upper and lower case are equal.")]
Key = Annotated[str | None, typer.Option(help="The record's key.")]
Since = Annotated[
    str | None, typer.Option(help="Only records appended to the log at this time or later, RFC 3339.", metavar="TIME")
]
Until = Annotated[
    str | None, typer.Option(help="Only records appended to the log before this time, RFC 3339.", metavar="TIME")
]
_PREFIX = "neuroweaver."
_T = TypeVar("_T")


@app.command("list", example="neuroweaver dlq list orchestrator --state failed")
def list_letters(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
    state: State = None,
    type_: Type = None,
    error: Error = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[
        str | None,
        typer.Option(help="Continue after this record, which the previous list names.", metavar="TOPIC:PARTITION:OFFSET"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="The most records to list for each service.")] = 100,
    json: Json = False,
) -> None:
    """List records that could not be processed, each followed by the parked records that wait for it; `show` prints a
    record's bytes."""
    behind = None if after is None else named(_place(after))
    wanted = _filter(
        state=state, type=type_, error=error, key=key, since=since, until=until, after=behind, limit=limit
    )  # fmt: skip

    async def read(engine: AsyncEngine) -> LetterPage:
        async with engine.connect() as connection:
            return await page(connection, wanted)

    with _handlings(services or SERVICES) as handlings:
        found = {handling.service: _on(handling, read) for handling in handlings}
    if json:
        print_json({service: seen.letters for service, seen in found.items()})
        return
    table = [row for service, seen in found.items() for letter in seen.letters for row in _table_rows(service, letter)]
    if table:
        print_table(
            ("service", "record", "state", "type", "key", "tries", "error"), table, least=("tries", "key", "type", "state")
        )
    else:
        out.print("None: every record that was read was processed." if after is None else "No more.")
    for service, seen in found.items():
        if seen.next is not None:
            say(f"There may be more: neuroweaver dlq list {service} --after {seen.next.removeprefix(_PREFIX)}")


@app.command(example="neuroweaver dlq show orchestrator jobs:3:41207")
def show(service: ServiceName, place: PlaceText, json: Json = False) -> None:
    """Show one record with its bytes, and why and where in the code it failed. Exit code 4 when it does not exist."""
    wanted = _place(place)

    async def read(engine: AsyncEngine) -> DeadLetter | None:
        async with engine.connect() as connection:
            return await repository.show(connection, wanted)

    with _handlings([service]) as (handling,):
        letter = _on(handling, read)
    if letter is None:
        stop_with(
            Exit.NOT_FOUND, f"{named(wanted)}: {service} has no such dead letter; see `neuroweaver dlq list {service}`"
        )
    if json:
        print_json(letter)
    else:
        _print_letter(letter)


@app.command(example="neuroweaver dlq retry orchestrator jobs:3:41207")
def retry(
    service: ServiceName,
    place: Annotated[
        str | None, typer.Argument(help="One record; otherwise use --all or a filter.", metavar="[TOPIC:PARTITION:OFFSET]")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All records that failed or could not be read.")] = False,
    type_: Type = None,
    error: Error = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
) -> None:
    """Handle records again, then the records parked behind them in order. Exit code 1 when one still fails."""
    filters = {"type": type_, "error": error, "key": key, "since": since, "until": until}
    if (place is not None) == (every or any(filters.values())):
        stop_with(Exit.USAGE, "name either one record, or --all or a filter (--type, --error, --key, --since, --until)")
    one = None if place is None else _place(place)
    wanted = _filter(**filters, limit=MOST)

    async def act(engine: AsyncEngine) -> list[Retried]:
        if one is not None:
            return [await acting.retry(engine, handling, one)]
        done: list[Retried] = []
        following: str | None = ""
        while following is not None:
            async with engine.connect() as connection:
                seen = await page(connection, wanted.model_copy(update={"after": following or None}))
            following = seen.next
            for letter in seen.letters:
                if letter.state not in ("failed", "unreadable"):
                    continue
                try:
                    done.append(await acting.retry(engine, handling, letter.record_id))
                except NoSuchLetter:  # drained behind an earlier one
                    continue
        return done

    with _handlings([service]) as (handling,), _refusals():
        done = _on(handling, act)
    if json:
        print_json(done)
    else:
        _print_outcome(done)
    raise typer.Exit(int(Exit.FAILED if any(one.failed for one in done) else Exit.OK))


@app.command(example='neuroweaver dlq discard orchestrator jobs:3:41207 --reason "sent twice"')
def discard(
    service: ServiceName,
    place: PlaceText,
    reason: Annotated[str, typer.Option(help="Why it is discarded; recorded in the log for ever.")],
    by: Annotated[str | None, typer.Option(help="Who discards it; default: your user name.")] = None,
    json: Json = False,
) -> None:
    """Discard one record for ever; every replay skips it. The records parked behind it are then processed."""
    wanted, who = _place(place), by or getpass.getuser()
    for name, said, most in (("--reason", reason, 2000), ("--by", who, 256)):
        if not 0 < len(said.strip()) <= most:
            stop_with(Exit.USAGE, f"{name}={said[:50]!r}: 1 to {most} characters are needed; the text is recorded for ever")
    with _handlings([service]) as (handling,), _refusals():
        done = _on(handling, lambda engine: acting.discard(engine, handling, wanted, reason.strip(), who.strip()))
    if json:
        print_json(done)
    else:
        out.print(f"Discarded {named(wanted)}.", highlight=False)
        _print_outcome([done])


@contextmanager
def _handlings(services: Sequence[str]) -> Iterator[list[DeadLetterContext]]:
    with composed(known(services)) as built:
        yield [service.handling for service in built]


def _on(handling: DeadLetterContext, act: Callable[[AsyncEngine], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        engine = store.connect(handling.database_url, pool_size=2)
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NoSuchLetter as error:
        stop_with(Exit.NOT_FOUND, str(error))
    except NotPossibleNow as error:
        stop_with(Exit.FAILED, str(error))


def _filter(**given: object) -> LetterFilter:
    try:
        return LetterFilter.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        stop_with(Exit.USAGE, "; ".join(f"--{reason}" for reason in reasons_of(error)))


def _place(said: str) -> RecordId:
    topic, _, rest = said.removeprefix(_PREFIX).partition(":")
    numbers = rest.split(":")
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        stop_with(Exit.USAGE, f"{said!r}: write a record as TOPIC:PARTITION:OFFSET, such as jobs:3:41207")
    return _PREFIX + topic, int(numbers[0]), int(numbers[1])


def _table_rows(service: str, letter: ListedLetter) -> Iterator[tuple[object, ...]]:
    for one, indent in ((letter, ""), *((parked, "  ") for parked in letter.parked)):
        where = indent + named(one.record_id).removeprefix(_PREFIX)
        error = "" if indent else printable(brief(one.error, 200))
        yield service, where, one.state, one.event_type, printable(one.key or ""), one.attempts or "", error


def _print_letter(letter: DeadLetter) -> None:
    said: list[tuple[str, object]] = [
        ("record", named(letter.record_id)),
        ("state", letter.state if letter.blocked_by is None else f"{letter.state} behind offset {letter.blocked_by}"),
        ("key", letter.key),
        ("event", letter.event_type and f"{letter.event_type} {letter.event_id}"),
        ("job", letter.job_id),
        ("appended", _time(letter.appended_at)),
        ("recorded", _time(letter.recorded_at)),
        ("tries", letter.attempts),
        ("error", letter.error),
        ("discarded", letter.reason and f"by {letter.discarded_by}: {letter.reason}"),
        *((f"  {name}", value) for name, value in letter.headers),
        ("value", letter.value),
    ]
    print_pairs((name, value if value is None else printable(str(value))) for name, value in said)
    if letter.stack:
        out.print()
        for line in letter.stack.rstrip().splitlines():
            out.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _print_outcome(done: Sequence[Retried]) -> None:
    applied = [place for one in done for place in one.applied]
    out.print(
        f"Applied {len(applied)}: {', '.join(applied)}" if applied else "Applied none.", highlight=False, markup=False
    )
    for one in done:
        if one.failed is not None:
            line = f"{named(one.failed.record_id)} still fails ({one.failed.attempts} tries): {one.failed.error}"
            out.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        if one.parked:
            out.print(f"{one.parked} parked records of that partition wait.", highlight=False)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}"
