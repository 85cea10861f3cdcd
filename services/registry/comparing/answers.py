"""Reads the answers that versions gave when they were evaluated, so that people can read them side by side."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.lines import Prediction
from schemas.reasons import shortened
from schemas.results import PREDICTIONS
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.comparing.comparison import ComparedAnswers
from services.registry.domain.lineage import Artifact, evaluations_of
from services.registry.views import VersionView

ANSWERS_AT_MOST = 20
_READ_ROWS = 1000
"""Rows that are read of each version at most."""
_TEXT_LIMIT = 2000


class StoredAnswers:
    """The predictions of versions in the artifact store."""

    def __init__(self, store_uri: str, cache: Path) -> None:
        self._store, self._cache = ArtifactStore(store_uri), cache

    def side_by_side(self, views: Sequence[VersionView], count: int) -> tuple[list[ComparedAnswers], list[str]]:
        """Return the answers to the first rows that the first version answered, and why those of a version are missing."""
        remarks = list[str]()
        found = [self._rows(view, remarks) for view in views]
        first = found[0] or next((rows for rows in found if rows), {})
        return [
            ComparedAnswers(
                id=row.id,
                prompt=shortened(row.messages[-1].content if row.messages else "", _TEXT_LIMIT),
                reference=shortened(row.reference, _TEXT_LIMIT),
                answers=tuple(shortened(rows[row.id].greedy, _TEXT_LIMIT) if row.id in rows else None for rows in found),
            )
            for row in islice(first.values(), count)
        ], remarks

    def _rows(self, view: VersionView, remarks: list[str]) -> Mapping[str, Prediction]:
        predictions = _predictions(view)
        if predictions is None:
            remarks.append(f"{view.id} has no stored answers")
            return {}
        try:
            folder = self._store.fetch_remaining(predictions, self._cache)
            with (folder / Prediction.FILE).open(encoding="utf-8") as lines:
                return {row.id: row for row in map(Prediction.model_validate_json, islice(lines, _READ_ROWS))}
        except (ArtifactCorrupt, ArtifactRefused, OSError, ValueError) as error:
            remarks.append(f"the answers of {view.id} cannot be read: {type(error).__name__}")
            return {}


def _predictions(view: VersionView) -> ArtifactRef | None:
    made: Iterator[ArtifactRef] = (
        result.outputs[PREDICTIONS] for result in evaluations_of(Artifact(view.kind, view.artifact), view.lineage.results)
    )
    return next(made, None)
