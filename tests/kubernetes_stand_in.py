"""Stands in for a Kubernetes API server with KServe, which cannot run here: real sockets, and answers in the shapes that both document.

`Status` objects, server-side apply with field managers and strict validation are those of Kubernetes 1.33, the status of an InferenceService that of
KServe 0.20 (`pkg/apis/serving/v1beta1/inference_service_status.go`). The service itself answers under /openai, as KServe's huggingface server.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices"


def status(code: int, reason: str, message: str, **details: Any) -> tuple[int, dict[str, Any]]:
    """Return a refusal as the API has it."""
    about = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, {**about, "message": message, "reason": reason, "details": details, "code": code}


class Cluster:
    """A cluster with one namespace; a test changes how it behaves."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refusal: tuple[int, Any] | None = None
        """What the API answers instead."""
        self.phase = "ready"
        self.failure: dict[str, str] | None = None
        self.says, self.chats = "Hello.", True
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        self.tokens: set[str | None] = set()
        self.chatted: list[str] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(*cluster.answer("GET", self.path, self.headers.get("Authorization"), b""))

            def do_POST(self) -> None:
                self.reply(*cluster.answer("POST", self.path, self.headers.get("Authorization"), self.body()))

            def do_PATCH(self) -> None:
                assert self.headers["Content-Type"] == "application/apply-patch+yaml"
                self.reply(*cluster.answer("PATCH", self.path, self.headers.get("Authorization"), self.body()))

            def do_DELETE(self) -> None:
                self.reply(*cluster.answer("DELETE", self.path, self.headers.get("Authorization"), self.body()))

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers["Content-Length"]))

            def reply(self, code: int, content: Any) -> None:
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, token: str | None, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(target)
        if parts.path.startswith("/openai"):
            return self.served(parts.path, json.loads(body or b"{}"))
        query = parse_qs(parts.query)
        self.asked.append((method, parts.path, query))
        self.tokens.add(token)
        if self.refusal is not None and (method == "PATCH" or self.refusal[0] not in (400, 409, 422)):
            return self.refusal
        name = parts.path.removeprefix(PATH).strip("/")
        if not name:
            wanted = query["labelSelector"][0].split("=")
            found = [one for one in list(self.objects.values()) if one["metadata"]["labels"].get(wanted[0]) == wanted[1]]
            return 200, {
                "kind": "InferenceServiceList",
                "apiVersion": "serving.kserve.io/v1beta1",
                "items": list(map(self.shown, found)),
            }
        if method == "PATCH":
            self.objects[name] = {
                **json.loads(body),
                "metadata": {**json.loads(body)["metadata"], "uid": f"uid-{name}", "generation": 1},
            }
            return 201, self.shown(self.objects[name])
        if name not in self.objects:
            about = {"name": name, "group": "serving.kserve.io", "kind": "inferenceservices"}
            return status(404, "NotFound", f'inferenceservices.serving.kserve.io "{name}" not found', **about)
        if method == "DELETE":
            assert json.loads(body)["preconditions"] == {"uid": f"uid-{name}"}
            del self.objects[name]
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return 200, self.shown(self.objects[name])

    def shown(self, made: dict[str, Any]) -> dict[str, Any]:
        """Return an object with the status that KServe writes."""
        name = made["metadata"]["name"]
        if self.phase == "ready":
            conditions = [{"type": "IngressReady", "status": "True"}, {"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "True"}]  # fmt: skip
            said: dict[str, Any] = {"address": {"url": self.url}, "url": f"http://{name}.models.example.com"}
        else:
            why = {"reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."}
            conditions = [{"type": "PredictorReady", "status": "False", **why}, {"type": "Ready", "status": "False", **why}]
            said = {}
        model = (
            {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": self.failure}
            if self.failure
            else {"transitionStatus": "UpToDate"}
        )
        return {**made, "status": {"conditions": conditions, "modelStatus": model, "observedGeneration": 1, **said}}

    def served(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if path == "/openai/v1/models":
            return (200, {"object": "list", "data": []}) if self.chats else (503, b"")
        if not self.chats or asked["model"] not in self.objects:
            return 503, b"no healthy upstream"
        self.chatted.append(path)
        message = {"role": "assistant", "content": self.says}
        return 200, {
            "id": "kserve",
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
