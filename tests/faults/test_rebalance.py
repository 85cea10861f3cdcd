"""Members that die, freeze, come and go cost a pause, never a livelock: the short form, with bounds that a slow machine meets."""

from pathlib import Path

from services.devstack.stack import DevStack
from tests.faults.field import field_on
from tests.faults.rebalance import stalls

_BEYOND_SESSION_SECONDS = 30
CHANGES = ("is killed and restarted at once", "freezes and wakes up")


async def test_every_partition_answers_again_and_nobody_is_refused_when_members_die_freeze_come_and_go(
    own_stack: DevStack, tmp_path: Path
) -> None:
    async with field_on(own_stack, tmp_path) as field:
        session = field.toy.settings.session_timeout_ms / 1000
        found = await stalls(field, CHANGES, rounds=1)
    assert [stall for stall in found if stall.seconds > session + _BEYOND_SESSION_SECONDS or stall.refusals] == []
