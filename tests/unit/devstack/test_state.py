"""What is known of a stack from its folder, whatever became of the folder."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.process.health import Health
from services.cli import up
from services.devstack import state
from tests.toy import until


def test_a_state_file_that_a_crash_left_is_no_running_stack(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"pid": 1, "half a file')

    assert state.read_state(tmp_path) is None
    assert state.owner(tmp_path) is None


def test_a_running_stack_of_another_version_is_told_apart_from_none(tmp_path: Path) -> None:
    lock = state.take_lock(tmp_path, 1)
    (tmp_path / "stack.json").write_text('{"process": 1}')

    with pytest.raises(
        state.UnreadableState, match="another version started it, or the file was changed; stop it with `neuroweaver down`"
    ):
        state.read_state(tmp_path)
    os.close(lock)


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_folder_that_cannot_be_used_is_named_with_its_setting(home: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(state.HomeUnusable, match=f"NEUROWEAVER_HOME=.*{home} cannot be used as the folder of a stack"):
        state.take_lock(tmp_path / home, 1)
    assert state.read_state(tmp_path / home) is None


def test_a_folder_that_was_replaced_is_not_the_one_that_was_locked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    lock = state.take_lock(home, 1)
    assert state.holds_lock(home, lock)

    home.rename(tmp_path / "moved")
    assert not state.holds_lock(home, lock)
    again = state.take_lock(home, 1)
    assert not state.holds_lock(home, lock)
    assert state.holds_lock(home, again)
    os.close(lock)
    os.close(again)


async def test_every_service_says_what_became_of_the_servers_data_and_without_its_home_the_stack_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(up, "_WATCH_SECONDS", 0.01)
    ended: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: ended.append(number))
    service = SimpleNamespace(health=Health("registry", ()))
    stack: Any = SimpleNamespace(says=None, holds_home=True)
    stack.trouble = lambda: stack.says
    watching = asyncio.create_task(up._watch(stack, [cast(Any, service)]))

    await until(lambda: service.health.ready and "stack" in service.health.conditions)
    stack.says = "the data were removed"
    await until(lambda: service.health.missing == {"stack": "the data were removed"})
    stack.says = None
    await until(lambda: service.health.ready)
    stack.holds_home = False
    await watching
    assert ended == [signal.SIGTERM]
