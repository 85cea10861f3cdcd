"""Defines the presets: pipelines with a name, each a list of steps that an explicit pipeline can have too."""

from collections.abc import Mapping

from schemas.requests import PipelineStep


def _step(name: str, kind: str, *needs: str, method: str | None = None, **inputs: str) -> PipelineStep:
    chosen = {"method" if method in (None, "sft", "dpo") else "algorithm": method}
    return PipelineStep.model_validate({"name": name, "kind": kind, **chosen, "needs": needs, "inputs": inputs})


_DATA = "prepare.dataset"
_IMPORTED = {"adapter": "import.adapter", "model": "import.model"}

PRESETS: Mapping[str, tuple[PipelineStep, ...]] = {
    "sft": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="sft", dataset=_DATA),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
    "rlaif": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("score-base", "score", predictions="evaluate-base.predictions"),
        _step("train", "train", method="sft", dataset=_DATA),
        _step("evaluate-sft", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("score-sft", "score", predictions="evaluate-sft.predictions"),
        _step("sample", "sample", dataset=_DATA, adapter="train.adapter"),
        _step("label", "label", candidates="sample.candidates"),
        _step("align", "train", method="dpo", preferences="label.preferences", adapter="train.adapter"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="align.adapter"),
        _step("score", "score", predictions="evaluate.predictions"),
        _step(
            "register", "register", "evaluate-base", "score-base", "evaluate-sft", "score-sft", "evaluate", "score",
            adapter="align.adapter",
        ),
    ),
    "dpo": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="dpo", preferences="prepare.preferences"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
    "kto": (
        _step("prepare", "prepare"),
        _step("evaluate-base", "evaluate", dataset=_DATA),
        _step("train", "train", method="kto", preferences="prepare.preferences"),
        _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
        _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
    ),
    **{
        method: (
            _step("prepare", "prepare"),
            _step("evaluate-base", "evaluate", dataset=_DATA),
            _step("train", "train", method=method, dataset=_DATA),
            _step("evaluate", "evaluate", dataset=_DATA, adapter="train.adapter"),
            _step("register", "register", "evaluate-base", "evaluate", adapter="train.adapter"),
        )
        for method in ("grpo", "rloo", "distill")
    },
    "import": (
        _step("import", "import"),
        _step("prepare", "prepare"),
        _step("evaluate", "evaluate", dataset=_DATA, **_IMPORTED),
        _step("register", "register", "evaluate", **_IMPORTED),
    ),
    "reward": (
        _step("prepare", "prepare"),
        _step("train", "train", method="reward", preferences="prepare.preferences"),
        _step("register", "register", adapter="train.adapter"),
    ),
}  # fmt: skip


UNMEASURED_IMPORT: tuple[PipelineStep, ...] = (_step("import", "import"), _step("register", "register", **_IMPORTED))
"""The preset `import` where no data set is named, so that nothing can be measured."""


def _of_model(step: PipelineStep) -> PipelineStep:
    """Return a step of `sft` where its training makes a whole model."""
    inputs = {name: binding for name, binding in step.inputs.items() if binding != "train.adapter"}
    if len(inputs) < len(step.inputs):
        inputs["model"] = "train.model"
    return step.model_copy(update={"inputs": inputs})


FULL_PRESETS: Mapping[str, tuple[PipelineStep, ...]] = {**PRESETS, "sft": tuple(map(_of_model, PRESETS["sft"]))}
"""The presets where supervised training trains all weights."""
