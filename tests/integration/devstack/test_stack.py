"""The development stack starts real servers, keeps their data, and never leaves one behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from services.chassis.kafka import topics
from services.chassis.kafka.metadata import ask_once
from services.devstack import jars, state
from services.devstack.java import find_java
from services.devstack.kafka import KafkaServer, aot_cache
from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running

_OWNER = """
import sys, time
from pathlib import Path
from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
with running(DevStackSettings(home=Path(sys.argv[1]), kafka_bootstrap=None, database_url=None)):
    print("up", flush=True)
    time.sleep(300)
"""


def own_settings(home: Path) -> DevStackSettings:
    return DevStackSettings(home=home, kafka_bootstrap=None, database_url=None)


async def test_the_database_is_durable_and_wants_its_password(own_stack: DevStack) -> None:
    connection = await asyncpg.connect(own_stack.database_url)
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
    await connection.close()
    user, _, rest = own_stack.database_url.removeprefix("postgresql://").partition(":")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://{user}:guess@{rest.partition('@')[2]}")


async def test_stopping_and_crashing_either_server_loses_nothing_committed(own_stack: DevStack) -> None:
    assert own_stack.kafka is not None
    assert own_stack.postgres is not None
    connection = await asyncpg.connect(own_stack.database_url)
    await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)")
    address, url = own_stack.kafka_bootstrap, own_stack.database_url
    for end in ("kill", "stop"):
        for server in (own_stack.kafka, own_stack.postgres):
            getattr(server, end)()
            assert not server.process.running
            server.start()
        again = await asyncpg.connect(url)
        assert await again.fetchval("SELECT count(*) FROM kept") == 1
        await again.close()
        assert own_stack.kafka_bootstrap == address
        assert await topics.plan(own_stack.cluster) == []


def test_a_second_stack_of_the_same_home_is_refused(own_stack: DevStack) -> None:
    with pytest.raises(state.StackBusy, match="already running"), running(own_settings(own_stack.home)):
        pass
    found = state.read_state(own_stack.home)
    assert found is not None
    assert found.pid == os.getpid()
    assert found.kafka_bootstrap == own_stack.kafka_bootstrap


def test_named_servers_are_used_and_none_is_started(home: Path) -> None:
    named = DevStackSettings(home=home, kafka_bootstrap="127.0.0.1:1", database_url="postgresql://u@127.0.0.1:1/d")
    with running(named) as stack:
        assert (stack.kafka, stack.postgres) == (None, None)
        assert stack.kafka_bootstrap == "127.0.0.1:1"
        found = state.read_state(home)
        assert found is not None
        assert found.servers == {}
    assert state.read_state(home) is None


def test_when_the_owner_is_killed_nothing_stays_running_and_the_home_can_be_used_again(home: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        found = state.read_state(home)
        assert found is not None
        family = psutil.Process(owner.pid).children(recursive=True)
        assert {found.servers["kafka"], found.servers["postgres"]} <= {process.pid for process in family}
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.communicate()
    assert state.read_state(home) is None
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []
    until(lambda: not state.is_locked(home))
    kafka_log = (home / "logs" / "kafka.log").read_text()
    assert "shut down completed" in kafka_log, "the broker was stopped cleanly"
    assert "database system is shut down" in (home / "logs" / "postgres.log").read_text()


def test_when_a_guard_is_killed_its_server_stops_too(own_stack: DevStack) -> None:
    postgres = own_stack.postgres
    assert postgres is not None
    server = psutil.Process(postgres.process.pid)
    guard = server.parent()
    assert guard is not None
    guard.kill()
    server.wait(timeout=120)
    postgres.stop()
    postgres.start()
    assert postgres.process.running


def until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_data_that_are_removed_under_a_running_server_are_missed_and_the_next_start_begins_anew(
    tmp_path: Path,
) -> None:
    stack = DevStack(own_settings(tmp_path / "home"))
    stack.start()
    try:
        assert stack.kafka is not None
        assert stack.postgres is not None
        assert stack.trouble() is None
        first = (await ask_once(stack.cluster, [])).cluster_id
        for server, data in ((stack.postgres, "postgres"), (stack.kafka, "kafka")):
            shutil.rmtree(stack.home / data / "data")
            (stack.home / data / "data").mkdir()  # another's of the same name
            words = stack.trouble()
            assert words is not None
            assert f"{data}/data, the data of {server.process.name}, was removed or replaced while it ran" in words
            assert "`neuroweaver down`, then `neuroweaver up`" in words
            shutil.rmtree(stack.home / data / "data")
            server.stop()
            server.start()
            assert stack.trouble() is None
        assert (await ask_once(stack.cluster, [])).cluster_id != first, "an empty log is another log"

        moved = stack.home.rename(tmp_path / "moved")
        state.write_state(make(stack.home), state.StackState.model_validate_json((moved / "stack.json").read_text()))
        assert "was removed or replaced while the stack ran in it" in (stack.trouble() or "")
    finally:
        stack.stop()
    assert (stack.home / "stack.json").exists(), "what belongs to another stack is left alone"


def make(folder: Path) -> Path:
    folder.mkdir()
    (folder / "stack.lock").touch()
    return folder


def test_a_broker_starts_although_what_was_prepared_for_its_java_is_damaged(tmp_path: Path) -> None:
    settings, java = own_settings(tmp_path / "home"), find_java(None)
    elsewhere = tmp_path / "jars"
    elsewhere.mkdir()
    found = [elsewhere / jar.name for jar in jars.install(settings.cache, lambda _: None)]
    for jar in found:
        jar.symlink_to(jars.jar_folder(settings.cache) / jar.name)
    aot_cache(java, found).write_bytes(b"no archive")
    server = KafkaServer(tmp_path / "kafka", tmp_path / "kafka.log", java, found, heap_mb=256)
    server.start()
    assert server.trouble() is None
    server.stop()
