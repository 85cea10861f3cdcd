"""An OpenAI-compatible chat endpoint on loopback, scripted by the test: the one boundary that cannot be real here."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """The endpoint's answer to one request."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    trickle_seconds: float = 0.0
    """Pause after each byte of the body."""


def says(text: str, *alternatives: Mapping[str, float], **fields: Any) -> Reply:
    """Return a chat completion; `alternatives` are the log-probabilities at each token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if alternatives:
        content = []
        for tops in alternatives:
            listed = [{"token": token, "logprob": value, "bytes": None} for token, value in tops.items()]
            content.append({**listed[0], "top_logprobs": listed})
        choice["logprobs"] = {"content": content, "refusal": None}
    return Reply({"id": "x", "object": "chat.completion", "choices": [choice]}, **fields)


@dataclass
class Chat:
    """The running endpoint and the requests that it received."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Reply] = lambda body: says("A")
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@contextmanager
def chat_endpoint() -> Iterator[Chat]:
    """Serve POST /v1/chat/completions during the block."""
    chat, lock = Chat(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                chat.asked.append({"path": self.path, **body})
                chat.keys.append(self.headers.get("Authorization"))
                chat.headers.append(dict(self.headers.items()))
                chat.at_once += 1
                chat.most_at_once = max(chat.most_at_once, chat.at_once)
                reply = chat.answer(body)
            time.sleep(reply.seconds)
            with lock:
                chat.at_once -= 1
            raw = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if not reply.trickle_seconds:
                self.wfile.write(raw)
                return
            for byte in raw:
                self.wfile.write(bytes([byte]))
                time.sleep(reply.trickle_seconds)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that timed out has disconnected

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
