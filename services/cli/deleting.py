"""`neuroweaver models delete` and `restore`: take a version away, and bring it back while its files are there."""

from typing import Annotated

import typer

from services.cli.aliases import By, Json, Why
from services.cli.commands import Commands
from services.cli.descriptions import print_state, put_state

app = Commands()

Version = Annotated[str, typer.Argument(help="The version.", metavar="NAME@VERSION")]


@app.command(example='neuroweaver models delete support-router@1.0.0 --reason "It was trained on the wrong data."')
def delete(version: Version, reason: Why, by: By = None, json: Json = False) -> None:
    """Delete a version: nothing uses it, no list has it unless asked, and its files are removed after a time.

    Exit code 1 when it is still used, 4 when it does not exist.
    """
    print_state(put_state(version, "deleted", reason, by, json), json)


@app.command(example='neuroweaver models restore support-router@1.0.0 --reason "It is needed."')
def restore(version: Version, reason: Why, by: By = None, json: Json = False) -> None:
    """Make a deleted version live again.

    Exit code 1 when its files are removed, or a version from which it continues is deleted; 4 when it does not exist.
    """
    print_state(put_state(version, "live", reason, by, json), json)
