"""A browser without the internet finds its way: `/` says where what is, `/docs` loads nothing from elsewhere."""

import re
from importlib.metadata import distribution

from tests.unit.web.asking import ask


async def test_the_root_says_what_this_is_and_where_what_is() -> None:
    index = (await ask("GET", "/", below="")).json()
    assert index["name"] == "NeuroWeaver"
    assert index["services"] == ["orchestrator", "trainer", "feedback", "registry"]
    for path in index["links"].values():
        assert (await ask("GET", path, below="")).status_code in (200, 503), path


async def test_the_page_of_the_routes_loads_nothing_from_elsewhere() -> None:
    page = (await ask("GET", "/docs", below="")).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for path in loaded:
        answer = await ask("GET", path, below="")
        assert answer.status_code == 200, path
        assert len(answer.content) > 500
    assert re.findall(r"https?://", page) == []
    assert '"validatorUrl": null' in page


async def test_the_packages_of_the_page_come_with_their_licence() -> None:
    assert [file for file in distribution("fastapi-swagger").files or () if file.name == "LICENSE"]


async def test_what_is_not_there_is_a_problem_below_the_page_too() -> None:
    for path in ("/docs/assets/nothing.js", "/docs/assets/%2e%2e/%2e%2e/__init__.py", "/docs/assets/..%2fmain.py"):
        answer = await ask("GET", path, below="")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
