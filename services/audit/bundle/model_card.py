"""The model card, `README.md`, with the metadata that the Hugging Face hub reads. Pure.

https://huggingface.co/docs/hub/model-cards
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from services.audit.bundle.cited import NOTHING, Citations, Cited, Tree, document
from services.audit.bundle.facts import Section, measured
from services.audit.bundle.markdown import plain, section_lines
from services.audit.bundle.sources import VersionSources

CARD = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LIBRARIES = {"adapter": "peft", "model": "transformers"}
_ORIGINS = {False: "Made by NeuroWeaver.", True: "Made elsewhere and imported by NeuroWeaver."}
_SHOWN = ("The version", "Purpose", "Base model", "Data", "Compute of this modification", "Evaluation", "Known limits")


def card_of(known: VersionSources, sections: Sequence[Section], name: str) -> tuple[str, Citations]:
    """Return the card and the citations of its metadata; those of its tables are beside their values."""
    metadata, citations = document(_metadata(known))
    head: Any = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10_000)
    lines = [
        "---", head.rstrip("\n"), "---", "", f"# {plain(name)}", "",
        f"{_ORIGINS[known.imported]} Each value comes from the records named beside it; `technical-file.md` has all of them.", "",
        *section_lines(section for section in sections if section.title in _SHOWN),
    ]  # fmt: skip
    return "\n".join(lines), citations


def _metadata(known: VersionSources) -> Tree:
    made = known.registered
    scores = made.at("purpose").value == "scores"
    task = "text-classification" if scores else "text-generation"
    kind = made.at("kind")
    reference = known.data
    return {
        "library_name": kind.by("library of the kind", _LIBRARIES.get(str(kind.value))),
        "pipeline_tag": made.at("purpose").by("task of the purpose", task),
        "license": made.at("lineage", "imported", "licence"),
        "base_model": _hub_id(made.at("lineage", "base_model")),
        **({"datasets": [reference]} if _hub_id(reference).value is not None else {}),
        "tags": ["neuroweaver"],
        "model-index": [
            {
                "name": made.at("model"),
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {
                            "name": NOTHING if reference.value is None else reference,
                            "type": "held-out rows of the job's data set",
                        },
                        "metrics": [{"type": one.name, "value": one.value} for one in measured(known)],
                    }
                ],
            }
        ],
    }


def _hub_id(reference: Cited) -> Cited:
    """Return a reference that the hub can show; other references are in the tables only."""
    is_id = isinstance(reference.value, str) and _HUB_ID.fullmatch(reference.value)
    return reference if is_id else Cited(None, reference.origins)
