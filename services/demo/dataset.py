"""Generates the demo's data set from its parts: seeded, balanced, without leaks between the splits.

Run `python -m services.demo.dataset` after a change of the parts; the files in `data/` are committed, and a test fails
if they differ from what this script writes.

Train and dev rows have answers of mixed quality, as support logs do: 40 % good, 20 % of each other quality. Test rows have
only good answers, as references.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar

from services.demo.parts.held_out import DEV, TEST
from services.demo.parts.replies import ACTIONS, OPENINGS, REPLIES
from services.demo.parts.split import PRIORITIES, QUEUES, Parts
from services.demo.parts.training import TRAIN

DATA = Path(__file__).parent / "data"
MIXED = ("good", "good", "curt", "vague", "over-promising")
GOOD = ("good",)
_SEED = "neuroweaver demo 1"
_T = TypeVar("_T")


class Example(TypedDict):
    """One line of a split."""

    request: str
    answer: str
    """The JSON text that a model should return: queue, priority, reply."""
    item: str
    queue: str
    priority: str
    quality: str
    """Quality of the answer's reply; no model sees it."""


def _deck(cards: Sequence[_T], chance: random.Random) -> Iterator[_T]:
    """An endless sequence of the cards, shuffled anew after each round, so that all occur equally often."""
    while True:
        yield from chance.sample(cards, len(cards))


def rows(name: str, parts: Parts, per_cell: int, qualities: tuple[str, ...]) -> list[Example]:
    """`per_cell` rows for each pair of queue and priority, shuffled; no request occurs twice."""
    chance = random.Random(f"{_SEED} {name}")  # noqa: S311  # reproducible on purpose
    actions = {queue: _deck(texts, chance) for queue, texts in ACTIONS.items()}
    others = {quality: _deck(texts, chance) for quality, texts in REPLIES.items()}
    openings = _deck(OPENINGS, chance)
    found: dict[str, Example] = {}
    for queue in QUEUES:
        for priority in PRIORITIES:
            wordings, phrases = _deck(parts.wordings[queue], chance), _deck(parts.phrases[priority], chance)
            items, quality_of = _deck(parts.items, chance), _deck(qualities, chance)
            goal = len(found) + per_cell
            while len(found) < goal:
                item = next(items)
                request = f"{next(wordings)} {next(phrases)}".replace("{item}", item)
                if request in found:
                    continue
                quality = next(quality_of)
                reply = f"{next(openings)} {next(actions[queue])}" if quality == "good" else next(others[quality])
                answer = {"queue": queue, "priority": priority, "reply": reply.replace("{item}", item)}
                text = json.dumps(answer, separators=(",", ":"))  # fewer tokens than with spaces
                found[request] = Example(
                    request=request, answer=text, item=item, queue=queue, priority=priority, quality=quality
                )
    return chance.sample(list(found.values()), len(found))


def splits() -> dict[str, list[Example]]:
    """All rows by split, always the same."""
    return {
        "train": rows("train", TRAIN, per_cell=80, qualities=MIXED),
        "dev": rows("dev", DEV, per_cell=6, qualities=MIXED),
        "test": rows("test", TEST, per_cell=6, qualities=GOOD),
    }


def lines(split: Sequence[Example]) -> str:
    """The text of a split's file."""
    return "".join(json.dumps(row) + "\n" for row in split)


def main() -> None:
    """Write the three files."""
    for name, split in splits().items():
        (DATA / f"{name}.jsonl").write_text(lines(split), encoding="utf-8")
        print(f"{name}: {len(split)} rows")


if __name__ == "__main__":
    main()
