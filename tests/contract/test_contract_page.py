"""docs/contract.md as its reader meets it: complete, links that lead somewhere, tables that hold together, examples that work."""

import json
import re

import pytest

from schemas.envelope import Event, decode, encode
from schemas.generate.__main__ import ROOT
from schemas.generate.examples import EXAMPLES
from schemas.generate.files import PAGE
from schemas.generate.headers import HEADERS
from schemas.generate.json_schema import wire_model
from schemas.steps import EXECUTOR_OF
from schemas.topics import CATALOGUE, EVENT_TYPES


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / PAGE).read_text()


def section(page: str, title: str) -> str:
    """Text under the heading `title` up to the next heading."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {title}"
    return found[1]


def anchors(page: str) -> list[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_link_within_the_page_has_its_one_heading(page: str) -> None:
    there = anchors(page)
    assert len(set(there)) == len(there)
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= set(there)


def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    for target in re.findall(r"\]\((?!#|https:)([^)]*)\)", page):
        assert (ROOT / PAGE).parent.joinpath(target).exists(), target


def test_every_row_has_as_many_cells_as_its_table(page: str) -> None:
    widths: list[int] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert widths[-1] == widths[0], line


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_field_of_every_event_is_in_its_table(page: str, name: str) -> None:
    fields = re.findall(r"^\| `(\w+)` \|", section(page, name), re.MULTILINE)
    assert fields == list(wire_model(EVENT_TYPES[name]).model_fields)


def test_all_topics_headers_and_kinds_of_steps_are_there(page: str) -> None:
    for topic in CATALOGUE:
        assert f"| `{topic.name}` | {topic.key} |" in section(page, "Topics")
    for header in HEADERS:
        assert f"| `{header.name}` |" in section(page, "Records")
    for kind in EXECUTOR_OF:
        assert f"| `{kind}` |" in section(page, "Kinds of steps")


def test_no_meaning_is_left_empty(page: str) -> None:
    tables = page[page.index("## Events") :]
    rows = [line for line in tables.splitlines() if line.startswith("| `") and line.count("|") >= 5]
    described = [row for row in rows if not re.match(rf"\| `({'|'.join(EXECUTOR_OF)})` \| \w+ \|", row)]
    assert [row for row in described if row.rstrip(" |").endswith("|")] == []


@pytest.mark.parametrize("mode", ["Binary mode", "Structured mode"])
def test_an_example_that_is_typed_in_from_the_page_is_the_event(page: str, mode: str) -> None:
    (block,) = re.findall(r"```\n(.*?)\n```", section(page, mode), re.DOTALL)
    head, _, body = block.partition("\n\n")
    key, *headers = (line.partition(": ")[::2] for line in head.splitlines())
    event = EXAMPLES["JobRequested"]
    assert key == ("key", event.subject)
    assert json.loads(body)
    assert decode(body.encode(), [(name, text.encode()) for name, text in headers], EVENT_TYPES, event.time) == event


def test_the_four_headers_that_the_page_calls_enough_are_enough(page: str) -> None:
    event = EXAMPLES["JobRequested"]
    value, headers = encode(event)
    needed = {header.name for header in HEADERS if header.needed}
    assert needed == set(re.findall(r"`(ce_\w+)", section(page, "In short").partition("\n2. ")[0]))
    read = decode(value, [(name, text) for name, text in headers if name in needed], EVENT_TYPES, event.time)
    assert isinstance(read, Event)
    assert (read.data, read.correlation_id) == (event.data, event.correlation_id)
