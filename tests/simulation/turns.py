"""Coroutines that take turns: who goes on is drawn by a seed, not by an event loop, so a run can be repeated exactly."""

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

Ready = Callable[[], bool]


def _always() -> bool:
    return True


@coroutine
def turn(ready: Ready = _always) -> Generator[Ready, None, None]:
    """Let others go on; come back when it is one's turn again and `ready` says so."""
    yield ready


class Task:
    """One coroutine under way."""

    def __init__(self, name: str, running: Coroutine[Any, Any, object]) -> None:
        self.name, self._running = name, running
        self.ready: Ready = _always
        self.done = False

    def go_on(self) -> None:
        """One step, to the next `turn`. Raises what the coroutine raises."""
        try:
            self.ready = self._running.send(None)
        except StopIteration:
            self.done = True
        except BaseException:
            self.done = True
            raise

    def kill(self) -> None:
        """End it where it stands: its transaction rolls back, nothing of it runs on."""
        self.done = True
        self._running.close()
