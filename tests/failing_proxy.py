"""Stands between a client and an HTTP service, and fails as the test says: the connection ends, or nothing is ever answered."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx2

Treatment = Literal["passed on", "cut off", "left waiting"]


@dataclass
class FailingProxy:
    """The running proxy. `treat` decides about each request by its number, from 1 on."""

    address: str = ""
    treat: Callable[[int], Treatment] = lambda number: "passed on"
    requests: int = 0


@contextmanager
def failing_proxy(service: str) -> Iterator[FailingProxy]:
    """Pass POST requests on to `service` during the block."""
    proxy, over, counting = FailingProxy(), threading.Event(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with counting:
                proxy.requests += 1
                treatment = proxy.treat(proxy.requests)
            match treatment:
                case "passed on":
                    self._pass_on(body)
                case "left waiting":
                    over.wait()

        def _pass_on(self, body: bytes) -> None:
            headers = {"Content-Type": self.headers["Content-Type"]}
            answer = httpx2.post(service + self.path, content=body, headers=headers, timeout=60)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the client was killed

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
