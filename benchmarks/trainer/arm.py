"""One arm of the comparison in a process of its own: `python -m benchmarks.trainer.arm engine|bare sft|dpo STEPS PRECISION BASE`.

Prints one line of JSON: losses, CPU seconds of the training steps, and the seconds that the engine took before the first of
them, without imports and without loading the model.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import services.trainer.child  # noqa: F401  # how threads wait has to be said before torch is imported
from benchmarks.trainer import work
from services.chassis.storage.sources.allowed import AllowedSources
from services.trainer.malloc import keep_freed_memory
from services.trainer.modelling.four_bits import without_bitsandbytes

Figures = Mapping[str, Any]


class _Clock:
    """Measures the call of a trainer's `train`, and how much time other functions took."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.began_at = 0.0
        self.started_at = 0.0
        self.loading = 0.0

    def of_training(self, train: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self.started_at, began = time.monotonic(), time.process_time()
            made = train(*arguments, **named)
            self.cpu_seconds = time.process_time() - began
            return made

        return timed

    def of_engine(self, train: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self.began_at = time.monotonic()
            return train(*arguments, **named)

        return timed

    def of_loading(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            made = load(*arguments, **named)
            self.loading += time.monotonic() - began
            return made

        return timed


def engine(method: str, steps: int, precision: str, base: Path, home: Path, clock: _Clock) -> Figures:
    """The project's train step."""
    from services.chassis.executor.child import Context
    from services.chassis.executor.messages import ChildTask
    from services.trainer.engine import training
    from services.trainer.steps import train as step

    wanted = work.settings(method, base, steps, precision)
    task = ChildTask(
        job_id="bench", step="train", attempt=1, kind="train", memory_failures=0, results={}, settings=wanted, inputs=work.stored(method, home),
        artifacts=str(home / "artifacts"), checkpoints=home / "checkpoints", lease=uuid4().hex, cache=home / "cache",
        allowed=AllowedSources(folders=(base.resolve(), home.resolve())),
    )  # fmt: skip
    step._adapted = clock.of_loading(step._adapted)
    training.train = clock.of_engine(training.train)
    context = Context(task, None)  # type: ignore[arg-type]
    context.progress = lambda *_, **__: None  # type: ignore[method-assign]
    result = step.train(context)
    curve = (Path(result.outputs["adapter"].uri) / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    startup = clock.started_at - clock.began_at - clock.loading
    return {"losses": [json.loads(line)["loss"] for line in curve], "startup_seconds": startup}


def bare(method: str, steps: int, precision: str, base: Path, home: Path, clock: _Clock) -> Figures:
    """TRL with its best options for a CPU: eager attention on short rows, no activation checkpointing, its own head."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from services.language_models.chat_format.chat import Chat, Tokens
    from services.language_models.precision import compute_dtype, use_physical_cores
    from services.trainer.engine.schedule import batch_of, by_length
    from services.trainer.modelling.adapter import new_adapter
    from services.trainer.modelling.base import load_base

    use_physical_cores()
    cpu = torch.device("cpu")
    dtype, chat = compute_dtype(precision, cpu), Chat(base)  # type: ignore[arg-type]
    model = load_base(base, dtype, cpu, trained_length=work.LENGTH)
    wanted = work.settings(method, base, steps, precision)
    optimiser = (wanted.training or wanted.preference).optimiser  # type: ignore[union-attr]

    def ordered(lengths: Sequence[int]) -> list[int]:
        batches = (batch_of(step, work.BATCH, len(lengths), work.SEED) for step in range(steps))
        return [example for batch in batches for example in by_length(batch, lengths)]

    def encoded(chats: Any) -> list[Tokens]:
        return [tokens.cut(work.LENGTH) for tokens in chat.encode(chats)]

    arguments: dict[str, Any] = {
        "output_dir": str(home), "use_cpu": True, "bf16": dtype == torch.bfloat16, "max_steps": steps,
        "per_device_train_batch_size": work.BATCH, "learning_rate": optimiser.learning_rate, "lr_scheduler_type": "constant",
        "logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True, "seed": work.SEED,
        "train_sampling_strategy": "sequential", "activation_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip
    model = new_adapter(model, work.settings("sft", base, 1, precision).training.lora, work.SEED)  # type: ignore[union-attr]
    if method == "sft":
        tokens = encoded(work.rows())
        rows = [
            {
                "input_ids": list(row.ids),
                "labels": [i if learnt else -100 for i, learnt in zip(row.ids, row.learnt, strict=True)],
            }
            for row in (tokens[example] for example in ordered([len(row) for row in tokens]))
        ]
        config = SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True})
        trainer: Any = SFTTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=chat.tokenizer
        )
    else:
        read = work.pairs()
        sides = [encoded([(pair.messages, getattr(pair, side)) for pair in read]) for side in ("chosen", "rejected")]
        lengths = [len(better) + len(worse) for better, worse in zip(*sides, strict=True)]
        rows = [
            {
                "prompt_ids": sides[0][example].prompt,
                "chosen_ids": sides[0][example].completion,
                "rejected_ids": sides[1][example].completion,
            }
            for example in ordered(lengths)
        ]

        class Tokenised(DPOTrainer):  # type: ignore[misc]
            """TRL's trainer for rows that are tokens already."""

            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

        config = DPOConfig(
            **arguments, beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], max_length=None,
            precompute_ref_log_probs=True, disable_dropout=False,
        )  # fmt: skip
        trainer = Tokenised(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=chat.tokenizer
        )
    trainer.train()
    return {"losses": [line["loss"] for line in trainer.state.log_history if "loss" in line]}


def main(arguments: Sequence[str]) -> None:
    """Run one arm and print its figures."""
    who, method, steps, precision, base = arguments
    keep_freed_memory()
    without_bitsandbytes()
    import datasets
    import peft
    import transformers
    import trl

    clock = _Clock()
    # what is imported when it is first used, so that no import is measured
    _ = (
        datasets.Dataset,
        peft.get_peft_model,
        transformers.AutoTokenizer,
        transformers.AutoModelForCausalLM,
        trl.SFTTrainer,
    )
    transformers.Trainer.train = clock.of_training(transformers.Trainer.train)
    arm = {"engine": engine, "bare": bare}[who]
    with tempfile.TemporaryDirectory() as home:
        made = arm(method, int(steps), precision, Path(base), Path(home), clock)
    print(json.dumps({**made, "cpu_seconds": clock.cpu_seconds}), flush=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(sys.argv[1:])
