"""The engine uses parts of TRL and transformers that they do not promise: a new version that changes one must fail here."""

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

_READ = ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
"""The first parameters of what reads a batch of tokens; others follow."""


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_trl_is_the_version_that_the_hooks_were_checked_with() -> None:
    import trl

    assert trl.__version__ == "1.16.0"


@pytest.mark.parametrize(
    "module", ["services.trainer.child", "services.feedback.child", "services.cli.main", "services.language_models.loading"]
)
def test_no_library_sends_telemetry_from_any_process(module: str) -> None:
    code = f"import {module}\nfrom huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY\n"
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_head_returns_what_ours_returns() -> None:
    from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

    names = {field.name for field in fields(FusedCausalLMOutput)}
    assert {"log_probs", "entropy", "mean_logits", "log_sum_sq_probs", "is_top1", "label_mask"} <= names
    assert "fused_lm_head=False, labels=None" in inspect.getsource(add_fused_lm_head)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("_prepare_dataset", ["self", "dataset", "processing_class", "args", "dataset_name"]),
        ("compute_ref_log_probs", ["self", "model", "inputs"]),
        ("get_batch_samples", ["self", "epoch_iterator", "num_batches", "device"]),
        ("compute_loss", ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]),
        ("create_optimizer", ["self", "model"]),
    ],
)
def test_what_the_trainer_of_pairs_overrides_or_calls_has_its_parameters(hook: str, expected: list[str]) -> None:
    from trl import DPOTrainer

    assert parameters(getattr(DPOTrainer, hook)) == expected


def test_the_trainer_of_pairs_calls_the_model_once_for_its_loss_and_reads_the_terms_that_we_set() -> None:
    from trl import DPOTrainer

    source = inspect.getsource(DPOTrainer._compute_loss)
    assert "outputs = model(**model_kwargs, labels=labels, fused_lm_head=True)" in source
    assert "zip(self.loss_types, self.loss_weights, strict=True)" in source
    assert "loss = 0.0" in source


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("_prepare_dataset", ["self", "dataset", "processing_class", "args", "dataset_name"]),
        ("compute_ref_log_probs", ["self", "model", "inputs"]),
        ("_compute_kl_logps", ["self", "model", "batch"]),
        ("get_batch_samples", ["self", "epoch_iterator", "num_batches", "device"]),
    ],
)
def test_what_the_trainer_of_judged_answers_overrides_or_calls_has_its_parameters(hook: str, expected: list[str]) -> None:
    from trl import KTOTrainer

    assert parameters(getattr(KTOTrainer, hook)) == expected


def test_the_trainer_of_judged_answers_takes_its_reference_point_from_what_we_override() -> None:
    from transformers import Trainer
    from trl import KTOTrainer

    source = inspect.getsource(KTOTrainer._compute_loss)
    assert "KL_logps = self._compute_kl_logps(model, batch)" in source
    assert "kl = (KL_logps - ref_KL_logps).mean().detach()" in source
    assert "self._train_batch_size = args.train_batch_size" in inspect.getsource(Trainer.__init__)


def test_the_trainer_of_reward_models_takes_tokens_as_they_are_and_scores_where_we_say() -> None:
    from transformers.modeling_layers import GenericForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    prepares = inspect.getsource(RewardTrainer._prepare_dataset)
    assert 'is_processed = "chosen_ids" in column_names and "rejected_ids" in column_names' in prepares
    source = inspect.getsource(RewardTrainer.compute_loss)
    assert 'rewards_chosen - rewards_rejected - inputs["margin"]).mean()' in source, "a mean over the pairs of a part"
    assert not RewardTrainer.loss_is_scaled_for_ga
    assert {"center_rewards_coefficient", "disable_dropout"} <= {field.name for field in fields(RewardConfig)}
    assert "input_ids != self.config.get_text_config().pad_token_id" in inspect.getsource(
        GenericForSequenceClassification.forward
    )


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("_tokenize_prompts", ["self", "prompts"]),
        ("_generate_single_turn", ["self", "prompt_ids", "images", "multimodal_fields", "has_tool_images"]),
    ],
)
def test_what_the_trainer_of_distillation_overrides_has_its_parameters(hook: str, expected: list[str]) -> None:
    from trl import DistillationTrainer

    assert parameters(getattr(DistillationTrainer, hook)) == expected


def test_the_trainer_of_distillation_reads_tokens_in_one_place() -> None:
    from trl import DistillationTrainer

    assert parameters(DistillationTrainer._get_last_hidden_state)[:5] == ["self", "unwrapped_model", *_READ[2:]]
    assert inspect.getsource(DistillationTrainer._compute_loss).count("self._get_last_hidden_state") == 2


def test_the_trainer_of_distillation_divides_its_loss_by_the_tokens_of_the_whole_batch() -> None:
    from trl import DistillationTrainer

    assert DistillationTrainer.loss_is_scaled_for_ga
    assert 'num_items_in_batch = inputs["num_items_in_batch"]' in inspect.getsource(DistillationTrainer.compute_loss)
    assert "student_lm_head.weight" in inspect.getsource(DistillationTrainer._compute_loss), (
        "an adapter there would not count"
    )


def test_the_trainer_keeps_an_optimiser_and_a_schedule_that_were_set_before() -> None:
    from transformers import Trainer

    assert "if self.optimizer is None:" in inspect.getsource(Trainer.create_optimizer)
    assert "if self.lr_scheduler is None:" in inspect.getsource(Trainer.create_scheduler)
    assert "if self._created_lr_scheduler:" in inspect.getsource(Trainer._prepare_for_training)


@pytest.mark.parametrize(
    ("method", "hook", "expected"),
    [
        ("GRPO", "_tokenize_prompts", ["self", "prompts"]),
        ("RLOO", "_tokenize_prompts", ["self", "prompts"]),
        (
            "GRPO", "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        ("RLOO", "_generate_single_turn", ["self", "prompt_ids", "images", "multimodal_fields"]),
        ("GRPO", "_prepare_inputs", ["self", "generation_batch"]),
        ("RLOO", "_prepare_inputs", ["self", "generation_batch"]),
        ("GRPO", "_get_per_token_logps_and_entropies", _READ),
        ("RLOO", "_get_per_token_logps_and_entropies", _READ),
        ("GRPO", "_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("RLOO", "_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
    ],
)  # fmt: skip
def test_what_the_trainers_of_sampled_answers_override_has_its_parameters(
    method: str, hook: str, expected: list[str]
) -> None:
    assert parameters(getattr(sampling_trainer(method), hook))[: len(expected) if expected is _READ else None] == expected


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_a_trainer_of_sampled_answers_leaves_sampling_and_missing_rewards_to_what_we_override(method: str) -> None:
    trainer = sampling_trainer(method)
    generate = inspect.getsource(trainer._generate)
    assert "self._tokenize_prompts(prompts)" in generate
    assert "self._generate_single_turn(" in generate
    assert "ids[-1] not in eos_and_pad" in generate, "an answer contains the token that ended it"
    score = inspect.getsource(trainer._generate_and_score_completions)
    assert "rewards_per_func = self._calculate_rewards(inputs, prompts, completions, completion_ids_list)" in score
    assert "unscorable_mask = torch.isnan(rewards_per_func).all(dim=1)" in score
    assert "advantages = torch.nan_to_num(advantages, nan=0.0)" in score
    assert 'use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None)' in score
    assert "self._get_per_token_logps_and_entropies(" in score
    assert "keys = [key for key in inputs[0]" in inspect.getsource(trainer._calculate_rewards)


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_a_trainer_of_sampled_answers_makes_those_of_each_step_in_it_and_shuffles_them_by_its_seed(method: str) -> None:
    from trl.trainer.utils import shuffle_sequence_dict

    trainer = sampling_trainer(method)
    assert "repeat_count=self.num_iterations * self.args.steps_per_generation" in inspect.getsource(
        trainer._get_train_sampler
    )
    prepare = inspect.getsource(trainer._prepare_inputs)
    assert "self._step % generate_every == 0" in prepare
    assert "torch.randperm(" in inspect.getsource(shuffle_sequence_dict)


def sampling_trainer(method: str) -> Any:
    import trl

    return getattr(trl, f"{method}Trainer")
