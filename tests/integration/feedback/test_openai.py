"""The judge behind an endpoint, against a real HTTP server that misbehaves in every way that endpoints do."""

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.reasons import Reason
from schemas.recipes.feedback import JudgeSettings, Rubric
from services.chassis.executor.child import Stopping, UserFault
from services.feedback.judges.answer_cache import AnswerCache
from services.feedback.judges.endpoint import JudgeAway
from services.feedback.judges.judge import Orders, TextToJudge
from services.feedback.judges.openai import OpenAIJudge
from tests.allowed import IN_TESTS
from tests.feedback import quiet
from tests.integration.feedback.endpoint import Chat, Reply, says

KIND, RUDE = TextToJudge((), {}, "Thank you."), TextToJudge((), {}, "No.")
BUSY = Reply({"error": "busy"}, 503)


@pytest.fixture
def judge(chat: Chat, tmp_path: Path) -> Callable[..., OpenAIJudge]:
    """Makes the judge as a run of the step would."""
    runs = iter(range(100))

    def make(**settings: Any) -> OpenAIJudge:
        given = {"kind": "openai", "model": "strong-judge", "endpoint": chat.url, "timeout_seconds": 5.0, **settings}
        own = tmp_path / "1" / f"lease-{next(runs)}"
        return OpenAIJudge(JudgeSettings.model_validate(given), Rubric(), IN_TESTS, lambda: AnswerCache(tmp_path, own))

    return make


Make = Callable[..., OpenAIJudge]


def shown(body: dict[str, Any], letter: str) -> str:
    """The text that a comparison shows as A or B."""
    question = str(body["messages"][-1]["content"])
    return question.partition(f"<text {letter}>\n")[2].partition(f"\n</text {letter}>")[0]


def prefers_the_kind_one(body: dict[str, Any]) -> Reply:
    return says("A" if shown(body, "A") == KIND.text else "B")


def in_turn(*replies: Reply) -> Callable[[dict[str, Any]], Reply]:
    """These replies, the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def many(count: int) -> list[tuple[TextToJudge, TextToJudge]]:
    return [(TextToJudge((), {}, f"Thank you {number}."), RUDE) for number in range(count)]


def reason(judge: OpenAIJudge, pairs: list[tuple[TextToJudge, TextToJudge]] | None = None) -> Reason:
    """Why the judge cannot work."""
    with pytest.raises(UserFault) as fault:
        judge.compare(pairs or [(KIND, RUDE)], quiet)
    (found,) = fault.value.reasons
    return found


def test_pairs_are_compared_in_both_orders(judge: Make, chat: Chat) -> None:
    chat.answer = prefers_the_kind_one
    assert judge().compare([(KIND, RUDE), (RUDE, KIND)], quiet) == [Orders(1.0, 1.0), Orders(-1.0, -1.0)]
    assert {body["path"] for body in chat.asked} == {"/v1/chat/completions"}
    assert {body["model"] for body in chat.asked} == {"strong-judge"}


def test_token_probabilities_are_read_where_the_endpoint_gives_them(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: says("A", {"A": math.log(0.75), "B": math.log(0.25)})
    (orders,) = judge().compare([(KIND, RUDE)], quiet)
    assert orders == Orders(pytest.approx(0.5), pytest.approx(-0.5))  # type: ignore[arg-type]
    assert chat.asked[0]["logprobs"] is True


def test_grades_are_the_mean_under_the_probabilities(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: says("4", {"4": math.log(0.5), "5": math.log(0.5)})
    assert judge().score([KIND], quiet) == [pytest.approx(4.5)]


def test_a_parameter_that_the_endpoint_does_not_know_is_left_out(judge: Make, chat: Chat) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return Reply({"error": {"message": "unknown parameter: logprobs"}}, 400) if "logprobs" in body else says("3")

    chat.answer = answer
    assert judge().score([KIND, RUDE, TextToJudge((), {}, "Perhaps.")], quiet) == [3.0, 3.0, 3.0]
    assert sum("logprobs" in body for body in chat.asked) == 1


def test_a_model_that_thinks_before_it_answers_gets_the_tokens_it_needs(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: says("" if "max_tokens" in body else "5")
    assert judge().score([KIND], quiet) == [5.0]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_fault_is_tried_again(judge: Make, chat: Chat, status: int) -> None:
    chat.answer = in_turn(says("4"), Reply({}, status), Reply({}, status), says("2"))
    assert judge().score([KIND, RUDE], quiet) == [2.0, 4.0]
    assert len(chat.asked) == 4


def test_after_two_retries_there_is_no_label_and_the_others_go_on(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: BUSY if "Perhaps" in str(body) else says("4")
    assert judge().score([KIND, TextToJudge((), {}, "Perhaps, perhaps."), RUDE], quiet) == [4.0, None, 4.0]
    assert sum("Perhaps" in str(body) for body in chat.asked) == 3


def test_retry_after_in_seconds_is_honoured(judge: Make, chat: Chat) -> None:
    chat.answer = in_turn(Reply({}, 429, {"Retry-After": "1"}), says("4"))
    began = time.monotonic()
    assert judge().score([KIND], quiet) == [4.0]
    assert time.monotonic() - began >= 1.0


def test_retry_after_as_a_date_is_honoured(judge: Make, chat: Chat) -> None:
    asked: list[float] = []

    def answer(_: dict[str, Any]) -> Reply:
        asked.append(time.monotonic())
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        return Reply({}, 503, {"Retry-After": until}) if len(asked) == 1 else says("4")

    chat.answer = answer
    assert judge().score([KIND], quiet) == [4.0]
    assert asked[1] - asked[0] >= 1.0, "dates have whole seconds, and the answer takes its time to arrive"


def test_a_wait_that_is_longer_than_anybody_would_wait_is_no_label(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: Reply({}, 429, {"Retry-After": "3600"}) if "Thank" in str(body) else says("4")
    assert judge().score([KIND, RUDE], quiet) == [None, 4.0]


def test_an_endpoint_that_fails_for_ever_stops_the_step_and_may_be_tried_again_later(judge: Make, chat: Chat) -> None:
    chat.answer = in_turn(*[says("A")] * 20, BUSY)
    with pytest.raises(JudgeAway, match="HTTP 503 Service Unavailable"):
        judge().compare(many(200), quiet)
    assert len(chat.asked) < 20 + 3 * 20


def test_an_endpoint_that_is_out_of_order_from_the_start_may_be_tried_again_later(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: BUSY
    with pytest.raises(JudgeAway, match="503"):
        judge().compare(many(200), quiet)
    assert len(chat.asked) == 3


def test_an_unreachable_endpoint_is_a_fault_of_the_request(judge: Make) -> None:
    found = reason(judge(endpoint="http://127.0.0.1:9/v1"))
    assert found.field == "feedback.judge.endpoint"
    assert found.value == "'http://127.0.0.1:9/v1'"
    assert "cannot be reached" in found.message
    assert found.remedy


@pytest.mark.parametrize("endpoint", ["localhost:9/v1", "ftp://127.0.0.1/v1", "http://[::1/v1"])
def test_what_is_no_http_url_is_a_fault_of_the_request(judge: Make, endpoint: str) -> None:
    with pytest.raises(UserFault) as fault:
        judge(endpoint=endpoint)
    (found,) = fault.value.reasons
    assert found.field == "feedback.judge.endpoint"


def test_an_endpoint_that_is_too_slow_from_the_start_is_a_fault_of_the_request(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: says("A", seconds=3.0)
    found = reason(judge(timeout_seconds=0.5))
    assert found.field == "feedback.judge.endpoint"
    assert "ReadTimeout" in found.message
    assert len(chat.asked) <= 3


def test_a_slow_answer_is_no_label(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: says("4", seconds=2.0 if "Perhaps" in str(body) else 0.0)
    assert judge(timeout_seconds=1.5).score([KIND, TextToJudge((), {}, "Perhaps, perhaps.")], quiet) == [4.0, None]


def test_garbage_is_no_label(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: says("I like both." if "Perhaps" in str(body) else "4")
    assert judge().score([KIND, TextToJudge((), {}, "Perhaps, perhaps."), RUDE], quiet) == [4.0, None, 4.0]


def test_a_body_that_is_no_completion_is_no_label(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: Reply(b"<html>") if "Perhaps" in str(body) else says("4")
    assert judge().score([KIND, TextToJudge((), {}, "Perhaps, perhaps.")], quiet) == [4.0, None]


def test_garbage_for_ever_is_a_fault_of_the_request_that_does_not_repeat_it(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: says("I like both.")
    found = reason(judge(), many(100))
    assert found.field == "feedback.judge.model"
    assert "answers are not A or B; the last one has 12 characters" in found.message
    assert len(chat.asked) < 40


def test_a_web_page_instead_of_an_api_is_a_fault_of_the_request(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: Reply(b"<html>Welcome</html>")
    found = reason(judge())
    assert found.field == "feedback.judge.endpoint"
    assert "the answer (20 bytes) is not a chat completion" in found.message


def test_an_unknown_path_or_model_is_a_fault_of_the_request(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: Reply({"error": {"message": "model strong-judge not found"}}, 404)
    found = reason(judge())
    assert found.field == "feedback.judge.endpoint"
    assert "HTTP 404 Not Found" in found.message
    assert "strong-judge" not in found.message
    assert len(chat.asked) == 1


def test_a_request_that_no_form_makes_acceptable_is_a_fault_of_the_request(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: Reply({"error": {"message": "this model does not chat"}}, 400)
    found = reason(judge())
    assert found.field == "feedback.judge.model"
    assert "HTTP 400 Bad Request" in found.message
    assert "does not chat" not in found.message


def test_a_text_that_is_too_long_for_the_model_is_no_label(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: Reply({"error": "context length"}, 400) if "long" in str(body) else says("4")
    assert judge().score([TextToJudge((), {}, "long " * 50), KIND], quiet) == [None, 4.0]
    assert sum("long" in str(body) for body in chat.asked) == 1


REFUSED = Reply({"error": "content filter"}, 400)


def test_texts_that_the_endpoint_refuses_have_no_label_and_the_others_go_on(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: REFUSED if "bad" in str(body) else says("4")
    texts = [TextToJudge((), {}, text) for text in ("bad", "bad.", "A longer text.", "And the longest, which is bad.")]
    assert judge().score(texts, quiet) == [None, None, 4.0, None]


def test_an_endpoint_that_has_worked_is_not_at_fault_if_it_refuses_all_of_a_later_batch(judge: Make, chat: Chat) -> None:
    chat.answer = lambda body: REFUSED if "bad" in str(body) or "logprobs" in body else says("4")
    working = judge()
    assert working.score([KIND], quiet) == [4.0]
    chat.asked.clear()
    assert working.score([TextToJudge((), {}, "bad")], quiet) == [None]
    assert working.score([RUDE], quiet) == [4.0]
    assert "logprobs" not in chat.asked[-1], "the form that it accepted is kept"


def test_an_endpoint_that_accepts_other_parameters_now_is_asked_with_them(judge: Make, chat: Chat) -> None:
    working = judge()
    chat.answer = lambda body: says("4")
    assert working.score([KIND], quiet) == [4.0]
    chat.answer = lambda body: REFUSED if "logprobs" in body else says("4")
    assert working.score([RUDE, TextToJudge((), {}, "Perhaps.")], quiet) == [4.0, 4.0]


def test_an_empty_answer_to_one_text_costs_the_others_no_parameters(judge: Make, chat: Chat) -> None:
    working = judge()
    chat.answer = lambda body: says("" if "bad" in str(body) else "4")
    assert working.score([KIND], quiet) == [4.0]
    assert working.score([TextToJudge((), {}, "bad"), RUDE], quiet) == [None, 4.0]
    assert "logprobs" in chat.asked[-1]


def test_the_key_comes_from_the_named_variable_and_is_sent_but_never_told(
    judge: Make, chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NEUROWEAVER_JUDGE_KEY_OURS", "secret-key-1234")
    chat.answer = lambda _: Reply({"error": {"message": "invalid key: secret-key-1234"}}, 401)
    found = reason(judge(api_key_env="NEUROWEAVER_JUDGE_KEY_OURS"))
    assert chat.keys == ["Bearer secret-key-1234"]
    assert found.field == "feedback.judge.api_key_env"
    assert found.value == "'NEUROWEAVER_JUDGE_KEY_OURS'"
    assert "secret-key-1234" not in str(found) + caplog.text


@pytest.mark.parametrize("value", [None, " ", "two\nlines"])
def test_a_missing_key_is_a_fault_of_the_request_before_anything_is_asked(
    judge: Make, chat: Chat, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("NEUROWEAVER_JUDGE_KEY_OURS", value)
    with pytest.raises(UserFault) as fault:
        judge(api_key_env="NEUROWEAVER_JUDGE_KEY_OURS")
    (found,) = fault.value.reasons
    assert (found.field, found.value) == ("feedback.judge.api_key_env", "'NEUROWEAVER_JUDGE_KEY_OURS'")
    assert chat.asked == []


def test_requests_run_at_once_but_not_too_many(judge: Make, chat: Chat) -> None:
    chat.answer = lambda _: says("A", seconds=0.1)
    judge().compare(many(40), quiet)
    assert 1 < chat.most_at_once <= 8


def test_a_later_run_asks_only_what_no_earlier_run_was_told(judge: Make, chat: Chat) -> None:
    chat.answer = in_turn(*[says("A")] * 30, BUSY)
    with pytest.raises(JudgeAway):
        judge().compare(many(100), quiet)
    asked = len(chat.asked)
    chat.answer = lambda _: says("A")
    assert len(judge().compare(many(100), quiet)) == 100
    assert len(chat.asked) - asked == 200 - 30


def test_it_stops_when_it_is_told_to_although_an_answer_is_still_to_come(judge: Make, chat: Chat) -> None:
    chat.answer = in_turn(says("A"), says("A", seconds=20))

    def progress() -> Iterator[None]:
        yield
        raise Stopping

    steps = progress()
    began = time.monotonic()
    with pytest.raises(Stopping):
        judge().compare([(KIND, RUDE)], lambda *_: next(steps))
    assert time.monotonic() - began < 20, "it waited for the answer"
