"""Names of services that somebody typed."""

from collections.abc import Sequence

from services.cli.exits import Exit, stop_with


def known(names: Sequence[str]) -> Sequence[str]:
    """Return `names` if each is a service; ends the command at another name."""
    from schemas.steps import SERVICES  # pydantic would make every command slow to start

    for name in names:
        if name not in SERVICES:
            stop_with(Exit.USAGE, f"SERVICE={name}: no such service; use {', '.join(SERVICES)}")
    return names
