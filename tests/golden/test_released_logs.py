"""What a released version wrote, this version reads to the same states: no decision is taken again, no value changes.

Fields that came later may stand beside those that the release knew; everything that it knew must be equal.
"""

from typing import Any

import pytest

from schemas.evolution.upcasting import UPCASTERS, Upcaster, newest, upcast
from tests.golden.logs import DOMAINS, EXAMPLES_LOG, expected, histories, outcomes, read, states, versions

LOGS = [(version, history) for version in versions() for history in histories(version) if history != EXAMPLES_LOG]


def missing(known: Any, now: Any, path: str = "") -> list[str]:
    """Where `now` does not say what `known` said."""
    if isinstance(known, dict) and isinstance(now, dict):
        gone = [f"{path}.{name}: was {known[name]!r}, is no more" for name in known.keys() - now.keys()]
        return gone + [
            fault for name in known.keys() & now.keys() for fault in missing(known[name], now[name], f"{path}.{name}")
        ]
    if isinstance(known, list) and isinstance(now, list) and len(known) == len(now):
        return [fault for i, (a, b) in enumerate(zip(known, now, strict=True)) for fault in missing(a, b, f"{path}[{i}]")]
    return [] if known == now else [f"{path}: was {known!r}, is {now!r}"]


def apart(known: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return `known` without what 0.1.0 kept in the row of a model and later releases keep in rows of their own: versions, moves and
    the results of the latest version. Those rows say the same."""
    rest = {}
    for key, row in known.items():
        state = row["state"]
        if "moves" in state:
            model = key.partition("/")[2]
            made = [one["state"]["registered"] for name, one in now.items() if name.startswith("registration/")]
            assert sorted(state["versions"]) == sorted(one["version"] for one in made if one["model"] == model)
            moves = [one["state"] for name, one in now.items() if name.startswith("alias_move/")]
            moves = [one["move"] for one in moves if one["model"] == model]
            assert len(moves) == len(state["moves"])
            assert all(any(move.items() <= one.items() for one in moves) for move in state["moves"])
            assert any(missing(state["latest"], one["lineage"]) == [] for one in made if one["model"] == model)
            state = {name: value for name, value in state.items() if name not in ("versions", "moves")}
            state["latest"] = {**state["latest"], "results": {}}
        rest[key] = {**row, "state": state}
    return rest


def read_today(known: Any) -> Any:
    """What a release read in a record, as the newest version of its type."""
    if known == "unreadable":
        return known
    return {**known, "type": newest(known["type"]), "data": upcast(known["type"], known["data"])}


OF_LATER_KINDS = ("alias_move/", "job_end/")
"""What keys of rows begin with that the releases did not have."""


def test_every_release_has_logs() -> None:
    from schemas.evolution.history import releases

    assert [version for version, _ in releases()] == versions()


@pytest.mark.parametrize("service", DOMAINS)
@pytest.mark.parametrize(("version", "history"), LOGS)
def test_a_released_log_folds_to_what_its_release_made_of_it(version: str, history: str, service: str) -> None:
    known, now = expected(version)[history][service], states(read(version, history), service)
    own = {key for key in now if key.startswith(OF_LATER_KINDS)}
    assert known.keys() == now.keys() - own
    assert missing(apart(known, now), now) == []


@pytest.mark.parametrize("version", versions())
def test_every_released_event_is_read_as_it_was_and_garbage_stays_garbage(version: str) -> None:
    known = [read_today(one) for one in expected(version)[EXAMPLES_LOG]]
    assert missing(known, outcomes(read(version, EXAMPLES_LOG))) == []


def test_what_a_release_read_as_an_old_type_is_expected_as_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPCASTERS, "JobFailed", Upcaster("JobFailed.v2", lambda data: {**data, "more": 1}))
    known = {"type": "JobFailed", "sequence": 3, "data": {"job_id": "a"}}
    assert read_today(known) == {"type": "JobFailed.v2", "sequence": 3, "data": {"job_id": "a", "more": 1}}
    assert read_today("unreadable") == "unreadable"


def test_a_changed_value_is_found_and_a_new_field_is_not_a_change() -> None:
    known = {"a": [{"b": 1}]}
    assert missing(known, {"a": [{"b": 1, "later": 2}], "new": 3}) == []
    assert missing(known, {"a": [{"b": 2}]}) == [".a[0].b: was 1, is 2"]
    assert missing(known, {"a": []}) != []
    assert missing({"a": None}, {}) == [".a: was None, is no more"]
