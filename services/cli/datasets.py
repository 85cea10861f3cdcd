"""`neuroweaver datasets`: shows what a job would learn from a data set before one is started, and finds those that are registered."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from schemas.reasons import reasons_of
from schemas.recipes.dataset import ColumnMapping, DatasetSettings, SplitSettings
from services.cli import erasing, registered_data, row_seen
from services.cli.base_models import local_base
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, print_line, print_pairs
from services.cli.stored_data import stored_data
from services.cli.token_lines import token_lines

app = Commands()
app.add_typer(registered_data.app)
app.add_typer(row_seen.app)
app.add_typer(erasing.app)

_FORMATS = Literal["jsonl", "json", "csv", "parquet", "hub"]
_LAYOUTS = Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference", "kto"]


@app.command(
    example="neuroweaver datasets preview rows.jsonl --base-model HuggingFaceTB/SmolLM2-135M-Instruct\n"
    "neuroweaver datasets preview rows.csv -m ./model --column prompt=question\n"
    "neuroweaver datasets preview support@5f0c6a81d2b4 -m ./model"
)
def preview(
    reference: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a URL, a hub id, or NAME@DIGEST of a registered data set.", metavar="FILE|REFERENCE"
        ),
    ],
    base_model: Annotated[
        str,
        typer.Option(
            "--base-model", "-m", help="Folder, URL or hub id of the base model, or NAME@VERSION of a registered one."
        ),
    ],
    rows: Annotated[int, typer.Option(min=0, help="The most rows to show.")] = 3,
    max_length: Annotated[int, typer.Option(min=8, help="The most tokens per row.")] = 512,
    learns: Annotated[
        Literal["answers", "prompts", "pairs", "labels"],
        typer.Option(help="What is learnt from: answers (sft), prompts (grpo, rloo), pairs (dpo) or labels (kto)."),
    ] = "answers",
    file_format: Annotated[_FORMATS, typer.Option("--format", help="File format of the rows.")] = "jsonl",
    layout: Annotated[_LAYOUTS, typer.Option(help="Layout of the rows; auto recognises it.")] = "auto",
    column: Annotated[list[str] | None, typer.Option(help="Column that is read, such as prompt=question.")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="System prompt for rows without one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show rows as tokens, with those marked that are learnt, and all findings. Exit code 1 when a job would refuse them."""
    settings = _settings(reference, column or [], format=file_format, layout=layout, system_prompt=system_prompt)
    found = _preview(settings, base_model, max_length, learns, rows)
    if json:
        print_json({**found._asdict(), "rows": [_shown(row) for row in found.rows]})
    else:
        _print(found)
    if found.refused:
        raise typer.Exit(Exit.FAILED)


def _settings(reference: str, columns: list[str], **given: Any) -> DatasetSettings:
    mapping = dict(named.partition("=")[::2] for named in columns)
    try:
        mapped = ColumnMapping.model_validate(mapping)
        settings = DatasetSettings(reference=reference, columns=mapped, split=_split(Path(reference).expanduser()), **given)
    except ValidationError as error:
        stop_with(Exit.USAGE, "; ".join(map(str, reasons_of(error))))
    return settings


def _split(path: Path) -> SplitSettings:
    """Return the splits that are read: all rows of a file as the training split, and of a folder those that it has."""
    if path.is_file():
        return SplitSettings(test=None, validation_fraction=0)
    return SplitSettings() if not path.is_dir() or any(path.glob("test.*")) else SplitSettings(test=None)


def _preview(settings: DatasetSettings, base_model: str, max_length: int, learns: Any, rows: int) -> Any:
    try:
        from services.chassis.executor.child import UserFault
        from services.trainer import preview as trainer
        from services.trainer.modelling.four_bits import without_bitsandbytes
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to read data sets on this machine, pip install 'neuroweaver[trainer]'")
    without_bitsandbytes()
    base = local_base(base_model)
    stored = stored_data(settings, base.cache)
    if stored is not None and not stored.tested:
        settings = settings.model_copy(update={"split": settings.split.model_copy(update={"test": None})})
    folders = None if stored is None else (stored.rows, stored.preferences)
    try:
        return trainer.preview(settings, base.folder, max_length, learns, rows, base.cache, base.allowed, folders)
    except UserFault as fault:
        stop_with(Exit.FAILED, "\n".join(map(str, fault.reasons)))


def _print(found: Any) -> None:
    print_pairs(
        (("layout", found.layout), *((name.replace("_", " "), f"{value:,.10g}") for name, value in found.metrics.items()))
    )
    for note in found.notes:
        print_line(f"note: {note}")
    for reason in found.refused:
        print_line(f"REFUSED: {reason}")
    for row in found.rows:
        cut = f", {row.cut} more are cut" if row.cut else ""
        print_line()
        print_line(f"{row.id}: {row.tokens} tokens, {row.learnt} learnt{cut}")
        for line in token_lines(row.pieces):
            print_line(line)
    if found.rows:
        print_line()
        print_line("Lines with + are learnt, the others are context; | stands between two tokens.")


def _shown(row: Any) -> dict[str, object]:
    return {**row._asdict(), "pieces": [piece._asdict() for piece in row.pieces]}
