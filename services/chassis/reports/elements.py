"""Builds the parts of a report's page; every text is escaped here, whoever wrote it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from services.chassis.reports.texts import safe

_TEMPLATE = Path(__file__).with_name("page.html")


def page(*, title: str, kicker: str, heading: str, lede: str, sections: Iterable[str], footer: str) -> str:
    """Return the HTML text of a page; `sections` and `footer` are HTML, the others are text."""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=safe(title),
        kicker=safe(kicker),
        heading=safe(heading),
        lede=safe(lede),
        sections="\n".join(section for section in sections if section),
        footer=footer,
    )


def section(name: str, title: str, body: str) -> str:
    """Return a section with a heading; `name` is unique on the page."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{safe(title)}</h2>\n{body}\n</section>'


def scroll(label: str, body: str) -> str:
    """Return a region that scrolls sideways if it is wider than the screen."""
    return f'<div class="scroll" role="region" aria-label="{safe(label)}" tabindex="0">\n{body}\n</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Return a table whose first column heads the rows."""
    head = "".join(f'<th scope="col">{safe(column)}</th>' for column in columns)
    body = "\n".join(map(_row, rows))
    named = f' class="{kind}"' if kind else ""
    return f"<table{named}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(cells: Sequence[str]) -> str:
    first = f'<tr><th scope="row">{_breakable(cells[0])}</th>'
    return first + "".join(f"<td>{safe(cell)}</td>" for cell in cells[1:]) + "</tr>"


def _breakable(name: str) -> str:
    """Return a name that a narrow screen breaks between its parts."""
    return safe(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def lines(text: str) -> str:
    """Return text whose lines stay as they are, in a region that scrolls."""
    return f'<pre class="text" tabindex="0">{safe(text)}</pre>'


def figure(chart: str, caption: str) -> str:
    """Return a chart with its caption."""
    return f"<figure>{chart}<figcaption>{safe(caption)}</figcaption></figure>"


def paragraph(text: str, *, kind: str = "") -> str:
    """Return a paragraph."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{safe(text)}</p>"
