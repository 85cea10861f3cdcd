"""Coroutines that take turns: who goes on is drawn by a seed, not by an event loop, so a run can be repeated exactly."""

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

Ready = Callable[[], bool]


def _always() -> bool:
    return True


@coroutine
def turn(ready: Ready = _always) -> Generator[Ready, None, None]:
    """Let other tasks run; return when it is this task's turn again and `ready` returns True."""
    yield ready


class Task:
    """One running coroutine."""

    def __init__(self, name: str, running: Coroutine[Any, Any, object]) -> None:
        self.name, self._running = name, running
        self.ready: Ready = _always
        self.done = False

    def go_on(self) -> None:
        """Run one step, to the next `turn`. Raises the errors of the coroutine."""
        try:
            self.ready = self._running.send(None)
        except StopIteration:
            self.done = True
        except BaseException:
            self.done = True
            raise

    def kill(self) -> None:
        """End it at its present step: its transaction rolls back and nothing of it continues."""
        self.done = True
        self._running.close()
