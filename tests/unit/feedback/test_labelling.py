"""From candidates to pairs, labels and what they are worth."""

from typing import Any

import pytest

from schemas.lines import Candidates
from schemas.recipes.feedback import FeedbackSettings
from schemas.rules import Rule
from services.feedback.groups import group
from services.feedback.judges.judge import Judge
from services.feedback.labelling import Labelled, label_groups, labels, preferences
from services.feedback.report import LabelReport, label_report, without_pairs
from tests.feedback import Comparing, Told, quiet, reply, row

KIND = {"name": "kind", "kind": "contains_any", "values": ["thank you"]}


def settings(**fields: Any) -> FeedbackSettings:
    return FeedbackSettings.model_validate({"judged_field": "reply", "margin": 0.2, **fields})


def labelled(judge: Judge, feedback: FeedbackSettings, *rows: Candidates) -> list[Labelled]:
    groups = [group(one, feedback.judged_field, feedback.equal_fields) for one in rows]
    return label_groups(groups, judge, feedback, quiet)


def report(judge: Judge, feedback: FeedbackSettings, *rows: Candidates) -> LabelReport:
    return label_report(judge.name, feedback, labelled(judge, feedback, *rows))


def test_a_pair_holds_whole_answers_of_which_only_the_judged_field_differs() -> None:
    feedback = settings(equal_fields=["queue"])
    judge = Told({"Thank you.": 0.5, "No.": -0.5})
    (one,) = labelled(judge, feedback, row(reply("No.", "returns"), reply("Thank you.", "billing")))
    (pair,) = preferences(one, feedback.equal_fields)
    assert (pair.chosen, pair.rejected) == (reply("Thank you.", "billing"), reply("No.", "billing"))
    assert (pair.chosen_score, pair.rejected_score) == (0.5, -0.5)
    assert [turn.content for turn in pair.messages] == ["help with train-1"]


def test_every_candidate_gets_a_label() -> None:
    judge = Told({"best": 1.0, "middle": 0.5, "worst": 0.0, "odd": None})
    candidates = [reply("middle"), "no JSON", reply("worst"), reply("best"), reply("odd"), reply("best")]
    (one,) = labelled(judge, settings(), row(*candidates))
    assert [(label.candidate, label.judged, label.score, label.verdict) for label in labels(one)] == [
        (0, "middle", 0.5, "unpaired"),
        (1, None, None, "unread"),
        (2, "worst", 0.0, "rejected"),
        (3, "best", 1.0, "chosen"),
        (4, "odd", None, "unjudged"),
        (5, "best", 1.0, "duplicate"),
    ]


def test_a_candidate_may_win_one_pair_and_lose_another() -> None:
    (one,) = labelled(Told({"a": 1.0, "b": 0.5, "c": 0.0}), settings(pairs_per_prompt=3), row(*map(reply, "abc")))
    assert [label.verdict for label in labels(one)] == ["chosen", "both", "rejected"]


def test_equal_candidates_are_judged_once() -> None:
    judge = Told({"best": 1.0, "worst": 0.0})
    labelled(judge, settings(), row(reply("best"), reply("worst"), reply("best")))
    assert judge.asked == ["best", "worst"]


def test_scores_stay_with_their_prompt() -> None:
    judge = Told({"a": 1.0, "b": 0.0, "c": 0.0, "d": 1.0, "alone": 0.3})
    rows = [row(reply("a"), reply("b")), row(reply("alone"), row_id="2"), row(reply("c"), reply("d"), row_id="3")]
    one, two, three = labelled(judge, settings(), *rows)
    assert [(choice.chosen, choice.rejected) for choice in (*one.choices, *three.choices)] == [(0, 1), (1, 0)]
    assert two.choices == []
    assert list(two.scores) == [0.3]


def test_a_judge_that_compares_is_asked_about_every_two_candidates_and_decides_by_both_orders() -> None:
    quality = {"best": 3, "middle": 2, "worst": 1}
    judge = Comparing(lambda one, other: 1.0 if quality[one] > quality[other] else -1.0)
    (one,) = labelled(judge, settings(), row(*map(reply, ("middle", "worst", "best"))))
    assert list(one.scores) == [0.0, -1.0, 1.0]
    assert [(choice.chosen, choice.rejected) for choice in one.choices] == [(2, 1)]


def test_counts_add_up() -> None:
    judge = Told({"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.45, "e": None})
    found = report(judge, settings(), row(*map(reply, "ab"), reply("a"), "x"), row(*map(reply, "cde"), row_id="2"))
    assert (found.candidates, found.unread, found.duplicates, found.unjudged) == (7, 1, 1, 1)
    assert (found.comparisons, found.comparisons_unjudged, found.ties.below_margin, found.pairs) == (4, 2, 1, 1)
    assert (found.prompts, found.prompts_with_pair) == (2, 1)
    assert found.position is None


def test_agreement_counts_pairs_whose_chosen_text_the_rules_prefer() -> None:
    judge = Told({"thank you": 1.0, "no": 0.0, "never": 1.0, "maybe": 0.0, "thank you!": 0.0, "what": 1.0})
    rows = [
        row(reply("thank you"), reply("no")),
        row(reply("never"), reply("maybe"), row_id="2"),
        row(reply("thank you!"), reply("what"), row_id="3"),
    ]
    found = report(judge, settings(rubric={"rules": [KIND]}), *rows).rules
    assert found is not None
    assert (found.agree, found.undecided, found.disagree) == (1, 1, 1)
    assert found.share == pytest.approx(1 / 3)
    assert found.comparisons == 3


def test_rules_may_read_the_columns_of_the_row() -> None:
    rules = [Rule(name="names the item", kind="contains_field", column="item")]
    judge = Told({"the kettle": 1.0, "it": 0.0})
    found = report(judge, settings(rubric={"rules": rules}), row(reply("the kettle"), reply("it"), item="kettle")).rules
    assert found is not None
    assert found.agree == 1


def test_without_rules_there_is_no_agreement_and_the_rules_do_not_measure_themselves() -> None:
    judge = Told({"a": 1.0, "b": 0.0})
    pair = row(reply("a"), reply("b"))
    assert report(judge, settings(), pair).rules is None
    assert report(judge, settings(rubric={"rules": [KIND]}, judge={"kind": "rules"}), pair).rules is None


def test_a_judge_that_likes_what_comes_first_is_seen_through() -> None:
    found = report(Comparing(lambda one, other: 0.9), settings(), row(*map(reply, "abc")))
    assert (found.pairs, found.ties.inconsistent) == (0, 3)
    assert found.position is not None
    assert (found.position.consistency, found.position.shown_first_preferred) == (0.0, 1.0)
    assert found.position.transitivity is None


def test_a_judge_that_goes_in_circles_is_seen_through() -> None:
    beats = {("a", "b"), ("b", "c"), ("c", "a")}
    judge = Comparing(lambda one, other: 1.0 if (one, other) in beats else -1.0)
    found = report(judge, settings(), row(*map(reply, "abc")))
    assert found.position is not None
    assert (found.position.consistency, found.position.transitivity) == (1.0, 0.0)


def test_a_taste_for_length_shows_beside_what_the_rules_say() -> None:
    judge = Told({"thank you": 0.0, "no, never, not at all": 1.0, "thank you so much": 1.0, "no": 0.0})
    rows = [
        row(reply("thank you"), reply("no, never, not at all")),
        row(reply("thank you so much"), reply("no"), row_id="2"),
    ]
    found = report(judge, settings(rubric={"rules": [KIND]}), *rows).length
    assert (found.longer_preferred, found.longer_preferred_by_rules) == (1.0, 0.5)
    assert (found.chosen_characters, found.rejected_characters) == (19.0, 5.5)


def why(judge: Judge, feedback: FeedbackSettings, *rows: Candidates) -> str:
    done = labelled(judge, feedback, *rows)
    return str(without_pairs(label_report(judge.name, feedback, done), done))


def test_no_pair_because_nothing_can_be_read_names_the_field() -> None:
    said = why(Told({}), settings(equal_fields=["queue"]), row("x", "y"))
    assert said.startswith("feedback.judged_field: none of the 2 candidates of 1 prompts can be read as a JSON object with")
    assert "reply, queue" in said


def test_no_pair_because_all_candidates_are_alike_names_the_temperature() -> None:
    said = why(Told({"a": 1.0}), settings(), row(reply("a"), reply("a"), "x"))
    assert said.startswith("sampling.temperature: no prompt has two different readable candidates")
    assert "raise sampling.temperature" in said


def test_no_pair_because_all_are_ties_names_the_margin_and_how_far_to_lower_it() -> None:
    said = why(Told({"a": 0.1, "b": 0.0}), settings(), row(reply("a"), reply("b")))
    assert said.startswith("feedback.margin: all 1 comparisons are ties: 1 below the margin and 0 inconsistent")
    assert "0.1 (got 0.2); lower the margin below it" in said


def test_no_pair_because_the_judge_only_sees_positions_names_the_judge() -> None:
    said = why(Comparing(lambda one, other: 0.9), settings(), row(reply("a"), reply("b")))
    assert "0 below the margin and 1 inconsistent under swapped order" in said
    assert "change feedback.rubric or feedback.judge" in said


def test_no_pair_because_the_judge_is_silent_names_the_judge() -> None:
    said = why(Told({"a": None, "b": None}), settings(), row(reply("a"), reply("b")))
    assert said.startswith("feedback.judge: the judge gave no usable judgement on any of 1 comparisons")
