"""Stands in for vLLM's OpenAI server, which needs a GPU: a process that speaks its API over real sockets and holds no model.

It mirrors `vllm/entrypoints/openai/models/serving.py` with the routers of `/v1/load_lora_adapter`, `/v1/unload_lora_adapter` and
authentication, as vllm-project/vllm had them at commit 00153c8b7948077ebdfc5bfa14e403da41aaea6d (2026). Run as
`python -m tests.vllm_stand_in FOLDER PORT`: FOLDER/how.json says how it behaves and is read at each request; FOLDER/asked.jsonl gets
what was asked. It prints its port.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class How:
    """How it behaves."""

    base: str = "base"
    root: str = "base"
    key: str = ""
    updates: bool = True
    """VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    load_error: str = ""
    """What the engine says when it is to load an adapter."""
    load_status: int = 500
    dies: bool = False
    """Whether the engine dies when it is to load an adapter."""
    mount: str = ""
    """The folder where a path that it is given lies on this machine; it sees `/mnt` there."""
    says: str = "Hello."
    chat_status: int = 200
    healthy: bool = True
    hangs: bool = False
    garbage: bool = False

    def write(self, folder: Path) -> None:
        """Behave like this from the next request on."""
        (folder / "how.new").write_text(json.dumps(asdict(self)))
        (folder / "how.new").replace(folder / "how.json")


def error(message: str, kind: str, code: int, param: str | None = None) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Handler(BaseHTTPRequestHandler):
    folder: Path
    adapters: dict[str, str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.handled({})

    def do_POST(self) -> None:
        self.handled(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def handled(self, asked: dict[str, Any]) -> None:
        how = How(**json.loads((self.folder / "how.json").read_text()))
        if self.path not in ("/health", "/v1/models"):
            with (self.folder / "asked.jsonl").open("a") as file:
                file.write(json.dumps({"path": self.path, "asked": asked, "headers": dict(self.headers)}) + "\n")
        if how.hangs:
            time.sleep(3600)
        if how.garbage:
            self.reply(200, b"<html>")
        elif self.path == "/health":
            self.reply(200 if how.healthy else 503, b"")
        elif how.key and self.headers["Authorization"] != f"Bearer {how.key}":
            self.reply(401, {"error": "Unauthorized"})
        else:
            self.routed(how, asked)

    def routed(self, how: How, asked: dict[str, Any]) -> None:
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": self.cards(how)})
        elif self.path == "/v1/load_lora_adapter" and how.updates:
            self.reply(*self.loaded(how, asked["lora_name"], asked["lora_path"]))
        elif self.path == "/v1/unload_lora_adapter" and how.updates:
            self.reply(*self.unloaded(asked["lora_name"]))
        elif self.path == "/v1/chat/completions":
            self.answered(how, asked)
        else:
            self.reply(404, {"detail": "Not Found"})

    def cards(self, how: How) -> list[dict[str, Any]]:
        about = {"object": "model", "created": 1, "owned_by": "vllm"}
        base = {**about, "id": how.base, "root": how.root, "parent": None, "max_model_len": 2048}
        return [base, *({**about, "id": name, "root": path, "parent": how.base} for name, path in self.adapters.items())]

    def loaded(self, how: How, name: str, path: str) -> tuple[int, Any]:
        if name in self.adapters:
            said = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
            return error(said, "InvalidUserInput", 400)
        if how.dies:
            replace(how, healthy=False).write(self.folder)
        if how.load_error:
            return error(how.load_error, "InternalServerError", how.load_status)
        here = Path(path.replace("/mnt", how.mount, 1) if how.mount else path)
        if not (here / "adapter_config.json").is_file():
            return error(f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError", 404)
        self.adapters[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully.".encode()

    def unloaded(self, name: str) -> tuple[int, Any]:
        if self.adapters.pop(name, None) is None:
            return error(f"The lora adapter '{name}' cannot be found.", "NotFoundError", 404)
        return 200, f"Success: LoRA adapter '{name}' removed successfully.".encode()

    def answered(self, how: How, asked: dict[str, Any]) -> None:
        if asked["model"] not in (how.base, *self.adapters):
            self.reply(*error(f"The model `{asked['model']}` does not exist.", "NotFoundError", 404, "model"))
        elif how.chat_status != 200:
            self.reply(*error("the engine is dead", "InternalServerError", how.chat_status))
        elif asked.get("stream"):
            self.reply(200, b"".join(self.pieces(how, asked["model"])), "text/event-stream")
        else:
            message: dict[str, Any] = {
                "role": "assistant",
                "content": how.says,
                "reasoning_content": None,
                "tool_calls": [],
            }
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            about = {"id": "chatcmpl-vllm", "object": "chat.completion", "created": 1, "model": asked["model"]}
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            self.reply(200, {**about, "choices": [choice], "usage": usage})

    def pieces(self, how: How, model: str) -> list[bytes]:
        about = {"id": "chatcmpl-vllm", "object": "chat.completion.chunk", "created": 1, "model": model}
        said = [{**about, "choices": [{"index": 0, "delta": {"content": f"{word} "}}]} for word in how.says.split()]
        return [*(f"data: {json.dumps(piece)}\n\n".encode() for piece in said), b"data: [DONE]\n\n"]

    def reply(self, status: int, content: Any, kind: str = "application/json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Handler.folder, Handler.adapters = Path(sys.argv[1]), {}
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
