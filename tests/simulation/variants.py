"""One rule of the design left out at a time: each must be caught, or the simulation proves nothing.

The fence is not among them: without it the inbox and the numbers of own events still keep everything from being applied twice,
as long as the inbox remembers. The tests on real servers leave out both.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Variant:
    """What is left out; nothing by default."""

    no_inbox: bool = False
    """A producer's duplicate is applied again."""
    removed_before_sent: bool = False
    """The relay removes rows before it sends them."""
    not_in_the_outbox: bool = False
    """What a timer decides is sent at once, before the commit that it belongs to."""
    replay_decides: bool = False
    """A replay runs `decide`."""
    swap_without_own: bool = False
    """A rebuild leaves out the service's own events beyond its positions."""
    lost_without_restore: bool = False
    """A new database reads an old log live, and so decides again."""
    no_lease_check: bool = False
    """A worker that was taken over announces its outcome all the same."""
    unlocked_relay: bool = False
    """Two relays of one service send at once, and overtake each other."""


SOUND = Variant()
VARIANTS = {rule.name: Variant(**{rule.name: True}) for rule in fields(Variant)}
