"""Builds the demo's request, the data of one JobRequested, small enough for two cores.

The numbers come from trials: fewer than 110 supervised steps route unseen wording worse, 14 preference steps raise the
share of good replies by less than 0.3, and the sft term of the preference loss preserves the routing meanwhile.
"""

from typing import Literal

from schemas.recipes.dataset import ColumnMapping, DatasetSettings, SplitSettings
from schemas.recipes.dpo import PreferenceLoss, PreferenceSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.feedback import FeedbackSettings, Rubric
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sampling import SamplingSettings
from schemas.recipes.sft import TrainingSettings
from schemas.requests import JobRequest
from services.demo.constitution import OPPOSITE, PRINCIPLE, RULES
from services.demo.dataset import DATA

Pipeline = Literal["rlaif", "sft"]

MODEL = "support-router"
REQUESTER = "relaycore/demo"
SYSTEM_PROMPT = "Answer with JSON: queue, priority, reply."
_ROUTING = ("queue", "priority")
_LENGTH = 112
"""The most tokens of a row; the longest has 88 with the base model's tokenizer."""
_ANSWER = 50
"""The most tokens of an answer; the longest has 41."""


def job_request(pipeline: Pipeline, *, job_id: str, base_model: str) -> JobRequest:
    """Return the demo's request; `base_model` is a reference that the trainer can resolve."""
    return JobRequest(
        job_id=job_id,
        requester=REQUESTER,
        pipeline=pipeline,
        base_model=base_model,
        dataset=DatasetSettings(
            reference=str(DATA),
            columns=ColumnMapping(prompt="request", completion="answer"),
            split=SplitSettings(train="train", validation="dev", test="test"),
            system_prompt=SYSTEM_PROMPT,
        ),
        training=TrainingSettings(
            lora=LoraSettings(rank=16, alpha=32),
            optimiser=OptimiserSettings(learning_rate=1e-3, schedule="cosine", steps=140, batch_size=8),
            max_length=_LENGTH,
        ),
        sampling=SamplingSettings(n=4, temperature=1.0, prompts=160, max_new_tokens=_ANSWER),
        feedback=FeedbackSettings(
            rubric=Rubric(principle=PRINCIPLE, opposite=OPPOSITE, rules=RULES),
            judged_field="reply",
            equal_fields=_ROUTING,
            margin=0.2,
        ),
        preference=PreferenceSettings(
            beta=0.1,
            losses=(PreferenceLoss(kind="sigmoid"), PreferenceLoss(kind="sft", weight=0.5)),
            optimiser=OptimiserSettings(learning_rate=2e-4, schedule="cosine", steps=20, batch_size=8),
            max_length=_LENGTH,
        ),
        evaluation=EvaluationSettings(
            metrics=("loss", "valid_json", "exact_match", "rules", "latency"),
            exact_match_fields=_ROUTING,
            rules=RULES,
            rules_field="reply",
            samples=2,
            temperature=1.0,
            max_new_tokens=_ANSWER,
        ),
        register_as=MODEL,
    )
