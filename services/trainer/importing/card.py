"""Reads from a model card what the version tells about its origin. A card is text from outside: what cannot be read is not known."""

from pathlib import Path

import yaml

from schemas.reasons import shortened
from services.chassis.storage.model_files import CARD

_READ = 64 * 1024
_LONGEST = 100
_FENCE = "---"
_OTHER = "other"


def licence_of(folder: Path) -> str | None:
    """Return the licence that the card in `folder` names; None if there is no card, or none that can be read."""
    found = _front_matter(folder / CARD)
    told = found.get("license")
    if told == _OTHER:
        told = found.get("license_name", told)
    names = told if isinstance(told, list) else [told]
    plain = [name for name in names if isinstance(name, str) and name.strip() and name.isprintable()]
    return shortened(", ".join(plain), _LONGEST) or None


def _front_matter(card: Path) -> dict[object, object]:
    """Return the YAML between two lines of dashes at the beginning of a card."""
    try:
        with card.open("rb") as opened:
            lines = opened.read(_READ).decode("utf-8", errors="replace").splitlines()
        if not lines or lines[0].strip() != _FENCE:
            return {}
        end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == _FENCE), len(lines))
        found = yaml.safe_load("\n".join(lines[1:end]))
    except Exception:  # the parser's constructors raise whatever they meet, such as AttributeError for a tagged date
        return {}
    return found if isinstance(found, dict) else {}
