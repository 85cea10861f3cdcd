"""Says with which versions of the libraries a run was trained, and whether others may go on from its checkpoint. Pure but for
`installed`."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

from pydantic import Field

from schemas.base import Frozen

LIBRARIES = ("neuroweaver", "torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "bitsandbytes")
"""The packages that decide which numbers a training computes."""

Versions = Mapping[str, str]


class Stretch(Frozen):
    """Consecutive steps of a run that were trained with the same versions."""

    after: int = Field(description="Optimiser steps done before the first of them.")
    versions: dict[str, str] = Field(description="Version of each package; empty if it is not known.")


def installed() -> dict[str, str]:
    """Return the version of each package that is installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def refuse_other_release(stretches: Sequence[Stretch], now: Versions) -> None:
    """Raise ValueError if the last steps were trained with another major release, whose state may have another meaning."""
    before = stretches[-1].versions if stretches else {}
    others = [name for name in before if name in now and _major(before[name]) != _major(now[name])]
    if others:
        made, here = (", ".join(f"{name} {versions[name]}" for name in others) for versions in (before, now))
        raise ValueError(f"it was made with {made}, and {here} is installed, which is another major release")


def continued(stretches: Sequence[Stretch], done: int, now: Versions) -> tuple[Stretch, ...]:
    """Return the stretches of a run that goes on after `done` steps. Those of a checkpoint that names no versions are unknown."""
    known = tuple(stretches) or ((Stretch(after=0, versions={}),) if done else ())
    if known and known[-1].versions == dict(now):
        return known
    return (*known, Stretch(after=done, versions=dict(now)))


def changes(stretches: Sequence[Stretch]) -> str | None:
    """Return from which step on which versions were others, in words; None if all steps were trained with the same."""
    said = [
        f"from step {after.after + 1} on {_change(before.versions, after.versions)}"
        for before, after in pairwise(stretches)
    ]
    return "; ".join(said) or None


def _change(before: Versions, now: Versions) -> str:
    if not before:
        return "with the versions installed now; the checkpoint does not name those before"
    return "with " + ", ".join(_differences(before, now))


def _differences(before: Versions, now: Versions) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if was != is_now:
            yield f"{name} {is_now or 'absent'} instead of {was or 'absent'}"


def _major(release: str) -> str:
    return release.partition(".")[0]
