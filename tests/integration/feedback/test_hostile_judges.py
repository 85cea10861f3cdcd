"""What a job tries with a judge of its own: to have our secrets sent there, to reach our network, to fill our memory and our faults."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.reasons import Reason
from schemas.recipes.feedback import JudgeSettings, Rubric
from services.chassis.executor.child import UserFault
from services.chassis.storage.sources.allowed import AllowedSources
from services.feedback.judges.answer_cache import AnswerCache
from services.feedback.judges.judge import TextToJudge
from services.feedback.judges.openai import OpenAIJudge
from tests.allowed import IN_TESTS
from tests.feedback import quiet
from tests.integration.feedback.endpoint import Chat, Reply, says

ECHO = "what only we can reach has said this"
UNLISTED = IN_TESTS.model_copy(update={"hosts": (), "public_hosts": True})


def made(place: Path, allowed: AllowedSources = IN_TESTS, **settings: Any) -> OpenAIJudge:
    given = JudgeSettings.model_validate({"kind": "openai", "model": "judge", "timeout_seconds": 5.0, **settings})
    return OpenAIJudge(given, Rubric(), allowed, lambda: AnswerCache(place, place / "own"))


def fault(place: Path, allowed: AllowedSources = IN_TESTS, **settings: Any) -> Reason:
    """Why such a judge is refused."""
    with pytest.raises(UserFault) as raised:
        made(place, allowed, **settings).score([TextToJudge((), {}, "Thank you.")], quiet)
    (reason,) = raised.value.reasons
    assert ECHO not in str(reason)
    return reason


@pytest.mark.parametrize(
    "variable",
    ["NEUROWEAVER_DATABASE_URL", "NEUROWEAVER_KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH", "NOT_SET_AT_ALL",
     "neuroweaver_judge_key_ours", "NEUROWEAVER_JUDGE_KEY_", "NEUROWEAVER_JUDGE_KEY_OURS\n", " NEUROWEAVER_JUDGE_KEY_OURS", ""],
)  # fmt: skip
def test_no_variable_but_a_judges_key_is_looked_at(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("NEUROWEAVER_DATABASE_URL", "NEUROWEAVER_KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, ECHO)
    found = fault(tmp_path, endpoint=chat.url, api_key_env=variable)
    assert found.field == "feedback.judge.api_key_env"
    assert "only variables that begin with NEUROWEAVER_JUDGE_KEY_" in found.message
    assert chat.asked == []


def test_a_judges_key_is_sent_to_no_host_that_a_job_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROWEAVER_JUDGE_KEY_OURS", ECHO)
    found = fault(tmp_path, UNLISTED, endpoint="https://attacker.example/v1", api_key_env="NEUROWEAVER_JUDGE_KEY_OURS")
    assert found.field == "feedback.judge.api_key_env"
    assert "add attacker.example:443 to NEUROWEAVER_SOURCES_HOSTS" in found.remedy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_host_that_is_not_listed_is_never_asked(chat: Chat, tmp_path: Path, host: str) -> None:
    found = fault(tmp_path, UNLISTED, endpoint=chat.url.replace("127.0.0.1", host))
    assert found.field == "feedback.judge.endpoint"
    assert "its address is not public" in found.message
    assert chat.asked == []


@pytest.mark.parametrize("endpoint", ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/v1", "https://10.0.0.1/v1"])
def test_addresses_of_clouds_and_networks_are_never_asked(tmp_path: Path, endpoint: str) -> None:
    assert "its address is not public" in fault(tmp_path, UNLISTED, endpoint=endpoint).message


@pytest.mark.parametrize(
    "endpoint",
    ["file:///etc/passwd", "ftp://127.0.0.1/v1", "gopher://127.0.0.1/v1", "https://user:pw@host/v1", "127.0.0.1/v1"],
)
def test_what_is_no_plain_url_is_refused(tmp_path: Path, endpoint: str) -> None:
    assert fault(tmp_path, endpoint=endpoint).field == "feedback.judge.endpoint"


def test_a_redirect_is_not_followed_and_takes_no_key_along(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROWEAVER_JUDGE_KEY_OURS", ECHO)
    chat.answer = lambda _: Reply({}, 307, {"Location": chat.url.replace("127.0.0.1", "localhost") + "/" + ECHO})
    found = fault(tmp_path, endpoint=chat.url, api_key_env="NEUROWEAVER_JUDGE_KEY_OURS")
    assert "HTTP 307 Temporary Redirect (redirects are not followed)" in found.message
    assert len(chat.asked) == 1


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 422])
def test_nothing_of_an_answer_is_repeated(chat: Chat, tmp_path: Path, status: int) -> None:
    chat.answer = lambda _: Reply({"error": ECHO}, status)
    fault(tmp_path, endpoint=chat.url)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(b"x" * 5_000_000), "longer than 4194304 bytes"),
        (
            Reply(gzip.compress(b"x" * 50_000_000), 200, {"Content-Encoding": "gzip"}),
            "compressed, although the request does not allow it",
        ),
        (says("4", trickle_seconds=0.05), "ReadTimeout"),
    ],
)
def test_an_answer_is_bounded_in_size_and_time(chat: Chat, tmp_path: Path, reply: Reply, words: str) -> None:
    chat.answer = lambda _: reply
    assert words in fault(tmp_path, endpoint=chat.url, timeout_seconds=0.3 if reply.trickle_seconds else 20.0).message


@contextmanager
def banner(text: str) -> Iterator[int]:
    """A server that greets three times, in no protocol of ours; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100_000)
                    connection.sendall(text.encode())
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(100_000):  # closed with something unread, it would take the greeting back
                        pass

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[1]


def test_a_server_that_speaks_no_http_is_not_quoted(tmp_path: Path) -> None:
    with banner(f"SSH-2.0-{ECHO}\r\n") as port:
        assert "ProtocolError" in fault(tmp_path, endpoint=f"http://127.0.0.1:{port}/v1").message


def test_nothing_that_the_sdk_finds_in_the_environment_is_sent(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", ECHO)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {ECHO}\nX-Token: {ECHO}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    chat.answer = lambda _: says("4", headers={"Set-Cookie": "who=you"})
    judge = made(tmp_path, endpoint=chat.url)
    assert judge.score([TextToJudge((), {}, "Thank you."), TextToJudge((), {}, "No.")], quiet) == [4.0, 4.0]
    known = {"Host", "Content-Type", "Content-Length", "Accept", "Accept-Encoding", "User-Agent"}
    assert [set(map(str.title, headers)) for headers in chat.headers] == [known, known]
    assert ECHO not in str(chat.headers)


def test_a_judge_does_not_decide_how_often_it_is_asked(chat: Chat, tmp_path: Path) -> None:
    chat.answer = lambda _: Reply({}, 404, {"x-should-retry": "true"})
    fault(tmp_path, endpoint=chat.url)
    assert len(chat.asked) == 1
