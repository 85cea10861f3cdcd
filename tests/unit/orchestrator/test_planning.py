"""A pipeline becomes a graph of steps, or reasons that name field, value and remedy."""

from typing import Any

import pytest

from schemas.requests import PRESETS, JobRequest, PipelineStep
from schemas.steps import INPUTS_OF, CompareSettings, CompressSettings, PlannedStep, PrepareSettings, TrainSettings
from services.orchestrator.domain.graph import ancestors
from services.orchestrator.domain.planning import PlanFault, plan
from tests.unit.orchestrator.scenario import a_request

NEEDED: dict[str, Any] = {
    **{method: {"rewards": [{"kind": "number_match"}]} for method in ("grpo", "rloo")},
    "distill": {"teacher": "/models/large"},
}
"""What the presets need that learn from rewards or from a teacher."""


def preset(name: str) -> dict[str, Any]:
    """Return the fields of a request with this preset and what it needs."""
    return {"pipeline": name, **NEEDED, **({"import_from": "/made/elsewhere"} if name == "import" else {})}


def planned(**fields: Any) -> tuple[PlannedStep, ...]:
    return plan(JobRequest.model_validate(a_request(**fields)))


def refused(*steps: dict[str, Any], **fields: Any) -> dict[str, str]:
    with pytest.raises(PlanFault) as caught:
        planned(pipeline=list(steps), **fields)
    return {reason.field: f"{reason.message}; {reason.remedy}" for reason in caught.value.reasons}


def a_step(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, **fields}


RULE = {"name": "polite", "kind": "contains_any", "values": ["please"]}
PREPARE = a_step("prepare", "prepare")
TRAIN = a_step("train", "train", method="sft", inputs={"dataset": "prepare.dataset"})


def test_the_sft_preset_trains_between_two_evaluations_and_registers_what_it_trained() -> None:
    steps = planned(pipeline="sft")
    assert [step.name for step in steps] == ["prepare", "evaluate-base", "train", "evaluate", "register"]
    register = steps[-1]
    assert register.inputs == {"adapter": "train.adapter"}
    assert ancestors(steps, "register") == {"prepare", "evaluate-base", "train", "evaluate"}


def test_tasks_of_the_harness_are_stored_by_prepare_for_evaluations_and_by_none_without_them() -> None:
    prepare = planned(pipeline="sft", evaluation={"harness": {"tasks": ["sums.yaml"], "limit": 3}})[0].settings
    assert isinstance(prepare, PrepareSettings)
    assert prepare.harness is not None
    assert (prepare.harness.tasks, prepare.harness.limit) == (("sums.yaml",), 3)
    alone = planned(pipeline=[PREPARE, TRAIN], evaluation={"harness": {"tasks": ["sums.yaml"]}})[0].settings
    assert isinstance(alone, PrepareSettings)
    assert alone.harness is None


def test_prepare_knows_what_a_judge_that_is_a_model_reads_and_no_other_judge() -> None:
    def judged(**fields: Any) -> Any:
        settings = planned(**fields)[0].settings
        assert isinstance(settings, PrepareSettings)
        return settings.judged

    found = judged(pipeline="rlaif", sampling={"max_new_tokens": 40}, evaluation={"max_new_tokens": 50})
    assert (found.answers, found.tokens, found.feedback.judge.kind) == (2, 50, "local")
    assert judged(pipeline="sft") is None
    assert judged(pipeline="rlaif", feedback={"judge": {"kind": "rules"}, "rubric": {"rules": [RULE]}}) is None


def test_the_rlaif_preset_aligns_the_trained_adapter_on_labelled_samples_and_registers_the_aligned_one() -> None:
    steps = {step.name: step for step in planned(pipeline="rlaif")}
    assert list(steps) == [
        "prepare", "evaluate-base", "score-base", "train", "evaluate-sft", "score-sft", "sample", "label", "align",
        "evaluate", "score", "register",
    ]  # fmt: skip
    assert steps["align"].inputs == {"preferences": "label.preferences", "adapter": "train.adapter"}
    assert isinstance(steps["align"].settings, TrainSettings)
    assert steps["align"].settings.preference is not None
    assert steps["align"].settings.training is None
    assert steps["evaluate"].inputs["adapter"] == steps["register"].inputs["adapter"] == "align.adapter"
    assert ancestors(tuple(steps.values()), "register") == set(steps) - {"register"}


def test_the_dpo_preset_learns_from_the_pairs_of_the_data_set_without_a_judge() -> None:
    steps = {step.name: step for step in planned(pipeline="dpo", preference={"max_length": 300})}
    assert list(steps) == ["prepare", "evaluate-base", "train", "evaluate", "register"]
    assert steps["train"].inputs == {"preferences": "prepare.preferences"}
    settings = steps["prepare"].settings
    assert isinstance(settings, PrepareSettings)
    assert (settings.learns, settings.max_length) == ("pairs", 300)


def test_a_data_set_whose_pairs_and_answers_are_learnt_is_prepared_for_the_shorter_of_both() -> None:
    align = a_step(
        "align", "train", method="dpo", inputs={"preferences": "prepare.preferences", "adapter": "train.adapter"}
    )
    steps = planned(pipeline=[PREPARE, TRAIN, align], preference={"max_length": 300}, training={"max_length": 200})
    settings = steps[0].settings
    assert isinstance(settings, PrepareSettings)
    assert (settings.learns, settings.max_length) == ("pairs", 200)


def test_without_a_step_that_binds_its_preferences_a_data_set_is_learnt_from_its_answers() -> None:
    settings = planned(pipeline="rlaif")[0].settings
    assert isinstance(settings, PrepareSettings)
    assert settings.learns == "answers"


def test_the_kto_preset_learns_from_the_judged_answers_of_the_data_set() -> None:
    steps = {step.name: step for step in planned(pipeline="kto", kto={"max_length": 300, "beta": 0.2})}
    prepare, train = steps["prepare"].settings, steps["train"].settings
    assert isinstance(prepare, PrepareSettings)
    assert (prepare.learns, prepare.max_length) == ("labels", 300)
    assert isinstance(train, TrainSettings)
    assert train.kto is not None
    assert train.kto.beta == 0.2
    assert train.training is None
    assert train.preference is None
    assert prepare.kto is not None, "so that the base model is checked for it"


def test_the_reward_preset_learns_from_the_pairs_of_the_data_set_and_registers_without_an_evaluation() -> None:
    steps = {step.name: step for step in planned(pipeline="reward", reward={"max_length": 300})}
    assert list(steps) == ["prepare", "train", "register"]
    prepare, train = steps["prepare"].settings, steps["train"].settings
    assert isinstance(prepare, PrepareSettings)
    assert (prepare.learns, prepare.max_length) == ("pairs", 300)
    assert prepare.reward is not None
    assert isinstance(train, TrainSettings)
    assert train.method_settings == prepare.reward


JUDGE = a_step("judge", "train", algorithm="reward", inputs={"preferences": "prepare.preferences"})


@pytest.mark.parametrize("kind", ["evaluate", "sample", "train"])
def test_a_reward_model_is_not_bound_where_answers_are_written(kind: str) -> None:
    method = {"method": "sft"} if kind == "train" else {}
    writes = a_step("writes", kind, inputs={"dataset": "prepare.dataset", "adapter": "judge.adapter"}, **method)
    assert "makes a reward model" in refused(PREPARE, JUDGE, writes)["pipeline.2.inputs.adapter"]


def test_a_reward_model_is_registered_or_trained_further() -> None:
    inputs = {"preferences": "prepare.preferences", "adapter": "judge.adapter"}
    again = a_step("again", "train", algorithm="reward", inputs=inputs)
    register = a_step("register", "register", inputs={"adapter": "again.adapter"})
    assert planned(pipeline=[PREPARE, JUDGE, again, register])


def test_a_distillation_names_its_teacher() -> None:
    with pytest.raises(PlanFault, match="learns from a teacher, and none is named"):
        planned(pipeline="distill")
    settings = planned(
        pipeline="distill", distill={"teacher": "/models/large", "max_prompt_tokens": 100, "max_new_tokens": 20}
    )
    prepare = settings[0].settings
    assert isinstance(prepare, PrepareSettings)
    assert (prepare.max_length, prepare.assistant_turns) == (120, "last")
    assert prepare.distill is not None


def test_a_margin_by_scores_needs_pairs_that_a_judge_has_scored() -> None:
    with pytest.raises(PlanFault, match="have no scores of a judge"):
        planned(pipeline="reward", reward={"margin_scale": 1.0})


def test_a_step_has_one_training_method() -> None:
    for faulty in ({"method": "dpo", "algorithm": "kto"}, {}):
        with pytest.raises(ValueError, match="algorithm"):
            PipelineStep.model_validate({"name": "train", "kind": "train", **faulty})
    with pytest.raises(ValueError, match="algorithm"):
        PipelineStep.model_validate({"name": "prepare", "kind": "prepare", "algorithm": "kto"})


def test_every_name_of_a_preset_can_be_planned() -> None:
    assert all(planned(**preset(name)) for name in PRESETS)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_method_that_samples_learns_from_the_prompts_of_the_data_set_and_the_rewards_of_the_request(method: str) -> None:
    own = {"rewards": [{"kind": "number_match"}], "max_prompt_tokens": 100, "max_new_tokens": 50}
    steps = {step.name: step for step in planned(pipeline=method, **{method: own})}
    prepare, train = steps["prepare"].settings, steps["train"].settings
    assert isinstance(prepare, PrepareSettings)
    assert (prepare.learns, prepare.max_length, prepare.assistant_turns) == ("answers", 150, "last")
    assert isinstance(train, TrainSettings)
    assert train.method_settings == getattr(prepare, method)
    assert train.method_settings == getattr(train, method)
    assert steps["train"].inputs == {"dataset": "prepare.dataset"}


def test_a_method_that_samples_may_continue_from_an_adapter() -> None:
    improve = a_step(
        "improve", "train", algorithm="grpo", inputs={"dataset": "prepare.dataset", "adapter": "train.adapter"}
    )
    steps = planned(
        pipeline=[PREPARE, TRAIN, improve],
        grpo={"rewards": [{"kind": "valid_json"}], "max_new_tokens": 20},
        training={"max_length": 60},
    )
    settings = steps[0].settings
    assert isinstance(settings, PrepareSettings)
    assert (settings.max_length, settings.assistant_turns) == (60, "all")


def test_a_method_that_samples_is_refused_without_a_reward() -> None:
    improve = a_step("improve", "train", algorithm="rloo", inputs={"dataset": "prepare.dataset"})
    assert "there is none" in refused(PREPARE, improve)["rloo.rewards"]


PAIRS: dict[str, Any] = {"pairs": {"uri": "/artifacts/answer-pairs", "sha256": "a" * 64, "size": 1}}


def test_answers_that_are_compared_are_named_by_the_request_and_a_registered_judge_is_found_first() -> None:
    judge = {"judge": {"reward_model": "kind@1.0.0"}}
    steps = planned(pipeline=[a_step("compare", "compare")], comparison=PAIRS, feedback=judge)
    assert [step.name for step in steps] == ["resolve-judge", "compare"]
    settings = steps[-1].settings
    assert isinstance(settings, CompareSettings)
    assert (settings.comparison.pairs.sha256, settings.feedback.judge.reward_model) == ("a" * 64, "kind@1.0.0")


def test_a_comparison_without_answers_and_answers_without_a_comparison_are_refused() -> None:
    assert "name the artifact" in refused(a_step("compare", "compare"))["comparison"]
    assert "no step of the pipeline compares" in refused(PREPARE, comparison=PAIRS)["comparison"]
    by_rules = refused(a_step("compare", "compare"), comparison=PAIRS, feedback={"judge": {"kind": "rules"}})
    assert "feedback.rubric.rules" in by_rules


def test_the_settings_of_a_step_are_those_of_its_purpose() -> None:
    steps = {step.name: step.settings for step in planned(pipeline="rlaif", sampling={"n": 7}, alias="best")}
    assert steps["sample"].model_dump()["sampling"]["n"] == 7
    assert steps["register"].model_dump()["model"] == "router"
    assert steps["register"].model_dump()["alias"] == "best"
    assert steps["prepare"].model_dump()["dataset"]["reference"] == "/data"


def test_steps_listed_in_any_order_are_planned_behind_what_they_need() -> None:
    register = a_step("z", "register", inputs={"adapter": "train.adapter"})
    assert [step.name for step in planned(pipeline=[register, TRAIN, PREPARE])] == ["prepare", "train", "z"]


def test_a_bound_input_is_a_need_too() -> None:
    steps = planned(pipeline=[PREPARE, {**TRAIN, "needs": ["prepare"]}])
    assert steps[1].needs == ("prepare",)


def test_a_step_name_may_hold_dots() -> None:
    steps = planned(pipeline=[a_step("v1.data", "prepare"), {**TRAIN, "inputs": {"dataset": "v1.data.dataset"}}])
    assert steps[1].needs == ("v1.data",)


def test_two_steps_of_one_name_are_refused() -> None:
    assert "step 0 has this name already" in refused(PREPARE, PREPARE)["pipeline.1.name"]


def test_an_input_that_the_kind_does_not_read_is_refused_with_those_it_reads() -> None:
    label = a_step("label", "label", inputs={"dataset": "prepare.dataset"})
    reasons = refused(PREPARE, label)
    assert "bind only candidates" in reasons["pipeline.1.inputs.dataset"]
    assert "needs the input candidates" in reasons["pipeline.1.inputs"]


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("nowhere.dataset", "no step is called 'nowhere'"),
        ("dataset", "no step is called ''"),
        ("prepare.adapter", "has no output 'adapter'; bind prepare.dataset, prepare.preferences"),
    ],
)
def test_a_binding_that_leads_nowhere_is_refused(binding: str, words: str) -> None:
    train = a_step("train", "train", method="sft", inputs={"dataset": binding})
    assert words in refused(PREPARE, train)["pipeline.1.inputs.dataset"]


def test_an_output_of_another_type_than_the_input_is_refused() -> None:
    evaluate = a_step("evaluate", "evaluate", inputs={"dataset": "prepare.dataset", "adapter": "prepare.dataset"})
    assert "cannot take a dataset" in refused(PREPARE, evaluate)["pipeline.1.inputs.adapter"]


def test_training_on_preferences_needs_preferences_and_not_a_data_set() -> None:
    align = a_step("align", "train", method="dpo", inputs={"dataset": "prepare.dataset"})
    reasons = refused(PREPARE, align)
    assert "train (dpo) reads no input 'dataset'" in reasons["pipeline.1.inputs.dataset"]
    assert "train (dpo) needs the input preferences" in reasons["pipeline.1.inputs"]


def test_a_need_that_is_no_step_is_refused() -> None:
    assert "no step has this name" in refused({**PREPARE, "needs": ["ghost"]})["pipeline.0.needs.0"]


def test_a_circle_is_refused_and_shown() -> None:
    reasons = refused({**PREPARE, "needs": ["train"]}, TRAIN)
    assert "in a cycle" in reasons["pipeline"]


def test_a_step_that_needs_itself_is_a_circle() -> None:
    assert "in a cycle" in refused({**PREPARE, "needs": ["prepare"]})["pipeline"]


def test_every_fault_of_a_pipeline_is_named_at_once() -> None:
    reasons = refused(PREPARE, PREPARE, {**TRAIN, "inputs": {}}, {**TRAIN, "name": "x", "needs": ["ghost"]})
    assert set(reasons) == {"pipeline.1.name", "pipeline.2.inputs", "pipeline.3.needs.0"}


def test_a_pipeline_of_absurd_length_is_refused_at_once() -> None:
    steps = [a_step(f"s{number}", "prepare") for number in range(20_000)]
    assert "at most 100 steps" in refused(*steps)["pipeline"]


def test_evaluating_without_a_held_out_split_is_refused() -> None:
    dataset = {"reference": "/data", "split": {"test": None}}
    with pytest.raises(PlanFault, match=r"dataset\.split\.test"):
        planned(dataset=dataset)
    assert planned(dataset=dataset, pipeline=[PREPARE, TRAIN])


def test_measuring_or_judging_by_no_rule_is_refused() -> None:
    with pytest.raises(PlanFault, match=r"evaluation\.rules"):
        planned(evaluation={"metrics": ["rules"]})
    with pytest.raises(PlanFault, match=r"feedback\.rubric\.rules"):
        planned(pipeline="rlaif", feedback={"judge": {"kind": "rules"}})


def test_training_that_continues_from_an_adapter_refuses_other_options_for_it() -> None:
    with pytest.raises(PlanFault) as caught:
        planned(pipeline="rlaif", preference={"lora": {"rank": 4}})
    (reason,) = caught.value.reasons
    assert reason.field == "preference.lora"
    assert "rank" in str(reason.value)
    assert planned(pipeline="rlaif", preference={"lora": {"rank": 4}}, training={"lora": {"rank": 4}})
    assert planned(pipeline="rlaif", training={"lora": {"rank": 4}})
    assert planned(pipeline="dpo", preference={"lora": {"rank": 4}})


def test_training_of_all_weights_makes_a_model_which_the_preset_evaluates_and_registers() -> None:
    steps = {step.name: step for step in planned(pipeline="sft", training={"adaptation": "full"})}
    assert steps["evaluate"].inputs == {"dataset": "prepare.dataset", "model": "train.model"}
    assert steps["register"].inputs == {"model": "train.model"}
    assert ancestors(tuple(steps.values()), "register") == {"prepare", "evaluate-base", "train", "evaluate"}


def test_what_a_training_does_not_make_cannot_be_bound() -> None:
    evaluate = a_step("evaluate", "evaluate", inputs={"dataset": "prepare.dataset", "adapter": "train.adapter"})
    found = refused(PREPARE, TRAIN, evaluate, training={"adaptation": "full"})
    assert "bind train.model as the input model" in found["pipeline.2.inputs.adapter"]
    evaluate = a_step("evaluate", "evaluate", inputs={"dataset": "prepare.dataset", "model": "train.model"})
    assert "bind train.adapter" in refused(PREPARE, TRAIN, evaluate)["pipeline.2.inputs.model"]


def test_training_of_all_weights_does_not_continue_from_an_adapter() -> None:
    again = a_step("again", "train", method="sft", inputs={"dataset": "prepare.dataset", "adapter": "align.adapter"})
    align = a_step("align", "train", method="dpo", inputs={"preferences": "prepare.preferences"})
    assert "merge" in refused(PREPARE, align, again, training={"adaptation": "full"})["pipeline.2.inputs.adapter"]
    with pytest.raises(PlanFault, match=r"training\.adaptation"):
        planned(pipeline="rlaif", training={"adaptation": "full"})


def test_presets_bind_only_inputs_of_their_kinds() -> None:
    for name in PRESETS:
        for step in planned(**preset(name)):
            assert set(step.inputs) <= set(INPUTS_OF[step.kind])


MERGE = a_step("merge", "compress", inputs={"adapter": "train.adapter"})


def test_a_merged_model_is_evaluated_and_registered_in_place_of_its_adapter() -> None:
    evaluate = a_step("evaluate", "evaluate", inputs={"dataset": "prepare.dataset", "model": "merge.model"})
    register = a_step("register", "register", inputs={"model": "merge.model"}, needs=["evaluate"])
    steps = planned(pipeline=[PREPARE, TRAIN, MERGE, evaluate, register], compression={"dtype": "fp16"})
    settings = steps[2].settings
    assert isinstance(settings, CompressSettings)
    assert (settings.compression.method, settings.compression.dtype) == ("merge", "fp16")
    assert [step.name for step in steps] == ["prepare", "train", "merge", "evaluate", "register"]


def test_a_register_step_takes_an_adapter_or_a_model_and_not_both_or_neither() -> None:
    for inputs in ({}, {"adapter": "train.adapter", "model": "merge.model"}):
        faults = refused(PREPARE, TRAIN, MERGE, a_step("register", "register", inputs=inputs))
        assert "either the input adapter or the input model" in faults["pipeline.3.inputs"]


def test_a_merge_needs_an_adapter() -> None:
    again = a_step("again", "compress", compression="merge", inputs={"model": "merge.model"})
    assert "needs the input adapter" in refused(PREPARE, TRAIN, MERGE, again)["pipeline.3.inputs"]


def test_a_method_of_compression_belongs_to_steps_of_kind_compress_only() -> None:
    with pytest.raises(ValueError, match="compression"):
        PipelineStep.model_validate({"name": "prepare", "kind": "prepare", "compression": "merge"})


def test_an_adapter_that_was_trained_on_a_model_is_used_with_that_model_only() -> None:
    more = a_step("more", "train", method="sft", inputs={"dataset": "prepare.dataset", "model": "merge.model"})
    last = a_step("last", "compress", inputs={"adapter": "more.adapter", "model": "merge.model"})
    assert planned(pipeline=[PREPARE, TRAIN, MERGE, more, last])
    evaluated = {"dataset": "prepare.dataset", "adapter": "more.adapter"}
    for kind, inputs in (
        ("evaluate", evaluated),
        ("evaluate", {**evaluated, "adapter": "train.adapter", "model": "merge.model"}),
        ("register", {"adapter": "more.adapter"}),
    ):
        faults = refused(PREPARE, TRAIN, MERGE, more, a_step("wrong", kind, inputs=inputs))
        assert "was trained on" in faults["pipeline.4.inputs"]


@pytest.mark.parametrize(("kind", "more"), [("train", {"method": "sft"}), ("compress", {"compression": "prune"})])
def test_a_quantised_model_is_neither_trained_nor_compressed_again(kind: str, more: dict[str, Any]) -> None:
    quantised = a_step("small", "compress", compression="int8", inputs={"model": "merge.model"})
    inputs = {"dataset": "prepare.dataset", "model": "small.model"}
    faults = refused(PREPARE, TRAIN, MERGE, quantised, a_step("next", kind, inputs=inputs, **more))
    assert "make the int8 one last" in faults["pipeline.4.inputs"]


def test_a_base_model_is_pruned_before_its_training_if_its_data_are_prepared() -> None:
    pruned = a_step("small", "compress", compression="prune", inputs={"dataset": "prepare.dataset"})
    steps = planned(pipeline=[PREPARE, pruned], compression={"prune": {"what": "layers"}})
    settings = steps[0].settings
    assert isinstance(settings, PrepareSettings)
    assert [(one.method, one.prune.what) for one in settings.compressions] == [("prune", "layers")]
    assert "needs the input" in refused(PREPARE, {**pruned, "inputs": {}})["pipeline.1.inputs"]
