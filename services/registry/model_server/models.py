"""The models that this process serves by name: the base model, and adapters that come and go."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import torch

from schemas.lines import Message
from services.language_models.answering import MisfitAdapter, Unservable, load_adapted, load_whole, next_logits
from services.language_models.chat_format.chat import Chat
from services.language_models.chat_format.templates import ChatFault
from services.language_models.lengths import context_length
from services.language_models.precision import compute_dtype, device
from services.registry.model_server.decoder import Decoder, Limits

_log = logging.getLogger(__name__)
_ASKED = (Message(role="user", content="Hello! Who are you?"),)
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


class Refused(Exception):
    """A model cannot be served; `reason` is one of the words of `Observed`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with a name."""

    name: str
    sha256: str
    chat: Chat
    model: Any
    decoder: Decoder
    context: int | None
    """The most tokens that it reads; None for no limit."""
    since: int
    """Unix time when it was loaded."""


class ServedModels:
    """The models of this process, by name."""

    def __init__(self, base: Path, lanes: int, limits: Limits) -> None:
        """`lanes`: on a processor; a GPU has one."""
        self._device = device()
        self._folder, self._limits = base, limits
        self._lanes = lanes if self._device.type == "cpu" else 1
        self._base: Any = None
        self._named: dict[str, ServedModel] = {}
        self._loading = Lock()  # the library loses weights when two threads load at once

    def load_base(self) -> None:
        """Load the base model's weights. Raises Refused."""
        self._base = _refusing(lambda: load_whole(self._folder, compute_dtype("auto", self._device), self._device))

    def load(self, name: str, sha256: str, folder: Path, kind: Literal["adapter", "model"]) -> None:
        """Serve an adapter, or the base model itself where `kind` is model, under a name. Raises Refused.

        It blocks while weights are read; what is served already goes on.
        """
        with self._loading:
            known = self._named.get(name)
            if known is None:
                self._named[name] = _refusing(lambda: self._served(name, sha256, folder, kind))
            elif known.sha256 != sha256:
                raise Refused("DigestMismatch", f"{name} is served with the digest {known.sha256}, and not with {sha256}")

    def _served(self, name: str, sha256: str, folder: Path, kind: Literal["adapter", "model"]) -> ServedModel:
        chat = Chat(folder)
        model = self._base
        if kind == "adapter":
            model = load_adapted(self._folder, folder, self._base)
            asked = chat.prompts([_ASKED])[0]
            if torch.equal(next_logits(model, asked), next_logits(self._base, asked)):
                raise Refused(
                    "SameAsBase", "the adapter changes nothing: the model answers as its base model does; train it again"
                )
        decoder = Decoder(model, chat.stop_ids, chat.pad_id, self._lanes, self._limits)
        return ServedModel(name, sha256, chat, model, decoder, context_length(model.config), int(time.time()))

    def get(self, name: str) -> ServedModel | None:
        """Return the model with a name."""
        return self._named.get(name)

    @property
    def all(self) -> list[ServedModel]:
        """The models, by name."""
        return sorted(self._named.values(), key=lambda served: served.name)

    def remove(self, name: str) -> None:
        """Forget a model; answers that are not done fail."""
        served = self._named.pop(name, None)
        if served is not None:
            served.decoder.close()


def _refusing(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Refused:
        raise
    except MisfitAdapter as error:
        raise Refused("WrongBase", f"the adapter does not fit the base model: {error}") from error
    except (Unservable, ChatFault) as error:
        raise Refused("Unloadable", str(error)) from error
    except Exception as error:
        if isinstance(error, MemoryError) or any(said in str(error) for said in _NO_MEMORY):
            what = "the machine has no memory for it: undeploy another version, or take a larger machine"
            raise Refused("OutOfMemory", what) from error
        _log.exception("a model cannot be loaded")
        raise Refused("Unloadable", f"it cannot be loaded ({type(error).__name__}); its log says more") from error
