"""What one check of `doctor` found."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class Finding(Frozen):
    """What one check found."""

    check: str
    verdict: Literal["good", "note", "mend"] = Field(description="good; note: works, but; mend: must be mended.")
    detail: str
    remedy: str = Field(default="", description="What to do; empty where nothing is needed.")
