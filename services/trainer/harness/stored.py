"""The tasks in a `dataset` artifact: `prepare` checks and stores them, so that every evaluation of a job measures the same."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.reasons import Reason
from schemas.recipes.harness import HarnessSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.language_models.chat_format.chat import Chat, ChatFault
from services.trainer.harness.generated import Generated
from services.trainer.harness.library import FIELD, load_harness, task_fault
from services.trainer.harness.task_data import store_data, stored_data
from services.trainer.harness.task_file import TaskFile, read_task
from services.trainer.harness.task_keys import FOLLOWED

FOLDER = "harness"
_FILE = "task.json"


@dataclass(frozen=True)
class StoredTask:
    """A task with its data, as it is measured."""

    config: Mapping[str, Any]
    sha256: str
    """Digest of its file, with those that it includes."""
    data: Mapping[str, str]
    """Digests of its splits."""
    folder: Path

    @property
    def splits(self) -> dict[str, Any]:
        """The rows of its splits, as the hub's library holds them."""
        return stored_data(self.folder, list(self.data))


def store_tasks(context: Context, settings: HarnessSettings, chat: Chat, limit: int | None, folder: Path) -> Generated:
    """Check every task and store it in `folder`, that of the data set; return what they generate. Raises UserFault for what could not be
    measured later.

    `limit`: the most tokens that the model reads.
    """
    load_harness()
    names: dict[str, str] = {}
    generated = Generated()
    for number, reference in enumerate(settings.tasks):
        if context.stopping:
            raise Stopping
        context.progress(number, len(settings.tasks), "harness tasks")
        file = read_task(reference, context.task)
        if file.name in names:
            raise task_fault(reference, "its task has the name of another one that is measured", "leave one of them out")
        names[file.name] = reference
        place = folder / FOLDER / str(number)
        place.mkdir(parents=True)
        config = {name: value for name, value in file.config.items() if name in FOLLOWED}
        described = {"config": config, "sha256": file.sha256, "data": store_data(file, place, context.task)}
        (place / _FILE).write_text(json.dumps(described, indent=2, default=str) + "\n", encoding="utf-8")
        generated = generated.larger(_rehearsed(file, _read(place), settings, chat, limit))
    return generated


def stored_tasks(dataset: Path, settings: HarnessSettings) -> Iterator[StoredTask]:
    """Yield the tasks that prepare stored. Raises UserFault if it stored others than the settings name."""
    load_harness()
    places = [dataset / FOLDER / str(number) for number in range(len(settings.tasks))]
    if not all((place / _FILE).is_file() for place in places):
        what = "the step that prepared the data stored no tasks of the harness"
        raise UserFault(Reason(field=FIELD, message=what, remedy="send the job again"))
    yield from map(_read, places)


def _read(place: Path) -> StoredTask:
    found = json.loads((place / _FILE).read_text(encoding="utf-8"))
    return StoredTask(found["config"], found["sha256"], found["data"], place)


def _rehearsed(file: TaskFile, stored: StoredTask, settings: HarnessSettings, chat: Chat, limit: int | None) -> Generated:
    from services.trainer.harness.prompts import Rehearsal
    from services.trainer.harness.tasks import built, misfit, run

    rehearsal = Rehearsal(chat, limit, chats=settings.chat)
    try:
        task = built(stored.config, stored.splits, settings)
        wrong = misfit(task)
        if wrong is None:
            run(rehearsal, task, settings)
    except (UserFault, MemoryError):
        raise
    except ChatFault as fault:
        raise task_fault(file.reference, f"a prompt of it is no chat: {fault}", fault.remedy) from fault
    except Exception as error:  # the harness, its templates and its metrics raise whatever they like
        what = f"the harness cannot ask or count it with its data ({type(error).__name__})"
        remedy = "compare its templates, metrics and number of examples with the columns and rows of its data"
        raise task_fault(file.reference, what, remedy) from error
    if wrong is not None:
        raise task_fault(file.reference, wrong, "correct doc_to_target or doc_to_choice, or the row")
    return rehearsal.generated
