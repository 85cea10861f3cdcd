"""Applies the events of models to an MLflow registry: each once and in order, also when the log is read again from its start."""

import re
from collections.abc import Callable, Collection

from schemas.envelope import Event
from schemas.models import AliasMoved, AliasRemoved, ModelRegistered, VersionDescribed, VersionStateChanged
from services.bridges.mlflow_registry import Away, Foreign, MlflowRegistry, Refused, worded

SOURCE = "neuroweaver/registry"
"""Who writes what is mirrored; the word of others about models does not count."""
_ALIAS = re.compile(r"[\w-]+", re.ASCII)


class Mirror:
    """What is mirrored of which models."""

    def __init__(self, registry: MlflowRegistry, models: Collection[str], say: Callable[[str], None]) -> None:
        """`models`: only these; none for all."""
        self._registry, self._models, self._say = registry, models, say
        self._sequences: dict[str, int] = {}

    def forget(self) -> None:
        """Look again how far each model is mirrored: MLflow may have been restarted, or brought back from a backup."""
        self._sequences.clear()

    def apply(self, event: Event) -> bool:
        """Apply an event, unless it is applied already or is about something else; return whether it was. Raises Away and Foreign."""
        model = getattr(event.data, "model", None)
        if event.source != SOURCE or not isinstance(model, str) or (self._models and model not in self._models):
            return False
        try:
            return self._apply(event, model, event.sequence or 0)
        except (Away, Foreign):
            raise
        except Exception as error:  # the client raises its own errors, and those of its transport
            raise Away(str(worded(error))) from error

    def _apply(self, event: Event, model: str, sequence: int) -> bool:
        if model not in self._sequences:
            self._sequences[model] = self._registry.sequence(model)
        if sequence <= self._sequences[model]:
            return False
        if self._registry.sequence(model) < self._sequences[model]:
            raise Away(f"it has an earlier state of {model} than before, as from a backup")
        if not self._sequences[model]:
            self._registry.begin(model)
        try:
            self._mirror(event)
        except Exception as error:
            refused = error if isinstance(error, Refused) else worded(error)
            if isinstance(refused, Away):
                raise refused from error
            why = f"{event.type} {sequence} of {model} is not mirrored: {refused}"
            self._say(why)
            self._registry.refused(model, why)
        self._registry.done(model, sequence)
        self._sequences[model] = sequence
        return True

    def _mirror(self, event: Event) -> None:
        match event.data:
            case ModelRegistered() as made:
                self._registry.register(made, event.time)
            case VersionDescribed() as told:
                self._registry.describe(told.model, told.version, told.description, told.tags)
            case VersionStateChanged() as changed:
                self._registry.mark(changed.model, changed.version, changed.state)
            case AliasMoved() as moved:
                self._registry.point(moved.model, _mirrored(moved.alias), moved.version)
            case AliasRemoved() as removed:
                self._registry.unpoint(removed.model, _mirrored(removed.alias))


def _mirrored(alias: str) -> str:
    if _ALIAS.fullmatch(alias) is None:
        raise Refused(f"an alias of MLflow has letters, digits, - and _ only, and this one is {alias}")
    return alias
