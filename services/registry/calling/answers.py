"""Reads what a server answers: whether it says anything, how many tokens it took, and gives it the id of this response and our name of the version."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PIECE_BYTES = 1024 * 1024
"""The most bytes of one piece of a stream."""
_END = b"\n\n"
_DATA = b"data:"
DONE = b"[DONE]"


class NotAnAnswer(Exception):
    """A server answered with something else than an answer."""


@dataclass
class Answered:
    """What was seen of one answer."""

    id: str
    model: str = ""
    """`model@version` that answers, whatever its server calls it."""
    says: bool = False
    """Whether it has text or calls a tool."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """Tokens by kind, as the server counts them."""
    keeps: bool = False
    """Whether its text is kept, to be compared with that of another version."""
    texts: list[str] = field(default_factory=list)
    """Its text, in pieces."""

    def whole(self, body: bytes) -> bytes:
        """Return a whole answer with the id of this response and the name of the version. Raises NotAnAnswer."""
        answer = _parsed(body)
        self._note(answer, "message")
        return _text({**answer, "id": self.id, "model": self.model})

    def piece(self, data: bytes) -> bytes:
        """Return one piece of a stream, alike. Raises NotAnAnswer."""
        piece = _parsed(data)
        self._note(piece, "delta")
        return _text({**piece, "id": self.id, "model": self.model})

    def _note(self, answer: Mapping[str, Any], part: str) -> None:
        choices = answer.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            said = choice.get(part) if isinstance(choice, dict) else None
            if isinstance(said, dict) and (_is_text(said.get("content")) or said.get("tool_calls")):
                self.says = True
            if self.keeps and isinstance(said, dict) and isinstance(content := said.get("content"), str):
                self.texts.append(content)
        usage = answer.get("usage")
        if isinstance(usage, dict):
            counts = {kind: usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")}
            self.usage = {kind: count for kind, count in counts.items() if isinstance(count, int) and count >= 0}


def _is_text(content: object) -> bool:
    return isinstance(content, str) and bool(content.strip())


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise NotAnAnswer("the server's answer is not JSON") from error
    if not isinstance(answer, dict):
        raise NotAnAnswer("the server's answer is not a JSON object")
    return answer


def _text(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class Pieces:
    """Cuts the bytes of a stream into its pieces, wherever the network cut them."""

    _left: bytes = b""

    def of(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of every piece that is whole now. Raises NotAnAnswer for one without end."""
        self._left += data.replace(b"\r\n", b"\n")
        while (end := self._left.find(_END)) >= 0:
            block, self._left = self._left[:end], self._left[end + len(_END) :]
            said = [line[len(_DATA) :].strip() for line in block.split(b"\n") if line.startswith(_DATA)]
            if said:
                yield b"\n".join(said)
        if len(self._left) > PIECE_BYTES:
            raise NotAnAnswer(f"a piece of the server's stream is larger than {PIECE_BYTES} bytes")


def framed(data: bytes) -> bytes:
    """Return a piece as a server-sent event."""
    return _DATA + b" " + data + _END
