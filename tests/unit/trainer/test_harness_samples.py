"""A report shows the first rows of a task as the harness keeps them: written answers, and choices by their log-probability."""

from typing import Any

from services.trainer.harness.samples import shown_samples


def row(
    number: int, *arguments: list[Any], said: list[Any], read: list[Any] | None = None, target: object = "5"
) -> dict[str, Any]:
    return {"doc_id": number, "arguments": arguments, "resps": said, "filtered_resps": read or said, "target": target}


def choices(*pairs: tuple[str, str], scores: list[float], target: object) -> dict[str, Any]:
    return row(0, *map(list, pairs), said=[[score, False] for score in scores], target=target)


def test_the_first_rows_of_a_task_are_shown_with_what_it_read_of_them() -> None:
    rows = [row(number, ["2 + 3?", {"until": []}], said=[["it is 5", "6"]], read=["5"]) for number in range(9)]
    found = shown_samples("sums", rows)
    assert [sample.row for sample in found] == [0, 1, 2]
    assert (found[0].prompt, found[0].expected, found[0].answers, found[0].read) == ("2 + 3?", "5", ("it is 5", "6"), "5")
    (whole,) = shown_samples("sums", [row(0, ["2 + 3?", {}], said=[["5"]], read=["5"])])
    assert whole.read is None


def test_choices_are_shown_with_their_scores_and_the_right_one() -> None:
    (found,) = shown_samples("c", [choices(("sky", " red"), ("sky", " blue"), scores=[-4.0, float("-inf")], target=1)])
    assert (found.prompt, found.expected, found.answers, found.scores) == ("sky", " blue", (" red", " blue"), (-4.0, None))


def test_choices_that_are_prompts_are_shown_and_weights_without_a_prompt_are_not() -> None:
    (found,) = shown_samples("w", [choices(("Ann", " won."), ("Bob", " won."), scores=[-1.0, -2.0], target=0)])
    assert (found.answers, found.expected) == (("Ann", "Bob"), "Ann")
    weighed = choices(
        ("sky", " red"), ("sky", " blue"), ("", " red"), ("", " blue"), scores=[-1, -2, -3, -4], target=" red"
    )
    (found,) = shown_samples("m", [weighed])
    assert (found.answers, found.scores, found.expected) == ((" red", " blue"), (-1.0, -2.0), " red")


def test_a_task_that_scores_whole_texts_has_no_answers_to_show() -> None:
    assert shown_samples("p", [row(0, ["a text"], said=[-12.5])]) == []
