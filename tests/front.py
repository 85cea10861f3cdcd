"""One address for several services, as `up` and a cluster's ingress give: it passes requests on by their path, streams too."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_PASSED_ON = ("Content-Type", "Last-Event-ID", "If-Match")


@contextmanager
def front(ports: Mapping[str, int]) -> Iterator[str]:
    """Run it and yield its address. `ports`: the service behind each beginning of a path, below /api/v1/ or, for callers, at the root."""

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            beginning = self.path.removeprefix("/api/v1").split("/")[1].split("?")[0]
            behind = HTTPConnection("127.0.0.1", ports[beginning], timeout=600)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: self.headers[name] for name in _PASSED_ON if self.headers[name]}
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() == "content-type" or name.lower().startswith("x-neuroweaver-"):
                    self.send_header(name, value)
            self.end_headers()
            while part := answer.read1():
                self.wfile.write(part)
                self.wfile.flush()
            behind.close()

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 (names of the library)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
