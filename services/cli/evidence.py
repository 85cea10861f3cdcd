"""`neuroweaver evidence`: the evidence of a version as a folder that anybody can verify offline."""

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from services.audit.bundle.collecting import UnknownModelVersion, collect
from services.audit.bundle.dsse import KEYS, NoKey, key_id, new_key, private_key, public_key, public_key_in
from services.audit.bundle.faults import BundleRefused
from services.audit.bundle.verifying import BundleVerdict, NoBundle, verify_bundle
from services.audit.bundle.writing import Written, refuse_existing, write_bundle
from services.chassis.storage.artifacts.errors import ArtifactCorrupt
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import hint, print_json, print_line, print_pairs, print_table, say
from services.cli.printable import printable
from services.cli.settings import CliSettings
from services.cli.stack import broker
from services.cli.versions import fetched

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback()
def evidence() -> None:
    """Write the evidence of a version, and verify it offline."""


@app.command(example="neuroweaver evidence write support-router@1.0.0 --key evidence-key.pem")
def write(
    target: Annotated[str, typer.Argument(help="MODEL@VERSION or MODEL@ALIAS.", metavar="MODEL@VERSION")],
    out: Annotated[Path | None, typer.Option(help="New folder; default: MODEL-VERSION.evidence.", metavar="DIR")] = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key that signs, PEM; default: NEUROWEAVER_EVIDENCE_KEY.", metavar="FILE")
    ] = None,
    without_artifact: Annotated[bool, typer.Option("--without-artifact", help="Leave the artifact's files out.")] = False,
    json: Json = False,
) -> None:
    """Write a signed bundle of all records about a version, with what follows from them: statement, bill of materials,
    model card and technical file.

    `neuroweaver evidence MODEL@VERSION` is short for this. Exit code 4 when the log has no such version.
    """
    if "@" not in target:
        stop_with(Exit.USAGE, printable(f"{target!r} names no version; write MODEL@VERSION or MODEL@ALIAS"))
    settings = CliSettings()
    path = key or settings.evidence_key
    if path is None:
        stop_with(Exit.USAGE, f"no key signs the bundle; give --key FILE or set NEUROWEAVER_EVIDENCE_KEY; {KEYS}")
    try:
        signs = private_key(path)
        if out is not None:
            refuse_existing(out)
        with broker(settings) as cluster:
            collected = asyncio.run(collect(cluster, target))
        folder = out or Path(f"{collected.view.model}-{collected.view.version}.evidence")
        written = write_bundle(collected, signs, folder, None if without_artifact else partial(fetched, settings.cache))
    except NoKey as error:
        stop_with(Exit.USAGE, str(error))
    except UnknownModelVersion as error:
        stop_with(Exit.NOT_FOUND, printable(str(error)))
    except BundleRefused as error:
        stop_with(Exit.FAILED, printable(str(error)))
    except ArtifactCorrupt as error:
        stop_with(Exit.FAILED, f"{error}; --without-artifact writes the bundle without its files")
    _print_written(written, key_id(signs.public_key()), json=json)


@app.command(example="neuroweaver evidence verify support-router-1.0.0.evidence --key public-key.pem")
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.", metavar="DIR")],
    key: Annotated[
        Path | None,
        typer.Option(help="Public key of who should have signed, PEM, from a source that you trust.", metavar="FILE"),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a bundle: the proofs of its records, all that must follow from them, the artifact's files and the signature.

    It needs no stack, no settings and no network. Without --key it does not prove who signed. Exit code 1 when something
    differs; 4 when DIR has no bundle.
    """
    try:
        verdict = verify_bundle(folder, None if key is None else public_key(key))
    except NoKey as error:
        stop_with(Exit.USAGE, str(error))
    except NoBundle as error:
        stop_with(Exit.NOT_FOUND, str(error))
    _print_verdict(folder, verdict, json=json)
    raise typer.Exit(int(Exit.OK if verdict.holds else Exit.FAILED))


@app.command(example="neuroweaver evidence keygen evidence-key.pem")
def keygen(
    file: Annotated[
        Path, typer.Argument(help="New file for the private key; FILE.pub gets the public one.", metavar="FILE")
    ],
    json: Json = False,
) -> None:
    """Make an Ed25519 key that signs bundles. Exit code 2 when the file exists."""
    private, public = new_key()
    beside = file.with_name(f"{file.name}.pub")
    if there := [path for path in (file, beside) if path.exists()]:
        stop_with(Exit.USAGE, f"{there[0]} exists already; name a new file")
    for path, content, mode in ((file, private, 0o600), (beside, public, 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    digest = key_id(public_key_in(public, str(beside)))
    if json:
        print_json({"private": str(file), "public": str(beside), "key_sha256": digest})
        return
    print_pairs((("private key", file), ("public key", beside), ("key sha256", digest)))
    say(
        "Keep the private key where only the signer can read it; give the public key to those who verify, not with a bundle."
    )


def _print_written(written: Written, digest: str, *, json: bool) -> None:
    if json:
        print_json(
            {
                "folder": str(written.folder.resolve()),
                "records": written.records,
                "artifact": written.artifact,
                "with_artifact": written.with_artifact,
                "key_sha256": digest,
            }
        )
        return
    print_pairs(
        (
            ("bundle", written.folder),
            ("records", written.records),
            ("artifact", written.artifact.sha256 if written.with_artifact else f"{written.artifact.sha256}, not copied"),
            ("key sha256", digest),
        )
    )
    hint(f"Verify it anywhere: neuroweaver evidence verify {written.folder} --key PUBLIC-KEY")


def _print_verdict(folder: Path, verdict: BundleVerdict, *, json: bool) -> None:
    if json:
        print_json(verdict)
        return
    print_table(("check", "result", "what"), [(check.name, check.verdict, check.said) for check in verdict.checks])
    for difference in verdict.differences:
        print_line(f"! {difference}")
    if verdict.count > len(verdict.differences):
        print_line(f"! ... and {verdict.count - len(verdict.differences)} more")
    print_pairs((("key sha256", verdict.key_sha256), ("artifact", verdict.artifact_sha256)))
    if not verdict.holds:
        print_line(f"{folder} is NOT verified: {verdict.count} difference{'' if verdict.count == 1 else 's'}.")
    elif verdict.signer == "given":
        print_line(f"{folder} is the evidence of {verdict.about}, signed with the key that you gave.")
    else:
        print_line(f"{folder} agrees with itself. Who signed it is NOT proved: anybody could have put its key there.")
