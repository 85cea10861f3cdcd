"""Both steps from artifact to artifact, with each judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import FeedbackRecorded, StepResult
from schemas.lines import AnswerPair, Candidates, Message, Prediction
from schemas.reasons import Reason
from services.chassis.executor.child import Context, Stopping, UserFault
from services.chassis.storage.artifacts.pairs import pairs_store
from services.feedback.steps.compare import compare
from services.feedback.steps.label import label
from services.feedback.steps.score import score
from tests.feedback import Step, reply, row
from tests.integration.feedback.endpoint import Chat, says

RULES = [
    {"name": "kind", "kind": "contains_any", "values": ["thank you", "sorry"]},
    {"name": "names the item", "kind": "contains_field", "column": "item"},
]
BY_RULES: dict[str, Any] = {
    "judge": {"kind": "rules"},
    "rubric": {"rules": RULES},
    "judged_field": "reply",
    "equal_fields": ["queue"],
}


def candidates() -> list[Candidates]:
    return [
        row(reply("Thank you, the kettle."), reply("No.", "returns"), "no JSON", row_id="train-1", item="kettle"),
        row(reply("Maybe."), reply("Sorry."), reply("Maybe.", "returns"), row_id="train-2", item="radio"),
    ]


def fault_of(step: Callable[[Context], object], context: Context) -> Reason:
    with pytest.raises(UserFault) as fault:
        step(context)
    (reason,) = fault.value.reasons
    return reason


def labelled(context: Context) -> tuple[StepResult, FeedbackRecorded]:
    result, (recorded,) = label(context)
    return result, recorded


def test_candidates_become_preference_pairs_that_differ_in_the_judged_field_only(step: Step) -> None:
    result, _ = labelled(step.context("label", candidates(), BY_RULES))
    assert step.lines(result.outputs["preferences"], "preferences.jsonl") == [
        {
            "id": "train-1",
            "messages": [{"role": "user", "content": "help with train-1"}],
            "chosen": reply("Thank you, the kettle."),
            "rejected": reply("No."),
            "chosen_score": 1.0,
            "rejected_score": 0.0,
        },
        {
            "id": "train-2",
            "messages": [{"role": "user", "content": "help with train-2"}],
            "chosen": reply("Sorry."),
            "rejected": reply("Maybe."),
            "chosen_score": 0.5,
            "rejected_score": 0.0,
        },
    ]


def test_the_labels_hold_every_candidate_with_its_score_and_verdict(step: Step) -> None:
    result, _ = labelled(step.context("label", candidates(), BY_RULES))
    found = step.lines(result.outputs["preferences"], "labels.jsonl")
    assert [(line["id"], line["candidate"], line["score"], line["verdict"]) for line in found] == [
        ("train-1", 0, 1.0, "chosen"),
        ("train-1", 1, 0.0, "rejected"),
        ("train-1", 2, None, "unread"),
        ("train-2", 0, 0.0, "rejected"),
        ("train-2", 1, 0.5, "chosen"),
        ("train-2", 2, 0.0, "duplicate"),
    ]


def test_what_the_feedback_amounts_to_is_a_fact_of_the_job_and_a_result_of_the_step(step: Step) -> None:
    result, recorded = labelled(step.context("label", candidates(), BY_RULES))
    assert recorded == FeedbackRecorded(
        job_id="job-1", step="label", attempt=1, kind="label", judge="rules", candidates=6, comparisons=2, pairs=2, ties=0,
        invalid=1, agreement=None, position_consistency=None, longer_preferred=0.5,
    )  # fmt: skip
    assert result.metrics["pairs"] == 2.0
    assert result.facts == {"judge": "rules"}
    assert step.report(result.outputs["preferences"])["prompts_with_pair"] == 2


def test_the_same_candidates_give_the_same_artifact(step: Step) -> None:
    one, _ = labelled(step.context("label", candidates(), BY_RULES))
    other, _ = labelled(step.context("label", candidates(), BY_RULES, lease="lease-2"))
    assert one.outputs == other.outputs


def put_pairs(step: Step, *answers: tuple[str, str], own: bool = True) -> ArtifactRef:
    """Store pairs of answers where the registry puts them, or among other artifacts."""
    folder = step.home / "pairs"
    folder.mkdir()
    asked = (Message(role="user", content="Where is my kettle?"),)
    lines = [
        AnswerPair(id=str(n), messages=asked, first=one, second=two, first_version="r@1.0.0", second_version="r@2.0.0")
        for n, (one, two) in enumerate(answers)
    ]
    (folder / AnswerPair.FILE).write_text("".join(line.model_dump_json() + "\n" for line in lines))
    return (pairs_store(step.store.uri) if own else step.store).put(folder)


WISHES: dict[str, Any] = {"judge": {"kind": "rules"}, "rubric": {"rules": RULES[:1]}}


def test_answers_of_two_models_are_compared_and_the_result_has_counts_and_no_text(step: Step) -> None:
    pairs = put_pairs(step, ("No.", "Sorry."), ("thank you", "No."), ("No.", "Maybe."), ("No.", "No."))
    result = compare(step.comparing(pairs, WISHES))
    assert result.metrics == {
        "pairs": 4.0, "first_better": 1.0, "second_better": 1.0, "ties": 2.0, "unjudged": 0.0, "position_consistency": None,
    }  # fmt: skip
    assert result.facts["judge"] == "rules"
    assert len(result.facts["rubric_sha256"]) == 64
    lines = step.lines(result.outputs["comparisons"], "comparisons.jsonl")
    assert [line["verdict"] for line in lines] == ["second", "first", "tie", "tie"]
    stored = step.store.fetch(result.outputs["comparisons"], step.home / "cache")
    assert not any("Sorry." in file.read_text() for file in stored.iterdir())


def test_answers_that_lie_elsewhere_are_not_read_whoever_names_them(step: Step) -> None:
    reason = fault_of(compare, step.comparing(put_pairs(step, ("No.", "Sorry."), own=False), WISHES))
    assert reason.field == "comparison.pairs.uri"


def test_no_pair_at_all_is_a_fault_of_the_request_that_says_what_to_change(step: Step) -> None:
    reason = fault_of(label, step.context("label", candidates(), {**BY_RULES, "margin": 3}))
    assert (reason.field, reason.value) == ("feedback.margin", "3.0")
    assert "all 2 comparisons are ties" in reason.message
    assert "widest consistent difference is 1" in reason.message


def test_the_rules_judge_without_rules_is_a_fault_of_the_request(step: Step) -> None:
    reason = fault_of(label, step.context("label", candidates(), {"judge": {"kind": "rules"}}))
    assert reason.field == "feedback.rubric.rules"


def test_a_position_biased_judge_makes_ties_not_labels(step: Step, chat: Chat) -> None:
    judge = {"kind": "openai", "model": "biased", "endpoint": chat.url}
    reason = fault_of(label, step.context("label", candidates(), {"judge": judge, "judged_field": "reply"}))
    assert reason.field == "feedback.margin"
    assert "0 below the margin and 2 inconsistent under swapped order" in reason.message


def test_a_strong_judge_labels_and_is_measured_against_the_rules(step: Step, chat: Chat) -> None:
    def answer(body: dict[str, Any]) -> Any:
        first = str(body["messages"][-1]["content"]).partition("<text A>\n")[2]
        return says("A" if first.startswith(("Thank you", "Maybe")) else "B")

    chat.answer = answer
    judge = {"kind": "openai", "model": "strong", "endpoint": chat.url}
    _, recorded = labelled(step.context("label", candidates(), {**BY_RULES, "judge": judge}))
    assert (recorded.judge, recorded.pairs, recorded.position_consistency) == ("openai:strong", 2, 1.0)
    assert recorded.agreement == 0.5


def test_a_local_judge_labels_with_the_jobs_base_model(step: Step, tiny_model: Path) -> None:
    feedback = {"judged_field": "reply", "margin": 0.0, "rubric": {"rules": RULES}}
    result, recorded = labelled(step.context("label", candidates(), feedback, str(tiny_model)))
    assert (recorded.judge, recorded.pairs) == ("local/likelihood:model", 2)
    assert recorded.agreement is not None
    assert step.report(result.outputs["preferences"])["rules"]["comparisons"] == 2


def predictions() -> list[Prediction]:
    given: dict[str, Any] = {"messages": (), "columns": {"item": "kettle"}, "reference": "", "nll": None}
    return [
        Prediction(id="test-1", greedy=reply("Sorry."), samples=(reply("Sorry, the kettle."), "no JSON"), **given),
        Prediction(id="test-2", greedy="no JSON", samples=(reply("Sorry."), reply("No.")), **given),
    ]


def test_predictions_get_a_mean_score_with_null_where_no_reply_can_be_read(step: Step) -> None:
    result = score(step.context("score", predictions(), BY_RULES))
    assert result.metrics == {"judge": 0.5, "judge_greedy": 0.5, "judge_unread": 1.0, "judge_unjudged": 0.0}
    assert step.lines(result.outputs["scores"], "scores.jsonl") == [
        {"id": "test-1", "scores": [1.0, None], "greedy": 0.5},
        {"id": "test-2", "scores": [0.5, 0.0], "greedy": None},
    ]
    assert step.report(result.outputs["scores"])["samples"] == 4


def test_predictions_of_which_none_can_be_read_have_no_score_and_are_no_fault(step: Step) -> None:
    result = score(step.context("score", predictions(), {**BY_RULES, "judged_field": "answer"}))
    assert result.metrics["judge"] is None
    assert result.metrics["judge_unread"] == 4.0


@pytest.mark.parametrize("scoring", ["likelihood", "question"])
def test_a_local_judge_scores_predictions(step: Step, tiny_model: Path, scoring: str) -> None:
    feedback = {"judge": {"kind": "local", "scoring": scoring}, "judged_field": "reply"}
    result = score(step.context("score", predictions(), feedback, str(tiny_model)))
    assert isinstance(result.metrics["judge"], float)
    assert result.facts["judge"] == f"local/{scoring}:model"


def test_a_step_that_is_told_to_stop_stops_before_the_next_judgement(step: Step) -> None:
    context = step.context("label", candidates(), BY_RULES)
    context.stop()
    with pytest.raises(Stopping):
        label(context)


def test_labelling_reports_progress(step: Step) -> None:
    context = step.context("label", candidates(), BY_RULES)
    label(context)
    (first, *_) = context._channel.sent  # type: ignore[attr-defined]
    assert (first.progress.done, first.progress.of, first.progress.unit) == (0, 4, "judgements")
