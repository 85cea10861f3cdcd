"""What both arms train: the demo's rows as tokens and as artifacts, and the settings of the train step."""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import services.demo
from schemas.artifacts import ArtifactRef
from schemas.lines import Message, Preference, Row
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.json_lines import write_lines

_ROWS = Path(services.demo.__file__).parent / "data" / "train.jsonl"
_SYSTEM = Message(role="system", content="Answer with JSON: queue, priority, reply.")
LENGTH = 112
BATCH = 8
SEED = 0


def rows() -> Sequence[Row]:
    """The rows of the demo, in their order."""
    read = [json.loads(line) for line in _ROWS.read_text(encoding="utf-8").splitlines()]
    return [
        Row(
            id=str(number),
            messages=(_SYSTEM, Message(role="user", content=row["request"])),
            completion=row["answer"],
            columns={},
        )
        for number, row in enumerate(read)
    ]


def pairs() -> Sequence[Preference]:
    """Each row's answer with a good reply, preferred to the same answer with a bad one."""
    read = [json.loads(line) for line in _ROWS.read_text(encoding="utf-8").splitlines()][:120]
    replies = [json.loads(row["answer"])["reply"] for row in read]
    good = cycle(reply for row, reply in zip(read, replies, strict=True) if row["quality"] == "good")
    bad = cycle(reply for row, reply in zip(read, replies, strict=True) if row["quality"] != "good")

    def answer(row: dict[str, str], reply: str) -> str:
        return json.dumps({"queue": row["queue"], "priority": row["priority"], "reply": reply}, separators=(",", ":"))

    return [
        Preference(
            id=str(number),
            messages=(_SYSTEM, Message(role="user", content=row["request"])),
            chosen=answer(row, next(good)),
            rejected=answer(row, next(bad)),
        )
        for number, row in enumerate(read)
    ]


def stored(method: str, home: Path) -> dict[str, ArtifactRef]:
    """The inputs of the train step as artifacts below `home`."""
    folder = home / uuid4().hex
    folder.mkdir(parents=True)
    if method == "sft":
        write_lines(folder / "train.jsonl", rows())
    else:
        write_lines(folder / Preference.FILE, pairs())
    name = "dataset" if method == "sft" else "preferences"
    return {name: ArtifactStore(str(home / "artifacts")).put(folder)}


def settings(method: str, base: Path, steps: int, precision: str) -> TrainSettings:
    """The train step. The rate is constant, since TRL's own warm-up is another one."""
    optimiser = OptimiserSettings(
        learning_rate=1e-3 if method == "sft" else 2e-4,
        schedule="constant",
        warmup_ratio=0.0,
        steps=steps,
        batch_size=BATCH,
    )
    shared = {"optimiser": optimiser, "precision": precision, "max_length": LENGTH, "checkpoint_steps": 1_000, "seed": SEED}
    if method == "sft":
        return TrainSettings(
            base_model=str(base), training=TrainingSettings.model_validate({**shared, "lora": LoraSettings()})
        )
    return TrainSettings(base_model=str(base), preference=PreferenceSettings.model_validate(shared))
