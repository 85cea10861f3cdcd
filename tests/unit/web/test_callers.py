"""No web page writes through an operator's browser: not by a form, not from another origin, not by a name that leads here."""

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers

from services.chassis.serving.web.callers import AllowedCallers, refusal
from services.chassis.serving.web.settings import HttpSettings
from tests.unit.web.asking import JSON, all_services, ask, problem

NAMED = AllowedCallers(hosts=frozenset({"models.example.org"}), origins=frozenset({"https://ops.example.org"}))
WRITE = {"host": "127.0.0.1:8001", "content-type": "application/json", "content-length": "2"}


def status(method: str, headers: dict[str, str], allowed: AllowedCallers = NAMED) -> int | None:
    found = refusal(method, Headers(headers), "10.1.2.3", allowed)
    return found.status if found else None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8001", "127.8.8.8", "localhost", "LOCALHOST:80", "localhost.", "a.localhost", "[::1]", "[::1]:8001",
     "models.example.org", "Models.Example.org:443", "10.1.2.3:8001"],
)  # fmt: skip
def test_a_service_answers_to_loopback_to_its_own_address_and_to_names_it_was_given(host: str) -> None:
    assert status("GET", {"host": host}) is None
    assert status("POST", {**WRITE, "host": host}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "10.1.2.4", "0.0.0.0",
     "2130706433", "[::2]", "xmodels.example.org", "a.models.example.org", "169.254.169.254"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_a_name_that_merely_leads_here_is_refused_for_reads_too(host: str, method: str) -> None:
    assert status(method, {**WRITE, "host": host}) == 421


@pytest.mark.parametrize(
    "host", ["", "a b", "user@127.0.0.1", "127.0.0.1:port", "http://127.0.0.1", "[::1", "127.0.0.1:8001:1"]
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert status("GET", {"host": host}) == 400
    assert status("GET", {}) == 400


@pytest.mark.parametrize(
    "foreign",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:3000"}, {"origin": "http://localhost:8001"},
     {"origin": ""}, {"origin": "http://127.0.0.1:8001.evil.example"}, {"sec-fetch-site": "cross-site"},
     {"sec-fetch-site": "same-site"}, {"origin": "http://127.0.0.1:8001", "sec-fetch-site": "cross-site"}],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "INVENTED"])
def test_a_page_of_another_origin_changes_nothing(foreign: dict[str, str], method: str) -> None:
    assert status(method, {**WRITE, **foreign}) == 403


@pytest.mark.parametrize(
    "known",
    [{}, {"origin": "http://127.0.0.1:8001"}, {"origin": "https://127.0.0.1:8001", "sec-fetch-site": "same-origin"},
     {"sec-fetch-site": "none"}, {"origin": "https://OPS.example.org", "sec-fetch-site": "cross-site"}],
)  # fmt: skip
def test_programs_our_own_pages_and_origins_that_were_named_may_write(known: dict[str, str]) -> None:
    assert status("POST", {**WRITE, **known}) is None


@pytest.mark.parametrize(
    "form",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/plain; x=application/json",
     "application/jsonp", "application/xml", "application/json; charset=utf-16", "application/json; charset=latin1", ""],
)  # fmt: skip
def test_only_json_is_read_and_no_form_however_empty(form: str) -> None:
    assert status("POST", {**WRITE, "content-type": form}) == 415
    assert status("POST", {**WRITE, "content-type": form, "content-length": "0"}) == 415
    assert status("POST", {"host": "127.0.0.1", "content-length": "1"}) == 415
    assert status("POST", {"host": "127.0.0.1", "transfer-encoding": "chunked"}) == 415
    assert status("POST", {**WRITE, "content-encoding": "gzip"}) == 415


def test_json_with_a_charset_and_no_body_at_all_are_fine() -> None:
    assert status("POST", {**WRITE, "content-type": "Application/JSON; charset=UTF-8"}) is None
    assert status("POST", {"host": "127.0.0.1"}) is None
    assert status("POST", {"host": "127.0.0.1", "content-length": "0"}) is None


async def test_refusals_say_what_would_help() -> None:
    said = problem(await ask("POST", "/training/x/cancel", headers={"host": "evil.example"}), 421)
    assert "NEUROWEAVER_HTTP_HOSTS" in said["detail"]
    said = problem(await ask("POST", "/training/x/cancel", headers={"origin": "http://evil.example"}), 403)
    assert "NEUROWEAVER_HTTP_ORIGINS" in said["detail"]
    form: dict[str, Any] = {"content": b"reason=x", "headers": {"content-type": "application/x-www-form-urlencoded"}}
    said = problem(await ask("POST", "/projections/orchestrator/rebuild", **form), 415)
    assert "application/json" in said["detail"]


async def test_settings_name_who_else_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROWEAVER_HTTP_HOSTS", "Models.example.org, other.example.org")
    monkeypatch.setenv("NEUROWEAVER_HTTP_ORIGINS", "https://ops.example.org")
    settings = HttpSettings()
    app = all_services(http_hosts=settings.http_hosts, http_origins=settings.http_origins)
    headers = {"host": "models.example.org", "origin": "https://ops.example.org"}
    assert (await ask("POST", "/projections/orchestrator/cancel", headers=headers, app=app)).status_code == 409
    anybody = all_services(http_hosts=("*",))
    assert (await ask("GET", "/health", headers={"host": "evil.example"}, app=anybody)).status_code == 200


@pytest.mark.parametrize("given", ["https://a.example", "a b", "a.example:80", "*.example.org"])
def test_a_setting_that_is_no_host_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="separate several by commas"):
        HttpSettings(http_hosts=(given,))
    with pytest.raises(ValidationError, match="separate several by commas"):
        HttpSettings(http_origins=("ops.example.org",))


async def test_a_health_check_by_the_address_of_the_machine_is_answered() -> None:
    assert (await ask("GET", "/health", headers={"host": "127.0.0.1:8001", **JSON})).status_code == 200
