"""One checker for all histories: what was sent, acknowledged, applied and effected, and what must never be found in it.

A history is JSON lines of facts, in any order but for one thing: facts of the kind *applied* that share a key stand in the
order in which they were applied. *Lost*: passed over, since something later of its key was applied, or applied without its
effect. *Doubled*: applied or effected twice. *Out of order*: applied after something that was sent later under the same key.
*Unseen*: acknowledged, and neither it nor anything later of its key was applied. An event that was *removed* from the log before
anybody had read it is neither.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

FactKind = Literal["sent", "acknowledged", "removed", "applied", "effect"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One observation about one event."""

    kind: FactKind
    id: str
    key: str
    number: int
    """Index of the event among those of its key, from 0, in the order of sending."""


@dataclass
class Verdict:
    """The faults of a history, as lists of ids; all are empty if it is correct."""

    events: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    differences: int = 0
    """Rows of the projection that differ from a replay of the log."""

    @property
    def well(self) -> bool:
        """Whether there is no fault and at least one observation."""
        return self.events > 0 and not (self.lost or self.doubled or self.out_of_order or self.unseen or self.differences)

    def __str__(self) -> str:
        faults = {name: found for name in ("lost", "doubled", "out_of_order", "unseen") if (found := getattr(self, name))}
        shown = [f"{len(ids)} {name}: {', '.join(sorted(ids)[:5])}" for name, ids in faults.items()]
        if self.differences:
            shown.append(f"{self.differences} differences from a replay")
        return f"{self.events} events: {'; '.join(shown) or 'well'}"


def check(history: Iterable[Fact]) -> Verdict:
    """Find every fault of a history."""
    acknowledged: dict[str, tuple[str, int]] = {}
    applied: dict[str, tuple[str, int]] = {}
    effects: Counter[str] = Counter()
    newest: dict[str, int] = {}
    """The highest applied number by key."""
    verdict, sent, removed = Verdict(), set[str](), set[str]()
    for fact in history:
        match fact.kind:
            case "sent":
                sent.add(fact.id)
            case "acknowledged":
                acknowledged[fact.id] = (fact.key, fact.number)
            case "removed":
                removed.add(fact.id)
            case "applied":
                if fact.id in applied:
                    verdict.doubled.append(fact.id)
                elif fact.number < newest.get(fact.key, -1):
                    verdict.out_of_order.append(fact.id)
                applied[fact.id] = (fact.key, fact.number)
                newest[fact.key] = max(fact.number, newest.get(fact.key, -1))
            case "effect":
                effects[fact.id] += 1
    verdict.events = len(sent)
    verdict.doubled += [one for one, times in effects.items() if times > 1 and one not in verdict.doubled]
    for one, (key, number) in acknowledged.items():
        if one not in applied and one not in removed:
            (verdict.lost if number < newest.get(key, -1) else verdict.unseen).append(one)
    verdict.lost += [one for one in applied if not effects[one]]
    return verdict


def write(history: Iterable[Fact], path: Path) -> None:
    """Write a history as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.writelines(json.dumps(asdict(fact)) + "\n" for fact in history)


def read(path: Path) -> Iterator[Fact]:
    """Read a stored history."""
    with path.open() as file:
        for line in file:
            yield Fact(**json.loads(line))
