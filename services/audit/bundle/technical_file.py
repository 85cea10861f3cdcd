"""The technical file: data, purpose, training, compute, evaluation, oversight and limits, each value with its records. Pure."""

from collections.abc import Sequence
from typing import Any

from services.audit.bundle.cited import cited
from services.audit.bundle.facts import Section
from services.audit.bundle.log_view import FORMAT
from services.audit.bundle.markdown import plain, section_lines

JSON, TEXT = "technical-file.json", "technical-file.md"


def as_json(sections: Sequence[Section], name: str) -> dict[str, Any]:
    """Return the technical file for programs; a value that no record has is null."""
    return {
        "format": FORMAT,
        "about": name,
        "sections": [
            {
                "title": section.title,
                "facts": [{"name": fact.name, "value": fact.value.value, **cited(fact.value)} for fact in section.facts],
            }
            for section in sections
        ],
    }


def as_text(sections: Sequence[Section], name: str) -> str:
    """Return the technical file for people."""
    head = (
        f"# Technical file of {plain(name)}",
        "",
        "Each value comes from the records named beside it, which are in `records.jsonl`; nothing was typed by hand. A record is named as",
        "`topic[partition]@offset`, with a JSON pointer into its value after `#`, or an attribute of its envelope after `!`.",
        "",
    )
    return "\n".join((*head, *section_lines(sections)))
