"""`neuroweaver models export`: gives a version away, in Hugging Face layout or as an OCI artifact, with its model card."""

import asyncio
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.audit.bundle.collecting import UnknownModelVersion, collect
from services.audit.bundle.faults import BundleRefused
from services.audit.packaging.contents import Contents, contents_of
from services.audit.packaging.hugging_face import write_folder
from services.audit.packaging.model_pack import write_layout
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.chassis.storage.durable import place
from services.chassis.storage.stores import writing
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, print_pairs
from services.cli.printable import printable
from services.cli.settings import CliSettings
from services.cli.stack import broker
from services.cli.versions import fetched

app = Commands()


@app.command(example="neuroweaver models export support-router@1.0.0 ./support-router --format oci")
def export(
    target: Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.", metavar="NAME@VERSION")],
    folder: Annotated[Path, typer.Argument(help="Target folder; it must not exist yet.", metavar="DIR")],
    form: Annotated[
        Literal["hf", "oci"],
        typer.Option("--format", help="hf: a folder in Hugging Face layout; oci: an OCI image layout in ModelPack's form."),
    ] = "hf",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Write a version with its model card, which follows from the log, and a GGUF file where its job made one.

    Exit code 4 when the log has no such version.
    """
    if "@" not in target:
        stop_with(Exit.USAGE, printable(f"{target!r} names no version; write NAME@VERSION or NAME@ALIAS"))
    if folder.exists() or folder.is_symlink():
        stop_with(Exit.USAGE, f"{folder} exists already; name a new folder")
    settings = CliSettings()
    try:
        with broker(settings) as cluster:
            collected = asyncio.run(collect(cluster, target))
        contents = contents_of(collected, partial(fetched, settings.cache))
        digest = _written(contents, folder, form)
    except UnknownModelVersion as error:
        stop_with(Exit.NOT_FOUND, printable(str(error)))
    except (BundleRefused, ArtifactCorrupt) as error:
        stop_with(Exit.FAILED, printable(str(error)))
    made = contents.version
    told = {
        "id": f"{made.model}@{made.version}",
        "folder": str(folder.resolve()),
        "sha256": made.artifact.sha256,
        "manifest": digest,
    }
    if json:
        print_json(told)
    else:
        print_pairs(("model" if name == "id" else name, value) for name, value in told.items())


def _written(contents: Contents, folder: Path, form: str) -> str | None:
    """Write everything beside the target and rename it, so that it is whole or absent; return the digest of an OCI manifest."""
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    with writing(folder.parent, contents.size):
        try:
            digest = None
            if form == "oci":
                digest = write_layout(contents, beside)
            else:
                write_folder(contents, beside)
            place(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return digest
