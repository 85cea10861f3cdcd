"""A run that goes on with other versions of the libraries says so, and never from a state whose meaning may have changed."""

import json
from pathlib import Path

import pytest
import torch

from services.trainer.engine.checkpoints import Checkpoints
from services.trainer.engine.versions import LIBRARIES, Stretch, changes, continued, installed

MADE = {"torch": "2.13.0", "trl": "1.16.0"}


def stretch(after: int, **versions: str) -> Stretch:
    return Stretch(after=after, versions={**MADE, **versions})


def of(home: Path, **versions: str) -> Checkpoints:
    """The checkpoints of a step, as a process with these libraries sees them."""
    return Checkpoints(home, home / "1" / "lease", "recipe", {**MADE, **versions})


def saved(home: Path) -> Path:
    """A checkpoint after step 1, made with `MADE`."""
    of(home).save(1, {"weights": {"a": torch.zeros(1)}}, [{"step": 1}], trained_with=continued((), 0, MADE))
    return home / "1" / "lease" / "step-00000001"


def test_the_versions_of_all_libraries_that_compute_are_known() -> None:
    assert installed().keys() == set(LIBRARIES)


def test_the_same_versions_are_one_stretch() -> None:
    assert continued((), 0, MADE) == continued(continued((), 0, MADE), 7, MADE) == (stretch(0),)
    assert changes([stretch(0)]) is None


def test_each_change_is_said_with_its_first_step() -> None:
    run = continued(continued([stretch(0)], 4, {**MADE, "trl": "1.16.1"}), 8, {"torch": "2.13.0+cu130"})
    assert changes(run) == (
        "from step 5 on with trl 1.16.1 instead of 1.16.0; "
        "from step 9 on with torch 2.13.0+cu130 instead of 2.13.0, trl absent instead of 1.16.1"
    )


def test_a_checkpoint_of_before_versions_were_recorded_is_continued_and_said(tmp_path: Path) -> None:
    manifest = saved(tmp_path) / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "trained_with"}))
    found = of(tmp_path).newest()
    assert found is not None
    assert changes(continued(found.trained_with, 1, MADE)) == (
        "from step 2 on with the versions installed now; the checkpoint does not name those before"
    )


@pytest.mark.parametrize(
    "now", [{}, {"trl": "1.16.1"}, {"trl": "1.17.0"}, {"torch": "2.13.0+cpu"}, {"trl": "1.9"}, {"peft": "0.21.2"}]
)
def test_a_minor_release_or_another_build_goes_on(tmp_path: Path, now: dict[str, str]) -> None:
    saved(tmp_path)
    found = of(tmp_path, **now).newest()
    assert found is not None
    assert found.trained_with == (stretch(0),)


@pytest.mark.parametrize("now", ["2.0.0", "0.29.0"])
def test_another_major_release_does_not_go_on(tmp_path: Path, now: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path)
    assert of(tmp_path, trl=now).newest() is None
    assert (
        f"checkpoint {folder} is skipped: it was made with trl 1.16.0, and trl {now} is installed, which is another major"
        in caplog.text
    )
