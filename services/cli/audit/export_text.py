"""Exports and verdicts as a person reads them, with the proof written so that it can be checked by hand."""

from pathlib import Path

from services.audit.inclusion_proof import Proof
from services.audit.manifest import MANIFEST, ExportManifest
from services.audit.verdict import ExportVerdict
from services.chassis.storage.digests import file_sha256
from services.cli.output import hint, print_json, print_line


def print_export(folder: Path, manifest: ExportManifest, *, json: bool) -> None:
    """Print what was exported, and what the user should keep elsewhere."""
    digest = file_sha256(folder / MANIFEST)
    if json:
        print_json({"folder": str(folder), "manifest_sha256": digest, "manifest": manifest})
        return
    for item in manifest.partitions:
        if item.records:
            print_line(f"{item.root}  {item.name}, {item.records} records")
    print_line(
        f"{folder} is complete: {manifest.records} records of {len(manifest.partitions)} partitions. Above are the roots."
    )
    print_line(f"SHA-256 of its manifest: {digest}")
    print_line("Keep this digest, or the roots, where nobody who can write to the folder can change them:")
    hint(f"  neuroweaver audit verify-export {folder} --digest {digest}")


def print_verdict(folder: Path, verdict: ExportVerdict, *, json: bool) -> None:
    """Print the verdict with every finding."""
    if json:
        print_json(verdict)
        return
    for item in verdict.partitions:
        if item.records or not item.holds:
            print_line(
                f"{item.root}  {item.topic}:{item.partition}, {item.records} records{'' if item.holds else ', DIFFERS'}"
            )
    for finding in verdict.shown:
        print_line(f"! {finding}")
    if verdict.findings > len(verdict.shown):
        print_line(f"! ... and {verdict.findings - len(verdict.shown)} more")
    if verdict.proof:
        _print_proof(verdict.proof)
    if verdict.holds:
        print_line(f"{folder} is as it was exported: every record leads to the roots of its manifest.")
        print_line(f"SHA-256 of its manifest: {verdict.manifest_sha256}")
    else:
        print_line(f"{folder} {'is NOT as it was exported' if verdict.complete else 'is NOT complete'}.")


def _print_proof(proof: Proof) -> None:
    print_line(
        f"{proof.topic}:{proof.partition}:{proof.offset} is in the export: leaf {proof.leaf_index} (from 0) of "
        f"{proof.tree_size}"
    )
    print_line(f"  leaf   {proof.leaf_sha256}")
    for sibling in proof.path:
        print_line(f"  {sibling.side:<6} {sibling.sha256}")
    print_line(f"  root   {proof.root}")
