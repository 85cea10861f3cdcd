"""What a job tries in order to read what is not its own: every form is one fault of the request, at once, that tells nothing."""

import os
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.chassis.storage.references import ReferenceFault, require_inside, resolve, resolve_model
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.download import SourceAway, download
from services.chassis.storage.sources.reaching import SourceRefused
from tests.certificates import certificates

SECRET = "the content of somebody else's file"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An allowed folder, which is the working folder, beside one that is not."""
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file.jsonl").write_text(SECRET)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def allowed(place: Path, **changes: object) -> AllowedSources:
    given = {
        "folders": (place / "work",),
        "schemes": ("http", "https"),
        "download_bytes": 100_000,
        "download_seconds": 30.0,
    }
    return AllowedSources.model_validate({**given, **changes})


def fault(reference: str, place: Path, **changes: object) -> str:
    with pytest.raises(ReferenceFault) as raised:
        resolve(reference, place / "cache", allowed(place, **changes), "dataset")
    said = str(raised.value)
    assert SECRET not in said
    assert "file.jsonl" not in said.replace(reference, "")
    return said


@pytest.mark.parametrize(
    "form",
    ["{secret}/file.jsonl", "{secret}", "../secret/file.jsonl", "data/../../secret/file.jsonl", "{work}/../secret/file.jsonl",
     "file://{secret}/file.jsonl", "FILE://{secret}/file.jsonl", "file://localhost{secret}/file.jsonl", "local://{secret}/file.jsonl",
     "file://{work}/%2e%2e/secret/file.jsonl", "file://{work}/..%2fsecret%2ffile.jsonl", "link/file.jsonl", "{work}/link",
     "/proc/self/environ", "/proc/self/root{secret}/file.jsonl", "/dev/stdin", "/dev/zero", "~/.ssh/id_ed25519", "~root/.profile",
     ".hidden/file.jsonl", "data/.env"],
)  # fmt: skip
def test_a_way_out_of_the_allowed_folders_is_refused(place: Path, form: str) -> None:
    (place / "work" / "link").symlink_to(place / "secret")
    (place / "work" / ".hidden").mkdir()
    (place / "work" / ".hidden" / "file.jsonl").write_text(SECRET)
    (place / "work" / "data" / ".env").write_text(SECRET)
    fault(form.format(secret=place / "secret", work=place / "work"), place)


def test_what_is_there_and_what_is_not_are_refused_in_the_same_words(place: Path) -> None:
    assert fault(str(place / "secret" / "file.jsonl"), place) == fault(str(place / "secret" / "nothing"), place)


@pytest.mark.parametrize(
    "reference",
    ["zip://x::file:///etc/passwd", "simplecache::http://127.0.0.1/x", "filecache::s3://b/x", "ssh://root@127.0.0.1/etc/passwd",
     "sftp://127.0.0.1/x", "ftp://127.0.0.1/x", "reference://x", "github://o:r@/x", "git:///tmp/x", "memory://x", "data://x", "dir://x",
     "libarchive://x", "blockcache://x", "webhdfs://127.0.0.1/x", "smb://127.0.0.1/x", "jupyter://127.0.0.1/x", "dbfs://x", "hf://x",
     "s3://key:secret@bucket/x", "generic://x", "x" * 50 + "://x"],
)  # fmt: skip
def test_schemes_of_other_kinds_are_refused_before_anything_is_opened(
    place: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsspec.url_to_fs", lambda *_: pytest.fail("it was opened"))
    fault(reference, place, schemes=("http", "https", "s3"))


def test_a_pipe_is_refused_and_nobody_waits_for_its_writer(place: Path) -> None:
    os.mkfifo(place / "work" / "pipe")
    assert "neither a file nor a folder" in fault("pipe", place)
    os.mkfifo(place / "work" / "data" / "train.jsonl")
    with pytest.raises(ReferenceFault, match="1 of its files are pipes or devices"):
        require_inside(place / "work" / "data", place / "cache", allowed(place))


def test_a_link_within_a_folder_may_lead_to_what_jobs_may_name_and_nowhere_else(place: Path) -> None:
    (place / "work" / "weights").write_text("w")
    (place / "work" / "data" / "model").symlink_to(place / "work" / "weights")
    require_inside(place / "work" / "data", place / "cache", allowed(place))
    (place / "work" / "data" / "train.jsonl").symlink_to(place / "secret" / "file.jsonl")
    with pytest.raises(ReferenceFault, match="1 of its files are links that lead out"):
        require_inside(place / "work" / "data", place / "cache", allowed(place))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", '{"base_model_name_or_path": "/secret"}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../x"}}'),
    ],
)
def test_a_base_model_that_leads_elsewhere_is_refused(place: Path, name: str, content: str) -> None:
    (place / "work" / "data" / name).write_text(content)
    with pytest.raises(ReferenceFault):
        resolve_model("data", place / "cache", allowed(place))


# ---------------------------------------------------------------- over http


class Server(ThreadingHTTPServer):
    """A server on loopback whose paths misbehave, each in its own way."""

    daemon_threads = True
    led_to: str = ""
    asked: int = 0

    def handle_error(self, *_: object) -> None:
        """A client that has enough goes."""


class Paths(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        match self.path.split("?")[0]:
            case "/rows.jsonl":
                self._answer(200, SECRET.encode())
            case "/redirect":
                self._answer(302, b"", {"Location": self.server.led_to})
            case "/loop":
                self._answer(302, b"", {"Location": "/loop"})
            case "/gzip":
                self._answer(200, zlib.compress(b"0" * 10**7, wbits=31), {"Content-Encoding": "gzip"})
            case "/huge":
                self._answer(200, b"", announced=10**12)
            case "/endless":
                self._stream(lambda: b"0" * 10_000, 0.0)
            case "/slow":
                self._stream(lambda: b"0", 0.02)
            case "/headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            case status:
                self._answer(int(status[1:]), SECRET.encode())

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, announced: int | None = None
    ) -> None:
        self.send_response(status, SECRET)
        for name, value in {
            **(headers or {}),
            "Content-Length": str(len(body) if announced is None else announced),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, block: Callable[[], bytes], pause: float) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(block())
            time.sleep(pause)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """One that the operator has listed, and one that nobody has."""
    both = Server(("127.0.0.1", 0), Paths), Server(("127.0.0.1", 0), Paths)
    for server in both:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ours(servers: tuple[Server, Server], place: Path) -> tuple[str, AllowedSources]:
    """Base URL of the listed server, and what lists it."""
    host = f"127.0.0.1:{servers[0].server_port}"
    return f"http://{host}", allowed(place, hosts=(host,))


def test_a_file_of_a_listed_host_is_downloaded_whole_and_once(ours: tuple[str, AllowedSources], place: Path) -> None:
    url, listed = ours
    file = resolve(f"{url}/rows.jsonl", place / "cache", listed, "dataset")
    assert (file.name, file.read_text()) == ("rows.jsonl", SECRET)
    assert resolve(f"{url}/rows.jsonl", place / "cache", listed, "dataset") == file
    assert not list((place / "cache" / "tmp").iterdir())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_a_private_address_that_is_not_listed_is_never_asked(
    servers: tuple[Server, Server], place: Path, host: str
) -> None:
    before = servers[1].asked
    said = fault(f"http://{host}:{servers[1].server_port}/rows.jsonl", place, public_hosts=True)
    assert "its address is not public" in said
    assert servers[1].asked == before


def test_the_connection_goes_to_the_address_that_was_checked(
    servers: tuple[Server, Server], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a name that leads elsewhere the second time is asked once."""
    monkeypatch.setattr("services.chassis.storage.sources.allowed.is_public", lambda address: address == "127.0.0.1")
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    url = f"http://rebinding.example:{servers[1].server_port}/rows.jsonl"
    rebinding = allowed(place, public_hosts=True)
    assert download(url, place / "cache", rebinding, resolve=lambda *_: next(answers)).read_text() == SECRET
    with pytest.raises(SourceRefused, match="its address is not public"):
        download(url, place / "cache", rebinding, resolve=lambda *_: next(answers))


def test_of_several_addresses_one_that_answers_is_enough(servers: tuple[Server, Server], place: Path) -> None:
    listed = allowed(place, hosts=("judge.internal",))
    url = f"http://judge.internal:{servers[1].server_port}/rows.jsonl"
    file = download(url, place / "cache", listed, resolve=lambda *_: ["127.0.0.2", "127.0.0.1"])
    assert file.read_text() == SECRET


def test_tls_proves_the_name_and_not_the_address_that_is_connected_to(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = Server(("127.0.0.1", 0), Paths)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        listed = allowed(place, hosts=("127.0.0.1", "judge.internal"))
        path = f"{server.server_port}/rows.jsonl"
        assert download(f"https://127.0.0.1:{path}", place / "cache", listed).read_text() == SECRET
        with pytest.raises(SourceAway):  # the certificate names the address alone
            download(f"https://judge.internal:{path}", place / "cache", listed, resolve=lambda *_: ["127.0.0.1"])
    finally:
        server.shutdown()
        server.server_close()


def test_headers_that_trickle_end_with_the_time_for_a_download(ours: tuple[str, AllowedSources], place: Path) -> None:
    url, listed = ours
    with pytest.raises(SourceRefused, match=r"longer than 0\.2 s"):
        download(f"{url}/headers", place / "cache", listed.model_copy(update={"download_seconds": 0.2}))


def test_a_redirect_to_what_is_not_listed_is_never_followed(
    ours: tuple[str, AllowedSources], servers: tuple[Server, Server], place: Path
) -> None:
    url, listed = ours
    open_to_all = listed.model_copy(update={"public_hosts": True})
    for to in (f"http://127.0.0.1:{servers[1].server_port}/rows.jsonl", f"http://localhost:{servers[0].server_port}/rows.jsonl",
               "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://a:b@127.0.0.1/"):  # fmt: skip
        servers[0].led_to, before = to, servers[1].asked
        with pytest.raises(ReferenceFault) as raised:
            resolve(f"{url}/redirect", place / "cache", open_to_all, "dataset")
        assert "169.254" not in str(raised.value).partition(";")[0]
        assert servers[1].asked == before
    servers[0].led_to = "/rows.jsonl"
    assert resolve(f"{url}/redirect", place / "cache", listed, "dataset").read_text() == SECRET


@pytest.mark.parametrize(
    ("path", "words"),
    [("loop", "an invalid redirect"), ("gzip", "compresses its answer"), ("huge", "too large for a download"),
     ("endless", "too large for a download"), ("404", "no such file (HTTP 404)"), ("401", "refuses access (HTTP 401)"),
     ("204", "no such file (HTTP 204)")],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_is_a_fault_that_does_not_repeat_it(
    ours: tuple[str, AllowedSources], place: Path, path: str, words: str
) -> None:
    url, listed = ours
    with pytest.raises(ReferenceFault) as raised:
        resolve(f"{url}/{path}", place / "cache", listed, "dataset")
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)
    assert not list((place / "cache" / "tmp").iterdir())


def test_a_body_that_trickles_ends_with_the_time_for_a_download(ours: tuple[str, AllowedSources], place: Path) -> None:
    url, listed = ours
    with pytest.raises(SourceRefused, match=r"longer than 0\.2 s"):
        download(f"{url}/slow", place / "cache", listed.model_copy(update={"download_seconds": 0.2}))


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_out_of_order_may_be_asked_again(
    ours: tuple[str, AllowedSources], place: Path, status: int
) -> None:
    url, listed = ours
    with pytest.raises(SourceAway) as raised:
        resolve(f"{url}/{status}", place / "cache", listed, "dataset")
    assert str(raised.value) == f"the server of the reference answers HTTP {status}"
