"""Two deployments on one log notice each other and one refuses; a stranger in the group is named; a restart is never blocked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import REQUESTS
from services.chassis.kafka import group as grouping
from services.chassis.kafka.group import Member, client_id_of, database_of, group_members, members_of
from services.chassis.kernel import store
from tests.newer_member import NewerMember
from tests.toy import Toy, until


@pytest.fixture
async def twin(toy: Toy, kafka: str, database_url: str, tmp_path: Path) -> AsyncIterator[Toy]:
    """Another deployment of the same service on the same log."""
    twin = Toy(kafka, database_url, tmp_path, name=toy.name, elsewhere=True)
    await twin.create()
    yield twin
    await twin.engine.dispose()


async def answers(toy: Toy) -> dict[str, int]:
    """How many different answers each job has on the log."""
    found: dict[str, set[str]] = {}
    for record in await toy.log():
        found.setdefault(record.key.decode(), set()).add(dict(record.headers)["ce_id"].decode())
    return {key: len(ids) for key, ids in found.items()}


async def answered(toy: Toy, count: int) -> bool:
    return len(await answers(toy)) == count


async def test_a_second_deployment_refuses_in_words_decides_nothing_and_takes_over_when_the_first_has_gone(
    toy: Toy, twin: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_LOOK_SECONDS", 0.5)
    second = twin.service()
    async with AsyncExitStack() as two:
        async with toy.running() as first:
            await two.enter_async_context(second.lifespan())
            await until(lambda: "another deployment is in group" in second.health.missing.get("alone", ""))
            reason = second.health.missing["alone"]
            assert client_id_of(toy.name, await database_of(toy.engine)) in reason
            assert client_id_of(toy.name, await database_of(twin.engine)) in reason
            assert "127.0.0.1" in reason
            await toy.send(*(toy.requested(f"{number}") for number in range(30)))
            await until(lambda: answered(toy, 30))
            assert first.health.ready, first.health.missing
            assert not second.health.ready
            assert await twin.tallies() == {}
            assert len(await members_of(toy.settings.cluster, f"neuroweaver-{toy.name}")) == 1
        await until(lambda: second.health.ready, what=lambda: second.health.missing)
        await toy.send(toy.requested("later"))
        await until(lambda: answered(toy, 31))
    assert set((await answers(toy)).values()) == {1}


async def test_of_two_deployments_that_start_at_the_same_moment_one_goes_on(
    toy: Toy, twin: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_LOOK_SECONDS", 0.5)
    await toy.send(*(toy.requested(f"{number}") for number in range(60)))
    one, other = toy.service(), twin.service()
    async with AsyncExitStack() as both:
        await asyncio.gather(*(both.enter_async_context(service.lifespan()) for service in (one, other)))
        await until(lambda: answered(toy, 60), what=lambda: (one.health.missing, other.health.missing))
        await until(lambda: one.health.ready != other.health.ready, what=lambda: (one.health.missing, other.health.missing))
        assert "another deployment" in (one.health.missing or other.health.missing)["alone"]
        # at the end one of them leaves first, and the other goes on
        assert set((await answers(toy)).values()) == {1}
        assert {} in (await toy.tallies(), await twin.tallies())


async def test_a_member_of_another_program_is_named_with_what_it_takes_and_all_is_answered_when_it_leaves(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_LOOK_SECONDS", 0.5)
    stranger = AIOKafkaConsumer(
        REQUESTS.name, **toy.settings.cluster.connection(), group_id=f"neuroweaver-{toy.name}", client_id="console"
    )
    async with toy.running() as service:
        await stranger.start()
        await until(lambda: "client 'console' at 127.0.0.1" in service.health.missing.get("alone", ""))
        await until(lambda: "has 3 partitions" in service.health.missing.get("alone", ""))
        await toy.send(*(toy.requested(f"{number}") for number in range(30)))
        await stranger.stop()
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        await until(lambda: answered(toy, 30))


async def test_a_member_of_the_newer_protocol_is_named_too(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It turns the group into one that the older request does not show."""
    monkeypatch.setattr(grouping, "_LOOK_SECONDS", 0.5)
    async with toy.running() as service, NewerMember(toy.settings.cluster, f"neuroweaver-{toy.name}", "newer") as stranger:
        await stranger.join(REQUESTS.name)
        await until(lambda: "client 'newer' at 127.0.0.1" in service.health.missing.get("alone", ""))
        await stranger.leave()
        await toy.send(toy.requested("after"))
        await until(lambda: answered(toy, 1))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_a_database_is_known_by_its_server_and_its_number_there(toy: Toy, twin: Toy) -> None:
    known = await database_of(toy.engine)
    again = store.connect(toy.settings.database_url_for(toy.name), pool_size=1)
    assert await database_of(again) == known
    assert await database_of(twin.engine) != known
    await again.dispose()


OURS = client_id_of("toy", "aa")


def test_everybody_in_a_group_is_ours_another_deployments_or_a_stranger() -> None:
    members = [
        Member(OURS, "h1"), Member("neuroweaver-toy.bb", "h2"), Member("neuroweaver-toy", "h3"), Member("console", "h4"),
        Member("neuroweaver-toys.aa", "h5"),
    ]  # fmt: skip
    seen = group_members("toy", "aa", members)
    assert ([m.host for m in seen.ours], [m.host for m in seen.others]) == (["h1"], ["h2"])
    assert [m.host for m in seen.strangers] == ["h3", "h4", "h5"]
    assert "'neuroweaver-toy.bb' at h2" in seen.fault
    assert group_members("toy", "aa", [Member(OURS, "h1"), Member(OURS, "h2")]).fault == ""
    assert group_members("toy", "aa", []).fault == ""


@given(st.lists(st.builds(Member, st.text(max_size=30), st.text(max_size=10)), max_size=8), st.sampled_from(["aa", "bb"]))
def test_nobody_is_left_out_and_something_is_said_whenever_somebody_is_not_ours(
    members: list[Member], database: str
) -> None:
    seen = group_members("toy", database, members)
    assert len(seen.ours) + len(seen.others) + len(seen.strangers) == len(members)
    assert bool(seen.fault) == (len(seen.ours) < len(members))
