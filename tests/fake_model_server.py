"""A process that speaks the model server's protocol and has no model; its first argument says how it behaves.

Run as `python -m tests.fake_model_server BEHAVIOUR FOLDER`; it counts its starts in FOLDER.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BEHAVIOUR, FOLDER = sys.argv[1], Path(sys.argv[2])
START = json.loads(sys.stdin.readline())
STARTS = FOLDER / "starts"
STARTS.write_text(STARTS.read_text() + "x" if STARTS.exists() else "x")


class Handler(BaseHTTPRequestHandler):
    def answer(self, content: object, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer({}, 200 if self.headers["x-neuroweaver-secret"] == START["secret"] else 401)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        said = {"empty": "", "talks": "  red. "}.get(BEHAVIOUR, "red.")
        self.answer(b"<html>" if BEHAVIOUR == "garbage" else {"choices": [{"message": {"content": said}}]})

    def log_message(self, *_: object) -> None:
        pass


def say(**reply: object) -> None:
    print(json.dumps(reply), flush=True)


if BEHAVIOUR == "dies at start":
    sys.exit(3)
if BEHAVIOUR == "port taken":
    say(said="refused", name=None, reason="PortTaken", message="port 1 cannot be had; stop what listens there")
    sys.exit(0)
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
say(said="listening", port=server.server_address[1])
for line in sys.stdin:
    asked = json.loads(line)
    if BEHAVIOUR == "dies while loading":
        sys.exit(4)
    if BEHAVIOUR == "babbles":
        print("no JSON", flush=True)
    if BEHAVIOUR == "refuses" and asked["do"] == "load":
        say(said="refused", name=asked["name"], reason="SameAsBase", message="it changes nothing; train it again")
    else:
        say(said="loaded" if asked["do"] == "load" else "unloaded", name=asked["name"])
