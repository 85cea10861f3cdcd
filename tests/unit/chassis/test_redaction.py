"""No secret is said, in whichever form it is written and by whichever way it leaves."""

import io
import json
import logging
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.process.health import Health
from services.chassis.process.logging import configure, get_logger
from services.chassis.process.redaction import HIDDEN, Redacting, forms_of, hide, redacted, secrets_in, secrets_of
from services.chassis.process.transient import described
from services.chassis.serving.problem import Problem

PASSWORD = 'p@ss w:rd/1%?"ö'
hide([PASSWORD, "a-key-of-s3", "short"])
_WORDS = st.text("abcdefghij-_.:/?=&", max_size=30)


@given(_WORDS, _WORDS, st.sampled_from(sorted(forms_of(PASSWORD))))
def test_a_known_secret_is_in_no_text_in_no_form(before: str, after: str, form: str) -> None:
    said = redacted(f"{before} {form} {after}")
    assert form not in said
    assert HIDDEN in said


def test_the_common_forms_of_a_secret_are_known() -> None:
    wanted = {PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), quote_plus(PASSWORD), json.dumps(PASSWORD)[1:-1]}
    assert wanted <= forms_of(PASSWORD)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at postgresql://me:secret@db:5432/x now", "at postgresql://me:***@db:5432/x now"),
        ("postgresql+asyncpg://me:se%40cret@a,b/x", "postgresql+asyncpg://me:***@a,b/x"),
        ('"https://me:secret@proxy:3128"', '"https://me:***@proxy:3128"'),
        ("https://ghp_token@host/x", "https://***@host/x"),
        (
            "postgresql://db/x?user=me&password=secret&sslmode=require",
            "postgresql://db/x?user=me&password=***&sslmode=require",
        ),
        ("postgresql://db/x?sslpassword=secret", "postgresql://db/x?sslpassword=***"),
        ("https://b.s3.example/x?X-Amz-Signature=abc&x=1", "https://b.s3.example/x?X-Amz-Signature=***&x=1"),
        ("Authorization: Bearer sk-12345678", "Authorization: Bearer ***"),
    ],
)
def test_a_url_loses_its_password_although_nobody_knows_it(text: str, said: str) -> None:
    assert redacted(text) == said


@pytest.mark.parametrize(
    "text",
    ["postgresql://postgres@127.0.0.1:5432/postgres", "http://127.0.0.1:8001/api/v1/models/a@b", "model@v1 at s3://bucket/x", "a=b", "",
     "short", "npm://x:1/y@z", "user@host"],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_password_that_is_a_word_does_not_take_other_words_with_it() -> None:
    hide(["postgres", "swordfish"])
    text = "postgresql://postgres@db/postgres and swordfishes"
    assert redacted(text) == text
    assert redacted("it is swordfish.") == f"it is {HIDDEN}."
    assert redacted("postgresql://me:postgres@db/x") == "postgresql://me:***@db/x"


def test_the_secrets_of_a_process_are_those_of_its_environment() -> None:
    environment = {
        "NEUROWEAVER_TRAINER_DATABASE_URL": "postgresql://me:o%40ne@db/x?sslpassword=two",
        "NEUROWEAVER_KAFKA_SASL_PASSWORD": "three",
        "NEUROWEAVER_JUDGE_KEY_OURS": "four",
        "AWS_SECRET_ACCESS_KEY": "five",
        "HF_TOKEN": "six",
        "PGPASSWORD": "seven",
        "PATH": "/bin",
    }
    assert set(secrets_of(environment)) == {"o%40ne", "o@ne", "two", "three", "four", "five", "six", "seven"}
    assert list(secrets_in("no url")) == []


def test_logs_of_ours_and_of_libraries_with_their_stacks_hold_none() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure("INFO", stream)
        get_logger("ours").warning(
            "cannot connect", url=f"postgresql://me:{quote(PASSWORD, safe='')}@db/x", password=PASSWORD
        )
        logging.getLogger("a.library").error("key %s", "a-key-of-s3")
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            logging.getLogger("a.library").exception("failed")
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before
    said = stream.getvalue()
    assert len(said.splitlines()) == 3
    assert not [form for form in (*forms_of(PASSWORD), "a-key-of-s3") if form in said]
    for line in said.splitlines():
        json.loads(line)


def test_errors_conditions_and_answers_hold_none() -> None:
    error = ConnectionError(f"no way to postgresql://me:{PASSWORD}@db with a-key-of-s3")
    health = Health("trainer", ("database",))
    health.report("database", False, str(error))
    body = bytes(Problem(503, "Unavailable", str(error)).response("/x").body).decode()
    for said in (described(error), str(health.missing), body):
        assert not [form for form in (*forms_of(PASSWORD), "a-key-of-s3") if form in said]


def test_what_is_printed_holds_none() -> None:
    stream = io.StringIO()
    printed = Redacting(stream)
    print(f"it is {PASSWORD}", file=printed)
    printed.writelines([quote(PASSWORD), "\n"])
    assert stream.getvalue() == f"it is {HIDDEN}\n{HIDDEN}\n"
    assert printed.isatty() is False  # type: ignore[operator]
