"""Answers that were paid for are not asked for again."""

from pathlib import Path

from schemas.lines import Message
from services.feedback.judges.answer_cache import Answer, AnswerCache

QUESTION = (Message(role="user", content="A or B?"),)
ANSWER = Answer(text="A", positions=({"A": -0.1, "B": -2.0},))


def test_a_later_run_recalls_what_an_earlier_one_was_told(tmp_path: Path) -> None:
    first = AnswerCache(tmp_path, tmp_path / "1" / "lease-1")
    first.keep("judge", QUESTION, ANSWER)
    later = AnswerCache(tmp_path, tmp_path / "2" / "lease-2")
    assert later.recall("judge", QUESTION) == ANSWER
    assert list(later.recall("judge", QUESTION).positions[0]) == ["A", "B"]  # type: ignore[union-attr]


def test_another_model_or_question_is_another_answer(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, tmp_path / "1" / "lease-1")
    cache.keep("judge", QUESTION, ANSWER)
    assert cache.recall("other", QUESTION) is None
    assert cache.recall("judge", (Message(role="user", content="B or A?"),)) is None


def test_a_line_torn_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, tmp_path / "1" / "lease-1")
    cache.keep("judge", QUESTION, ANSWER)
    cache.close()
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(file.read_bytes() + b'{"key": "abc", "answer": {"te\xff')
    assert AnswerCache(tmp_path, tmp_path / "1" / "lease-2").recall("judge", QUESTION) == ANSWER
