"""The one command, `neuroweaver`. It imports nothing heavy before it knows what is wanted, so that help appears at once."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from services.cli.commands import Commands, Group
from services.cli.exits import Exit, stop_with
from services.cli.service_names import known

_DEMO_EXAMPLE = "neuroweaver demo --pipeline sft"
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


_MEANT = {"evidence": ("@", "write")}
"""The command of a group that is meant where none is named and a word has this sign: `neuroweaver evidence MODEL@VERSION`."""


def _loaded_from(module: str, meant: tuple[str, str] | None = None) -> type[TyperGroup]:
    """Return a group with the commands of `module.app`, which is imported when one of them is used."""

    class Deferred(Group):
        command_of_sign = meant

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


app = Commands()
topics_app = Commands("Create topics as the catalogue lists them; read their records.")
app.add_typer(topics_app, name="topics")
for _name, _module, _help in (
    ("jobs", "services.cli.jobs", "Submit, watch, list, control and cancel jobs."),
    ("datasets", "services.cli.datasets", "Show what a job would learn from a data set."),
    ("models", "services.cli.models", "List, show, download and try models."),
    ("deployments", "services.cli.deployments", "Deploy versions, and see what is deployed."),
    ("projections", "services.cli.projections", "Verify projections against the log, and rebuild them from it."),
    ("dlq", "services.cli.dlq", "List, retry and discard records that could not be processed."),
    (
        "partitions",
        "services.cli.partitions",
        "Show how far services have read the log, and let a stopped partition continue.",
    ),
    ("audit", "services.cli.audit.command", "Prove how each model was made."),
    ("bridge", "services.cli.bridge", "Mirror what the log says into systems of others."),
    ("evidence", "services.cli.evidence", "Write the evidence of a version, and verify it offline."),
):
    app.add_typer(Commands(_help, cls=_loaded_from(_module, _MEANT.get(_name))), name=_name)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """NeuroWeaver: turns one event into a better language model, and proves how it was made."""


@app.command(example="neuroweaver up --detach")
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is ready; `down` stops it.")
    ] = False,
    bound: Annotated[bool, typer.Option("--bound", hidden=True, help="Stop when standard input ends.")] = False,
) -> None:
    """Start Kafka, PostgreSQL and all four services on this machine; Ctrl-C drains and stops them, and the data remain."""
    from services.cli.settings import CliSettings
    from services.devstack import state

    settings = CliSettings()
    if not detach:
        from services.cli.up import run as run_up

        run_up(settings, bound=bound)
        return
    from services.cli.output import say
    from services.cli.stack import HOW_LONG, log_of, spawn, wait_until_up
    from services.cli.status import print_addresses

    starting = None
    if state.owner(settings.home) is None:
        starting = spawn(settings)
        say(f"Starting Kafka, PostgreSQL and four services, which usually takes {HOW_LONG}; the log is {log_of(settings)}.")
    print_addresses(wait_until_up(settings, starting))


@app.command(example="neuroweaver down")
def down() -> None:
    """Stop the stack of this home, whoever started it; the next start continues its jobs."""
    from services.cli.output import print_line
    from services.cli.settings import CliSettings
    from services.cli.stack import home_of, stop_stack

    settings = CliSettings()
    stopped = stop_stack(settings)
    print_line("Stopped." if stopped else f"No stack of {home_of(settings)} is running.")


@app.command(example="neuroweaver status --json")
def status(json: Json = False) -> None:
    """Show what is running, its addresses and whether it is ready. Exit code 0 ready, 1 not ready, 3 not running."""
    from services.cli.output import print_json
    from services.cli.settings import CliSettings
    from services.cli.status import print_status, read_status

    found = read_status(CliSettings())
    if json:
        print_json(found)
    else:
        print_status(found)
    raise typer.Exit(int(found.exit))


@app.command(example="neuroweaver queue --limit 20")
def queue(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most attempts of each executor in a list.")] = 200,
    json: Json = False,
) -> None:
    """Show which steps run, and which wait for a worker: in which order, and when each is expected to start."""
    from services.cli.queue import show_queue

    show_queue(limit, json)


@app.command(example="NEUROWEAVER_HTTP_PORT=8011 neuroweaver serve orchestrator")
def serve(
    service: Annotated[str, typer.Argument(help="orchestrator, trainer, feedback or registry.", metavar="SERVICE")],
) -> None:
    """Run one service, as a deployment does: with settings from NEUROWEAVER_* and JSON logs; SIGTERM drains it."""
    known([service])
    from services.cli.serve import run as run_service

    run_service(service)


@app.command(example="neuroweaver migrate orchestrator")
def migrate(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
) -> None:
    """Migrate the services' databases to the schema of this version. Services also do this when they start."""
    known(services or ())
    from services.cli.migrating import migrate_all
    from services.cli.settings import CliSettings

    migrate_all(CliSettings(), services)


@topics_app.command("plan", example="neuroweaver topics plan --check")
def topics_plan(
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 when anything differs, for scripts.")] = False,
    json: Json = False,
) -> None:
    """Show how the topics differ from the catalogue. Exit code 1 when an operator must decide about a difference."""
    _topics("plan", json, check=check)


@topics_app.command("apply", example="neuroweaver topics apply")
def topics_apply(json: Json = False) -> None:
    """Create missing topics and correct their settings; other settings stay, and no record is lost."""
    _topics("apply", json)


@topics_app.command("read", example="neuroweaver topics read neuroweaver.jobs --key support-2026-11 --json")
def topics_read(
    topic: Annotated[str, typer.Argument(help="For example neuroweaver.jobs.", metavar="TOPIC")],
    key: Annotated[str | None, typer.Option(help="Only records of this key, such as a job's id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest N records.")] = None,
    json: Json = False,
) -> None:
    """Print the records of a topic, oldest first, with their headers. Exit code 4 when the topic does not exist."""
    from services.chassis.kernel.log import UnknownTopic
    from services.cli.settings import CliSettings
    from services.cli.topic_reader import as_json, as_text, read

    try:
        records = read(CliSettings(), topic, key=key, limit=limit)
    except UnknownTopic as failure:
        stop_with(Exit.NOT_FOUND, str(failure))
    for record in records:
        typer.echo((as_json if json else as_text)(record))


@app.command(example="neuroweaver retention --dry-run")
def retention(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove what the retention policy (NEUROWEAVER_RETENTION_*) no longer keeps.

    Exit code 1 when a kind could not be checked.
    """
    known(services or ())
    from schemas.steps import SERVICES
    from services.cli.retention import run as apply_policy
    from services.cli.retention import show
    from services.cli.settings import CliSettings

    found = apply_policy(CliSettings(), services or SERVICES, dry=dry_run)
    whole = show(found, dry=dry_run, json=json)
    raise typer.Exit(int(Exit.OK if whole else Exit.FAILED))


@app.command(example="neuroweaver doctor")
def doctor(json: Json = False) -> None:
    """Check this machine and its servers and say what to do. Exit code 1 when something must be repaired."""
    from services.cli.doctor import examine
    from services.cli.output import print_json, print_table
    from services.cli.program import as_typed
    from services.cli.settings import CliSettings

    findings = examine(CliSettings())
    if json:
        print_json(findings)
    else:
        words = {"good": "good", "note": "note", "mend": "MEND"}
        rows = []
        for finding in findings:
            rows.append((words[finding.verdict], finding.check, as_typed(finding.detail)))
            if finding.remedy:
                rows.append(("", "", f"→ {as_typed(finding.remedy)}"))
        print_table(("", "check", "finding"), rows)
    raise typer.Exit(int(Exit.FAILED if any(finding.verdict == "mend" for finding in findings) else Exit.OK))


@app.command(
    example=_DEMO_EXAMPLE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Make a model from one event while you watch, and report what each stage gained."""
    command = importlib.import_module("services.cli.demo.command").demo
    single = Commands(completion=False)
    single.command(example=_DEMO_EXAMPLE)(command)
    code = typer.main.get_command(single).main(
        context.args, prog_name=f"{context.find_root().info_name} demo", standalone_mode=False
    )
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
    """Entry point: see `services.cli.ending`."""
    from services.cli.ending import run_command

    run_command(app)


if __name__ == "__main__":
    run()
