"""What one check of `doctor` found."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class Finding(Frozen):
    """The result of one check."""

    check: str
    verdict: Literal["good", "note", "mend"] = Field(
        description="good; note: it works with a restriction; mend: it must be repaired."
    )
    detail: str
    remedy: str = Field(default="", description="What to do; empty if nothing is needed.")
