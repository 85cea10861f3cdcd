"""Which state a version can have while others use it, and what its state lets others do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.models import PromotionRequested, VersionStateChanged
from services.registry.domain.aliases import ChangeRefused, remove
from services.registry.domain.state import RegistrationState
from services.registry.domain.version_states import StateRefused, change_state, remove_files
from tests.unit.registry.test_approving import Approved
from tests.unit.registry.test_models import MODEL
from tests.unit.registry.test_promoting import GOOD, Gated


def row_of(registry: Gated, version: str) -> RegistrationState:
    rows = (row.state for row in registry.rows.values())
    made = [row for row in rows if isinstance(row, RegistrationState) and row.registered]
    return next(row for row in made if row.registered and row.registered.version == version)


def put(
    registry: Gated, version: str, state: str, users: tuple[str, ...] = (), reason: str = "It is old.", **more: Any
) -> None:
    made = change_state(row_of(registry, version), registry.model, state, by="ana", reason=reason, users=users, **more)
    if made:
        registry.events.append(registry.unit(MODEL).apply(made))


def uses(registry: Gated, version: str, state: str = "archived", **how: Any) -> list[str]:
    with pytest.raises(StateRefused) as refused:
        put(registry, version, state, **how)
    return [reason.field for reason in refused.value.reasons]


def test_a_state_has_a_reason_and_the_same_again_is_no_event() -> None:
    registry = Gated()
    version = registry.made(0.9)
    assert row_of(registry, version).state == "live"
    put(registry, version, "deprecated")
    changed = registry.events[-1].data
    assert isinstance(changed, VersionStateChanged)
    assert (changed.previous, changed.state, changed.reason, changed.by) == ("live", "deprecated", "It is old.", "ana")
    told = len(registry.events)
    put(registry, version, "deprecated")
    assert len(registry.events) == told
    put(registry, version, "archived")
    put(registry, version, "live", reason="It is needed.")
    assert (row_of(registry, version).state, row_of(registry, version).state_reason) == ("live", "It is needed.")


def test_what_an_alias_names_or_can_go_back_to_is_not_archived_and_each_use_is_named() -> None:
    registry = Gated()
    first, second = registry.made(0.9, "candidate"), registry.made(0.9)
    registry.promoted(first)
    assert uses(registry, first) == ["aliases.candidate", "aliases.production"]
    registry.promoted(second)
    assert uses(registry, first) == ["aliases.candidate", "earlier.production"]
    registry.change(lambda model, state, change: remove(model, "candidate", state, change))
    registry.change(lambda model, state, change: remove(model, "production", state, change))
    put(registry, first, "archived")
    assert row_of(registry, first).state == "archived"


def test_what_others_continue_from_is_not_archived_but_deprecated() -> None:
    registry = Gated()
    version = registry.made(0.9)
    assert uses(registry, version, users=("other@1.0.0", "step register of job 7")) == ["used_by"] * 2
    put(registry, version, "deprecated", users=("other@1.0.0",))
    assert row_of(registry, version).state == "deprecated"


def test_no_alias_comes_to_name_what_is_archived_and_what_is_deprecated_only_with_a_reason() -> None:
    registry = Gated()
    version = registry.made(0.9)
    put(registry, version, "archived")
    with pytest.raises(ChangeRefused, match="archived: It is old"):
        registry.promoted(version, deprecated=True)
    put(registry, version, "deprecated")
    with pytest.raises(ChangeRefused, match="accept_deprecated"):
        registry.promoted(version)
    with pytest.raises(ChangeRefused, match="a reason is needed"):
        registry.promoted(version, deprecated=True, reason="")
    registry.promoted(version, deprecated=True)
    assert registry.production == version


def test_a_rollback_goes_to_a_deprecated_version_because_nothing_may_delay_it() -> None:
    registry = Gated()
    first, second = registry.made(0.9), registry.made(0.9)
    registry.promoted(first)
    registry.promoted(second)
    put(registry, first, "deprecated")
    registry.back(first)
    assert registry.production == first


def test_what_waits_for_approval_is_not_archived_and_what_was_deprecated_meanwhile_is_accepted_by_who_approves() -> None:
    registry = Approved(gates=(GOOD,))
    version = registry.made(0.9)
    request = registry.asked(version)
    assert uses(registry, version) == ["waiting.production"]
    put(registry, version, "deprecated")
    with pytest.raises(ChangeRefused, match="accept_deprecated"):
        registry.approves(request)
    with pytest.raises(ChangeRefused, match="a reason is needed"):
        registry.approves(request, deprecated=True, reason="")
    registry.approves(request, deprecated=True)
    assert registry.production == version


def test_who_asks_for_a_deprecated_version_accepts_that_for_who_approves() -> None:
    registry = Approved()
    version = registry.made(0.9)
    put(registry, version, "deprecated")
    registry.promoted(version, deprecated=True)
    asked = registry.events[-1].data
    assert isinstance(asked, PromotionRequested)
    registry.approves(asked.request)
    assert (asked.accepts_deprecated, registry.production) == (True, version)


def removed(registry: Gated, version: str) -> bool:
    row = row_of(registry, version)
    assert row.deleted_at is not None
    told = remove_files(row, row.deleted_at + timedelta(seconds=1))
    if told:
        registry.events.append(registry.unit(MODEL).apply(told))
    return told is not None


def test_a_deleted_version_is_one_that_nothing_uses_and_can_be_restored_and_its_number_stays_taken() -> None:
    registry = Gated()
    first, second = registry.made(0.9, "candidate"), registry.made(0.9)
    assert uses(registry, first, "deleted") == ["aliases.candidate"]
    assert uses(registry, second, "deleted", users=("job 7",)) == ["used_by"]
    put(registry, second, "deleted")
    row = row_of(registry, second)
    assert (row.state, row.deleted_at is not None) == ("deleted", True)
    with pytest.raises(ChangeRefused, match="deleted: It is old"):
        registry.promoted(second)
    assert registry.made(0.9) not in (first, second)
    put(registry, second, "live", reason="It is needed.")
    assert (row_of(registry, second).state, row_of(registry, second).deleted_at) == ("live", None)
    registry.promoted(second)


@pytest.mark.parametrize("state", ["live", "deprecated", "archived"])
def test_a_version_whose_files_were_removed_or_whose_parent_is_deleted_is_not_restored(state: str) -> None:
    registry = Gated()
    version = registry.made(0.9)
    put(registry, version, "deleted")
    assert uses(registry, version, state, gone=("base@1.0.0",)) == ["lineage"]
    assert removed(registry, version)
    assert uses(registry, version, state) == ["artifact"]
    put(registry, version, "deleted", reason="Another reason.")
    assert uses(registry, version, state) == ["artifact"]
    assert not removed(registry, version)


def test_files_are_removed_only_of_what_was_deleted_before_the_time() -> None:
    registry = Gated()
    version = registry.made(0.9)
    far = datetime(2100, 1, 1, tzinfo=UTC)
    assert remove_files(row_of(registry, version), far) is None
    put(registry, version, "archived")
    assert remove_files(row_of(registry, version), far) is None
    put(registry, version, "deleted")
    deleted_at = row_of(registry, version).deleted_at
    assert deleted_at is not None
    assert remove_files(row_of(registry, version), deleted_at) is None
    put(registry, version, "live")
    assert remove_files(row_of(registry, version), far) is None
