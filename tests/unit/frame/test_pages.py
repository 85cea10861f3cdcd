"""The pages that people read name only what is there: every link, heading, file and linked name exists in this commit."""

import re
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("examples/**/*.md")])
_OF_WHAT_IS_THERE = [page for page in _PAGES if page.parent.name != "how-to"]
"""A how-to also names files that its reader is about to write."""
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_NAME_IN_CODE = re.compile(r"`([A-Za-z_][\w.]*)`")
_FILE_IN_CODE = re.compile(r"`([\w./-]+\.(?:py|md|toml|yaml))`")


@pytest.fixture(scope="module")
def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.splitlines() if (_ROOT / name).is_file()]


def relative_links(page: Path) -> list[tuple[str, Path, str]]:
    """Text, file and heading of each link that leads to a file of the repository."""
    found = [(text, target.partition("#")) for text, target in _LINK.findall(page.read_text())]
    return [
        (text, page.parent / name if name else page, heading)
        for text, (name, _, heading) in found
        if not re.match(r"[a-z]+:", name)
    ]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for _, path, heading in relative_links(page):
        assert path.exists(), path
        assert not heading or heading in anchors(path), (path, heading)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_a_name_in_code_that_is_a_link_to_a_module_stands_in_that_module(page: Path) -> None:
    for text, path, _ in relative_links(page):
        if path.suffix == ".py" and (name := _NAME_IN_CODE.fullmatch(text)) and not text.endswith(".py`"):
            last = name[1].rpartition(".")[2]
            assert re.search(rf"\b{last}\b", path.read_text()), (text, path)


@pytest.mark.parametrize("page", _OF_WHAT_IS_THERE, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_file_that_a_page_names_exists(page: Path, files: list[str]) -> None:
    text = page.read_text()
    saved = set(re.findall(r"^```\w+ file=(\S+)$", text, re.MULTILINE))
    for name in set(_FILE_IN_CODE.findall(text)) - saved:
        assert any(f"/{file}".endswith(f"/{name}") for file in files), name


def test_the_glossary_has_each_word_once_in_the_order_of_the_alphabet() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (_ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words), key=lambda word: (word.lower(), word))
    assert words


def test_the_walk_counts_the_files_that_it_passes() -> None:
    walk = (_ROOT / "docs/walk.md").read_text()
    table = [line for line in walk.splitlines() if line.startswith("| ")]
    passed = {target for line in table for _, target in _LINK.findall(line) if target.endswith(".py")}
    said = re.search(r"passes (\d+) files", walk)
    assert said
    assert len(passed) == int(said[1])


def test_every_rule_that_the_code_names_by_number_is_in_the_architecture(files: list[str]) -> None:
    section = (_ROOT / "docs/architecture.md").read_text().partition("\n## Rules\n")[2].partition("\n## ")[0]
    rules = set(re.findall(r"^(\d)\. ", section, re.MULTILINE))
    code = [
        (_ROOT / name).read_text() for name in files if name.endswith(".py") and name.startswith(("services/", "examples/"))
    ]
    named = {
        number
        for text in code
        for found in re.findall(r"\b[Rr]ules? (\d)(?: (?:to|and) (\d))?\b", text)
        for number in found
    }
    assert named - {""} <= rules
    assert named & rules
