"""Why: the one command, `neuroweaver`. It imports nothing heavy before it knows what is wanted, so that help appears at once."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from services.chassis.redaction import redact_output
from services.cli.exits import EXIT_CODES, Exit, stop_with
from services.cli.service_names import known

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _loaded_from(module: str) -> type[TyperGroup]:
    """A group whose commands are those of `module.app`, imported when one of them is asked for."""

    class Deferred(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return self._real().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return self._real().get_command(ctx, cmd_name)

        def _real(self) -> TyperGroup:
            return typer.main.get_group(importlib.import_module(module).app)

    return Deferred


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"neuroweaver {version('neuroweaver')}")
        raise typer.Exit


app = typer.Typer(
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="Bring topics to the catalogue; read what lies on them.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(
    typer.Typer(
        cls=_loaded_from("services.cli.jobs"), help="Submit jobs, watch, list and cancel them.", no_args_is_help=True
    ),
    name="jobs",
)
app.add_typer(
    typer.Typer(cls=_loaded_from("services.cli.models"), help="List, show, download and try models.", no_args_is_help=True),
    name="models",
)
app.add_typer(
    typer.Typer(
        cls=_loaded_from("services.cli.projections"),
        help="Verify projections against the log, and rebuild them from it.",
        no_args_is_help=True,
    ),
    name="projections",
)
app.add_typer(
    typer.Typer(
        cls=_loaded_from("services.cli.dlq"),
        help="List, retry and discard what could not be processed.",
        no_args_is_help=True,
    ),
    name="dlq",
)
app.add_typer(
    typer.Typer(
        cls=_loaded_from("services.cli.partitions"),
        help="Show how far services have read the log, and let a partition that stands go on.",
        no_args_is_help=True,
    ),
    name="partitions",
)
app.add_typer(
    typer.Typer(
        cls=_loaded_from("services.cli.audit.command"), help="Prove how each model came about.", no_args_is_help=True
    ),
    name="audit",
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """NeuroWeaver: turns one event into a better language model, and proves how it came about."""


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is ready; stop it with `down`.")
    ] = False,
    bound: Annotated[bool, typer.Option("--bound", hidden=True, help="End when standard input ends.")] = False,
) -> None:
    """Start Kafka, PostgreSQL and all four services on this machine; Ctrl-C drains and stops them, data stay."""
    from services.chassis.devstack import state
    from services.cli.settings import CliSettings

    settings = CliSettings()
    if not detach:
        from services.cli.up import run as run_up

        run_up(settings, bound=bound)
        return
    from services.cli.stack import spawn, wait_until_up
    from services.cli.status import print_addresses

    running = state.owner(settings.home) is not None
    print_addresses(wait_until_up(settings, None if running else spawn(settings)))


@app.command()
def down() -> None:
    """Stop the stack of this home, whoever started it; jobs go on where they were at the next start."""
    from services.cli.output import out
    from services.cli.settings import CliSettings
    from services.cli.stack import stop_stack

    settings = CliSettings()
    stopped = stop_stack(settings)
    out.print("Stopped." if stopped else f"No stack of {settings.home} is running.", markup=False)


@app.command()
def status(json: Json = False) -> None:
    """Say what runs, its addresses and whether it is ready. Exit code 0 ready, 1 not ready, 3 not running."""
    from services.cli.output import print_json
    from services.cli.settings import CliSettings
    from services.cli.status import print_status, read_status

    found = read_status(CliSettings())
    if json:
        print_json(found)
    else:
        print_status(found)
    raise typer.Exit(int(found.exit))


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="orchestrator, trainer, feedback or registry.", metavar="SERVICE")],
) -> None:
    """Run one service, as a deployment does: settings from NEUROWEAVER_*, JSON logs, SIGTERM drains."""
    known([service])
    from services.cli.serve import run as run_service

    run_service(service)


@app.command()
def migrate(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
) -> None:
    """Bring the services' databases to the schema of this version. Services do it themselves when they start."""
    known(services or ())
    from services.cli.migrating import migrate_all
    from services.cli.settings import CliSettings

    migrate_all(CliSettings(), services)


@topics_app.command("plan")
def topics_plan(
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 when anything differs, for scripts.")] = False,
    json: Json = False,
) -> None:
    """Show what differs from the catalogue. Exit code 1 when a difference is for a person to decide."""
    _topics("plan", json, check=check)


@topics_app.command("apply")
def topics_apply(json: Json = False) -> None:
    """Create missing topics and mend their settings, whatever else is set on them stays; never loses a record."""
    _topics("apply", json)


@topics_app.command("read")
def topics_read(
    topic: Annotated[str, typer.Argument(help="For example neuroweaver.jobs.", metavar="TOPIC")],
    key: Annotated[str | None, typer.Option(help="Only records of this key, such as a job's id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    json: Json = False,
) -> None:
    """Print the records of a topic, oldest first, with their headers. Exit code 4 when there is no such topic."""
    from services.chassis.log import UnknownTopic
    from services.cli.settings import CliSettings
    from services.cli.topic_reader import as_json, as_text, read

    try:
        records = read(CliSettings(), topic, key=key, limit=limit)
    except UnknownTopic as failure:
        stop_with(Exit.NOT_FOUND, str(failure))
    for record in records:
        typer.echo((as_json if json else as_text)(record))


@app.command()
def retention(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Remove what the retention policy (NEUROWEAVER_RETENTION_*) no longer keeps. Exit code 1 when a kind could not be looked through."""
    known(services or ())
    from schemas.steps import SERVICES
    from services.cli.retention import run as apply_policy
    from services.cli.retention import show
    from services.cli.settings import CliSettings

    found = apply_policy(CliSettings(), services or SERVICES, dry=dry_run)
    whole = show(found, dry=dry_run, json=json)
    raise typer.Exit(int(Exit.OK if whole else Exit.FAILED))


@app.command()
def doctor(json: Json = False) -> None:
    """Look for what stands in the way and say what to do. Exit code 1 when something must be mended."""
    from services.cli.doctor import examine
    from services.cli.output import print_json, print_table
    from services.cli.settings import CliSettings

    findings = examine(CliSettings())
    if json:
        print_json(findings)
    else:
        words = {"good": "good", "note": "note", "mend": "MEND"}
        rows = []
        for finding in findings:
            rows.append((words[finding.verdict], finding.check, finding.detail))
            if finding.remedy:
                rows.append(("", "", f"→ {finding.remedy}"))
        print_table(("", "check", "finding"), rows)
    raise typer.Exit(int(Exit.FAILED if any(finding.verdict == "mend" for finding in findings) else Exit.OK))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Make a model from one event before your eyes, and report what each stage brought."""
    command = importlib.import_module("services.cli.demo.command").demo
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(command)
    code = typer.main.get_command(single).main(context.args, prog_name="neuroweaver demo", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def _topics(action: str, json: bool, *, check: bool = False) -> None:
    from services.cli.output import out, print_json, print_table
    from services.cli.settings import CliSettings
    from services.cli.topics import compare

    changes = compare(CliSettings(), apply=action == "apply")
    if json:
        print_json(changes)
    elif changes:
        print_table(("topic", "action", "detail"), [(change.topic, change.action, change.detail) for change in changes])
    else:
        out.print("The topics are as the catalogue says.")
    failed = any(change.action == "conflict" for change in changes) or (check and bool(changes))
    raise typer.Exit(int(Exit.FAILED if failed else Exit.OK))


def run() -> None:
    """Entry point: known failures end in one sentence and their exit code. No secret that the process was given is printed."""
    redact_output()
    try:
        app(prog_name="neuroweaver")
    except Exception as error:
        from services.cli.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        stop_with(*explained)


if __name__ == "__main__":
    run()
