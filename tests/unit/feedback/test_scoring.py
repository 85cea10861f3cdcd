"""What a judge thinks of a model: a mean over what can be read, never a number for what cannot."""

from schemas.lines import Prediction
from schemas.recipes.feedback import FeedbackSettings
from services.feedback.scoring import Scored, score_predictions
from tests.feedback import Told, quiet, reply

SETTINGS = FeedbackSettings(judged_field="reply")


def prediction(greedy: str, *samples: str, row_id: str = "test-1") -> Prediction:
    return Prediction(id=row_id, messages=(), columns={}, reference="", greedy=greedy, samples=samples, nll=None)


def scored(judge: Told, *rows: Prediction) -> Scored:
    return score_predictions(rows, judge, SETTINGS, quiet)


def test_the_metric_is_the_mean_over_the_samples_that_can_be_read() -> None:
    judge = Told({"good": 1.0, "bad": 0.0, "best": 3.0})
    found = scored(
        judge, prediction(reply("best"), reply("good"), "x"), prediction("x", reply("bad"), reply("good"), row_id="2")
    )
    assert found.report.metrics == {"judge": 2 / 3, "judge_greedy": 3.0, "judge_unread": 1.0, "judge_unjudged": 0.0}
    assert [line.scores for line in found.lines] == [(1.0, None), (0.0, 1.0)]
    assert [line.greedy for line in found.lines] == [3.0, None]


def test_a_model_that_says_nothing_readable_has_no_score() -> None:
    found = scored(Told({}), prediction("x", "y", "z"))
    assert found.report.metrics == {"judge": None, "judge_greedy": None, "judge_unread": 2.0, "judge_unjudged": 0.0}
    assert found.lines[0].scores == (None, None)


def test_a_missing_judgement_is_told_apart_from_an_unreadable_answer() -> None:
    found = scored(Told({"good": 1.0, "odd": None}), prediction(reply("good"), reply("good"), reply("odd"), "x"))
    assert found.report.metrics["judge"] == 1.0
    assert (found.report.unread, found.report.unjudged) == (1, 1)


def test_without_samples_the_most_likely_answers_stand_for_them() -> None:
    found = scored(Told({"good": 1.0}), prediction(reply("good")))
    assert found.report.metrics["judge"] == 1.0


def test_equal_answers_of_a_row_are_judged_once() -> None:
    judge = Told({"good": 1.0})
    found = scored(judge, prediction(reply("good"), reply("good"), reply("good", "returns")))
    assert judge.asked == ["good"]
    assert found.lines[0].scores == (1.0, 1.0)
