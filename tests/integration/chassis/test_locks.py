"""Units of work that touch the same rows wait for each other, in one order, and each sees what the one before left."""

import asyncio
import random
from collections import Counter

from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.transaction.commands import transact
from tests.toy import Toy

WORKERS, ROUNDS, ROWS, TOUCHED = 8, 30, 30, 15


async def test_many_that_make_and_change_the_same_rows_lose_nothing_and_end_nobody(toy: Toy) -> None:
    """PostgreSQL ends one of those that wait for each other in a circle: that would be an error here."""
    chance = random.Random(7)
    changed = Counter[Ref]()

    async def change(refs: list[Ref]) -> None:
        async with transact(toy.engine, toy.domain, None, refs) as command:
            for ref in refs:
                row = command.unit.rows[ref]
                row.jump_to(row.sequence + 1)
        changed.update(refs)

    for number in range(ROUNDS):
        rows = [Ref("tally", f"{toy.prefix}-{number}-{row}") for row in range(ROWS)]
        await asyncio.gather(*(change(chance.sample(rows, TOUCHED)) for _ in range(WORKERS)))
    async with transact(toy.engine, toy.domain, None, list(changed)) as command:
        assert {ref: row.sequence for ref, row in command.unit.rows.items()} == changed
