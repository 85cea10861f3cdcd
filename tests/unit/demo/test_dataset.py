"""A measure on held-out rows means something only if nothing of them was learnt; the data set proves that here."""

import json
import re
from collections import Counter
from itertools import combinations

import pytest

from schemas.rules import Rule, failures
from services.demo.constitution import RULES
from services.demo.dataset import DATA, Example, lines, splits
from services.demo.parts.held_out import DEV, TEST
from services.demo.parts.replies import ACTIONS, OPENINGS, REPLIES
from services.demo.parts.split import PRIORITIES, QUALITIES, QUEUES, Parts
from services.demo.parts.training import TRAIN

SPLITS = splits()
PARTS = {"train": TRAIN, "dev": DEV, "test": TEST}
PAIRS = list(combinations(PARTS, 2))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _normal(text: str, item: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(item)}(?!\w)", "{item}", text)


def _grams(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def _texts(parts: Parts) -> set[str]:
    return {text.lower() for table in (parts.wordings, parts.phrases) for texts in table.values() for text in texts}


def _reply(row: Example) -> str:
    return str(json.loads(row["answer"])["reply"])


@pytest.mark.parametrize("name", SPLITS)
def test_the_committed_file_is_what_the_script_writes(name: str) -> None:
    assert (DATA / f"{name}.jsonl").read_text(encoding="utf-8") == lines(SPLITS[name])


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_wording_phrase_or_item_is_in_two_splits(one: str, other: str) -> None:
    assert not _texts(PARTS[one]) & _texts(PARTS[other])
    words_of = [{word for item in PARTS[name].items for word in item.split()} for name in (one, other)]
    assert not words_of[0] & words_of[1]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_request_and_no_five_words_in_a_row_are_in_two_splits_whatever_the_item(one: str, other: str) -> None:
    normal = [{_normal(row["request"], row["item"]) for row in SPLITS[name]} for name in (one, other)]
    assert not normal[0] & normal[1]
    grams = [set().union(*map(_grams, texts)) for texts in normal]
    assert grams[0]
    assert grams[1]
    assert not grams[0] & grams[1]


@pytest.mark.parametrize("name", SPLITS)
def test_every_row_answers_its_own_request(name: str) -> None:
    for row in SPLITS[name]:
        assert row["item"] in row["request"]
        answer = json.loads(row["answer"])
        assert list(answer) == ["queue", "priority", "reply"]
        assert (answer["queue"], answer["priority"]) == (row["queue"], row["priority"])
        assert "{" not in row["request"] + answer["reply"]
        named = [item for parts in PARTS.values() for item in parts.items if re.search(rf"\b{item}\b", answer["reply"])]
        assert set(named) <= {row["item"]}, "a reply speaks of another request's item"


@pytest.mark.parametrize(("name", "rows"), [("train", 1200), ("dev", 90), ("test", 90)])
def test_queues_and_priorities_are_balanced_and_no_request_occurs_twice(name: str, rows: int) -> None:
    split = SPLITS[name]
    assert len(split) == len({row["request"] for row in split}) == rows
    cells = Counter((row["queue"], row["priority"]) for row in split)
    assert set(cells) == {(queue, priority) for queue in QUEUES for priority in PRIORITIES}
    assert len(set(cells.values())) == 1


def test_train_replies_are_of_mixed_quality_and_test_replies_are_good() -> None:
    shares = {quality: count / 1200 for quality, count in Counter(row["quality"] for row in SPLITS["train"]).items()}
    assert shares == pytest.approx({"good": 0.4, "curt": 0.2, "vague": 0.2, "over-promising": 0.2})
    assert {row["quality"] for row in SPLITS["test"]} == {"good"}


def test_train_has_enough_parts_to_learn_from() -> None:
    assert min(len(set(texts)) for texts in TRAIN.wordings.values()) >= 16
    assert min(len(set(texts)) for texts in TRAIN.phrases.values()) >= 12
    assert len(set(TRAIN.items)) >= 18
    used = {_normal(row["request"], row["item"]) for row in SPLITS["train"]}
    for text in _texts(TRAIN):
        assert any(text in request.lower() for request in used), text


def test_the_rules_pass_every_good_reply_and_no_other() -> None:
    verdicts = {quality: Counter[bool]() for quality in QUALITIES}
    for split in SPLITS.values():
        for row in split:
            verdicts[row["quality"]][not failures(RULES, _reply(row), {"item": row["item"]})] += 1
    assert verdicts["good"][False] == 0
    assert all(verdicts[quality][True] == 0 for quality in QUALITIES[1:])
    assert all(sum(counts.values()) > 200 for counts in verdicts.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_matters(rule: Rule) -> None:
    """Without it, some text that is not good would pass."""
    bad = {
        "kind": "We will check the payment for your radio and email you.",
        "names the item": "Thank you. We will check the payment and email you the result.",
        "promises nothing absolute": "Thank you. Your radio will be perfect in one minute, guaranteed, we promise!",
        "is definite": "Thank you. Somebody might look at your radio at some point.",
        "has 8 words or more": "Thanks, the radio.",
        "has 40 words or fewer": "Thank you. " + "We will check the radio. " * 9,
    }
    broken = {name: failures(RULES, text, {"item": "radio"}) for name, text in bad.items()}
    assert broken[rule.name] == [rule.name]


def test_all_replies_are_short_well_written_sentences() -> None:
    replies = [f"{opening} {action}" for opening in OPENINGS for texts in ACTIONS.values() for action in texts]
    replies += [text for texts in REPLIES.values() for text in texts]
    assert len(replies) == len(set(replies))
    for reply in replies:
        assert reply[0].isupper()
        assert reply[-1] in ".!"
        assert len(reply) <= 120
