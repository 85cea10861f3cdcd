"""The decision what a job may name, over all the forms in which a path, a host or a URL can be written."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path, PurePosixPath

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.storage.sources.allowed import (
    AllowedSources,
    host_refusal,
    is_public,
    key_refusal,
    path_refusal,
    scheme_refusal,
)
from services.chassis.storage.sources.reaching import SourceRefused, addresses_of, pinned, url_of
from services.chassis.storage.sources.settings import SourceSettings

ALLOWED = AllowedSources(
    folders=(Path("/srv/data"), Path("/home/me/project")),
    closed=(Path("/proc"), Path("/home/me/project/var/stack")),
    schemes=("https", "http", "s3"),
    hosts=("judge.internal", "127.0.0.1:8080", "[::1]:9000"),
    public_hosts=True,
)
_NAME = st.text("abcxyz-_0", min_size=1, max_size=6)


@pytest.mark.parametrize("path", ["/srv/data", "/srv/data/a/b.jsonl", "/home/me/project/data", "/home/me/project/var"])
def test_a_path_below_an_allowed_folder_is_read(path: str) -> None:
    assert path_refusal(Path(path), ALLOWED) is None


@pytest.mark.parametrize(
    "path",
    ["/", "/etc/passwd", "/srv", "/srv/database", "/srv/data2/x", "/proc/self/environ", "/home/me/project/var/stack/stack.json",
     "/home/me/project/.env", "/home/me/project/.git/config", "/srv/data/.ssh/id_ed25519"],
)  # fmt: skip
def test_every_other_path_is_refused(path: str) -> None:
    assert path_refusal(Path(path), ALLOWED) is not None


def test_a_folder_that_is_listed_within_a_closed_one_is_read() -> None:
    allowed = ALLOWED.model_copy(update={"folders": (*ALLOWED.folders, Path("/home/me/project/var/stack/shared"))})
    assert path_refusal(Path("/home/me/project/var/stack/shared/x"), allowed) is None
    assert path_refusal(Path("/home/me/project/var/stack/postgres/password"), allowed) is not None


@given(st.lists(_NAME, max_size=5), st.lists(st.lists(_NAME, min_size=1, max_size=4), max_size=3))
def test_what_is_read_lies_below_an_allowed_folder(parts: list[str], roots: list[list[str]]) -> None:
    allowed = AllowedSources(folders=tuple(Path("/", *root) for root in roots))
    path = Path("/", *parts)
    assert (path_refusal(path, allowed) is None) == any(
        PurePosixPath(path).is_relative_to(root) for root in allowed.folders
    )


@given(st.ip_addresses(v=4))
def test_an_address_in_another_notation_is_the_same_address(address: IPv4Address) -> None:
    wrapped = [
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        f"::{address}",
        str(IPv6Address((0x2002 << 112) | (int(address) << 80))),
    ]
    for form in wrapped:
        if ip_address(form) not in (IPv6Address("::"), IPv6Address("::1")):
            assert is_public(form) == is_public(str(address)), form


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
     "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
     "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "no address", ""],
)  # fmt: skip
def test_what_is_not_of_the_public_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_what_is_of_the_public_internet_is_public(address: str) -> None:
    assert is_public(address)


def test_one_private_address_among_public_ones_is_enough_for_a_refusal() -> None:
    assert host_refusal("x.example", 443, ["93.184.216.34"], ALLOWED) is None
    assert host_refusal("x.example", 443, ["93.184.216.34", "10.0.0.1"], ALLOWED) is not None


def test_an_unknown_host_and_a_private_one_are_refused_in_the_same_words() -> None:
    assert host_refusal("db", 5432, [], ALLOWED) == host_refusal("db", 5432, ["10.0.0.1"], ALLOWED)


def test_a_listed_host_is_reached_on_its_port_only() -> None:
    assert host_refusal("Judge.Internal.", 443, ["10.0.0.1"], ALLOWED) is None
    assert host_refusal("127.0.0.1", 8080, ["127.0.0.1"], ALLOWED) is None
    assert host_refusal("::1", 9000, ["::1"], ALLOWED) is None
    for host, port in (("127.0.0.1", 8081), ("localhost", 8080), ("evil.judge.internal", 443), ("::1", 80)):
        refusal = host_refusal(host, port, ["127.0.0.1"], ALLOWED)
        assert refusal is not None
        assert f"{port} to NEUROWEAVER_SOURCES_HOSTS" in refusal.remedy


def test_without_public_hosts_only_listed_ones_are_reached() -> None:
    closed = ALLOWED.model_copy(update={"public_hosts": False})
    assert host_refusal("x.example", 443, ["93.184.216.34"], closed) is not None
    assert host_refusal("judge.internal", 443, ["93.184.216.34"], closed) is None


def test_keys_go_to_listed_hosts_only() -> None:
    assert key_refusal("judge.internal", 443, ALLOWED) is None
    assert key_refusal("attacker.example", 443, ALLOWED) is not None


@pytest.mark.parametrize(
    "scheme", ["ftp", "ssh", "sftp", "zip", "simplecache", "reference", "github", "memory", "data", "gs", ""]
)
def test_a_scheme_that_is_not_listed_is_refused(scheme: str) -> None:
    assert scheme_refusal(scheme, ALLOWED) is not None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://host/x",
        "//host/x",
        "http://",
        "http://user:pw@host/x",
        "http://[::1",
        "file:///etc/passwd",
        "http:///x",
    ],
)
def test_what_is_no_plain_url_of_a_host_is_refused(url: str) -> None:
    with pytest.raises(SourceRefused):
        url_of(url, ALLOWED)


def test_a_request_to_an_address_still_names_its_host() -> None:
    sent = pinned(httpx2.Request("GET", "https://x.example:8443/y"), "93.184.216.34")
    assert (sent.url.host, sent.url.port, sent.headers["Host"]) == ("93.184.216.34", 8443, "x.example:8443")
    assert sent.extensions["sni_hostname"] == "x.example"
    six = pinned(httpx2.Request("GET", "http://x.example/"), "2606:2800:220:1:248:1893:25c8:1946")
    assert six.url.netloc == b"[2606:2800:220:1:248:1893:25c8:1946]"


def test_a_name_server_that_does_not_answer_is_no_fault_of_the_request() -> None:
    def away(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    with pytest.raises(httpx2.ConnectError):
        addresses_of(httpx2.URL("https://x.example/"), ALLOWED, away)
    with pytest.raises(SourceRefused):
        addresses_of(httpx2.URL("https://x.example/"), ALLOWED, lambda *_: [])


def test_a_working_folder_that_is_the_whole_machine_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert path_refusal(Path("/etc/passwd"), SourceSettings().allowed(tmp_path, tmp_path / "cache")) is not None


def test_by_default_a_job_names_the_working_folder_the_cache_and_public_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    allowed = SourceSettings().allowed(Path("var/stack"), tmp_path / "cache")
    for path in (tmp_path / "work" / "data", tmp_path / "cache" / "base-models" / "x"):
        assert path_refusal(path, allowed) is None
    for path in (Path("/proc/1/environ"), Path("/etc/shadow"), tmp_path, tmp_path / "work/var/stack/postgres/password"):
        assert path_refusal(path, allowed) is not None
    assert allowed.hosts == ()
    assert (allowed.hub, allowed.public_hosts) == (True, True)


def test_the_settings_are_lists_separated_by_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "FOLDERS": f"{tmp_path}/a, {tmp_path}/b",
        "HOSTS": "judge:8000,127.0.0.1",
        "SCHEMES": "HTTPS",
    }.items():
        monkeypatch.setenv(f"NEUROWEAVER_SOURCES_{name}", value)
    allowed = SourceSettings().allowed(tmp_path / "home", tmp_path / "c")
    assert allowed.folders == (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert (allowed.hosts, allowed.schemes) == (("judge:8000", "127.0.0.1"), ("https",))
