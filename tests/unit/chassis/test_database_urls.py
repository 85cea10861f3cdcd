"""A database's URL is understood as PostgreSQL's own clients write it, or refused with the option's name; passwords are never shown."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from services.chassis.postgres.options import _SOCKET, OPTIONS, BadUrl, Keepalive
from services.chassis.postgres.requirements import Facts, refusal
from services.chassis.postgres.urls import parse, with_name, without_password
from services.chassis.settings import ServiceSettings
from services.cli.failures import explain


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_each_scheme_of_postgresql_is_taken(scheme: str) -> None:
    found = parse(f"{scheme}://u:p@h:5433/d")

    assert (found.name, found.user, found.servers) == ("d", "u", ("h:5433",))
    assert found.urls == ("postgresql://u:p@h:5433/d?application_name=neuroweaver",)


def test_each_of_several_servers_gets_a_url_and_must_take_writes_unless_told_otherwise() -> None:
    found = parse("postgresql://u:p@h1:5432,h2/d?application_name=x&connect_timeout=3")

    assert found.servers == ("h1:5432", "h2")
    assert found.urls[1] == "postgresql://u:p@h2/d?application_name=x&target_session_attrs=read-write"
    assert found.connect_seconds == 3
    assert "target_session_attrs=any" in parse("postgresql://u@h1,h2/d?target_session_attrs=any").urls[0]


@pytest.mark.parametrize(
    "url",
    ["postgresql://u@%2Fvar%2Frun%2Fpg/d", "postgresql:///d?host=/var/run/pg&user=u", "postgresql://u@/d?host=/var/run/pg"],
)
def test_a_folder_of_sockets_is_a_server(url: str) -> None:
    found = parse(url)

    assert found.servers == ("/var/run/pg",)
    assert found.user == "u"
    assert "%2Fvar%2Frun%2Fpg/d" in found.urls[0]


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_any_password_that_is_percent_encoded_is_understood_as_sqlalchemy_does_and_never_shown(password: str) -> None:
    url = make_url("postgresql://h:1/d").set(username="me", password=f"<{password}>").render_as_string(hide_password=False)

    found = parse(url)

    assert make_url(found.urls[0]).password == f"<{password}>"
    assert f"<{password}>" not in repr(found)
    assert make_url(without_password(url)).password is None


@pytest.mark.parametrize("password", ["s3@cret", "s3/cret", "s3?cret", "s3#cret", "12?s3=cret", "12?s3cret"])
def test_a_password_that_is_not_encoded_is_refused_without_repeating_it(password: str) -> None:
    with pytest.raises(BadUrl) as refused:
        parse(f"postgresql://u:{password}@h:5432/d")

    assert "%40" in str(refused.value)
    assert "cret" not in str(refused.value)
    assert "s3" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("colour=red", "its option 'colour' is unknown; leave it out; known options are sslmode"),
        (
            "pgbouncer=true",
            "its option 'pgbouncer' is not supported; leave it out; docs/deployment.md says what PgBouncer needs",
        ),
        ("hostaddr=10.0.0.1", "'hostaddr' is not supported; write the address in the place of the host"),
        ("service=prod", "service files are not read: write host, database and user"),
        ("ssl=true", "write sslmode=require"),
        ("currentSchema=public", "NeuroWeaver has its own schemas"),
        ("client_encoding=latin1", "client_encoding=latin1 is not supported; leave it out, or set it to UTF-8"),
        ("load_balance_hosts=random", "is not supported; leave it out, or set it to disable"),
        ("sslcompression=1", "is not supported; leave it out, or set it to 0"),
        ("keepalives=on", "keepalives=on is not a whole number, 0 or more"),
        ("tcp_user_timeout=-1", "tcp_user_timeout=-1 is not a whole number, 0 or more"),
        ("sslmode=on", "its option sslmode=on is not understood; known values are disable, allow, prefer, require"),
        ("target_session_attrs=master", "known values are any, primary"),
        ("connect_timeout=soon", "connect_timeout=soon is not a whole number of seconds"),
        ("sslrootcert=/no/such.pem", "sslrootcert=/no/such.pem cannot be read: No such file"),
        ("sslrootcert=system", "needs sslmode=verify-full"),
        ("channel_binding=require", "channel_binding=require is not supported"),
        ("options=-c%20search_path%3Dpublic", "sets search_path"),
        ("sslmode", "not a list of option=value"),
    ],
)
def test_an_option_that_is_not_understood_is_refused_by_its_name(option: str, words: str) -> None:
    with pytest.raises(BadUrl, match=words):
        parse(f"postgresql://u:p@h/d?{option}")


@pytest.mark.parametrize("option", ["host=other", "port=5433", "user=other", "password=other", "dbname=other"])
def test_what_is_named_twice_is_refused_because_clients_differ_on_which_counts(option: str) -> None:
    with pytest.raises(BadUrl, match=f"its option {option.partition('=')[0]} names again") as refused:
        parse(f"postgresql://u:s3cret@h/d?{option}")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u@h:99999/d", "postgresql://u@h1:1,[::1]:0/d", "postgresql:///d?host=h&port=65536&user=u"]
)
def test_a_port_that_cannot_be_is_refused_by_its_number(url: str) -> None:
    with pytest.raises(BadUrl, match=r"its port (99999|0|65536) is not between 1 and 65535"):
        parse(url)


@pytest.mark.parametrize(
    "url",
    ["mysql://u:s3cret@h/d", "host=h password=s3cret", "postgresql://u:s3cret@h:port/d", "postgresql://u:s3cret@[::1/d"],
)
def test_what_is_no_url_of_postgresql_is_refused_by_its_setting(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ServiceSettings(database_url=url)

    explained = explain(refused.value)
    assert explained is not None
    assert explained[1].startswith("NEUROWEAVER_DATABASE_URL: ")
    assert "s3cret" not in explained[1] + str(refused.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", Keepalive(True, 5, 2, 3, 10_000)),
        ("keepalives=0", Keepalive(False, None, None, None, None)),
        ("keepalives_idle=30", Keepalive(True, 30, None, None, None)),
        ("tcp_user_timeout=7000&keepalives_count=0", Keepalive(True, None, None, None, 7000)),
        (
            "keepalives=1&keepalives_idle=60&keepalives_interval=9&keepalives_count=4&tcp_user_timeout=30000",
            Keepalive(True, 60, 9, 4, 30_000),
        ),
    ],
)
def test_when_a_dead_connection_is_given_up_is_as_libpq_means_it_or_after_ten_seconds(
    options: str, expected: Keepalive
) -> None:
    found = parse(f"postgresql://u@h/d?{options}")

    assert found.keepalive == expected
    assert found.urls == ("postgresql://u@h/d?application_name=neuroweaver",)


def test_what_asks_for_what_is_done_anyway_is_taken() -> None:
    options = "client_encoding=utf8&sslsni=1&replication=false&load_balance_hosts=disable&fallback_application_name=mine"

    assert parse(f"postgresql://u@h/d?{options}").urls == ("postgresql://u@h/d?application_name=mine",)


def test_a_connection_has_what_was_asked_for() -> None:
    with socket.socket() as connection:
        Keepalive(True, 60, 9, 4, 30_000).apply(connection)

        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        tcp = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]
        assert [connection.getsockopt(socket.IPPROTO_TCP, option) for option in tcp] == [60, 9, 4, 30_000]
        Keepalive(False, None, None, None, None).apply(connection)
        assert not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_server_needs_no_database_in_its_url_but_a_database_of_a_service_a_name() -> None:
    settings = ServiceSettings(database_url="postgres://u:p@h?sslmode=require&application_name=x")

    assert (
        settings.database_url_for("registry") == "postgres://u:p@h/neuroweaver_registry?sslmode=require&application_name=x"
    )
    with pytest.raises(ValidationError, match="names no database"):
        ServiceSettings(registry_database_url="postgresql://u:p@h")


def test_every_option_that_is_said_to_be_understood_is() -> None:
    given = {"sslmode": "require", "connect_timeout": "3", "target_session_attrs": "any", "port": "1"}
    given |= dict.fromkeys(("sslrootcert", "sslcert", "sslkey", "sslcrl"), __file__)
    given |= dict.fromkeys(_SOCKET, "7")
    parse("postgresql:///?" + "&".join(f"{name}={given.get(name, 'x')}" for name in OPTIONS))


def test_another_name_leaves_the_rest_of_the_url() -> None:
    assert (
        with_name("postgresql://u:p%40@h1,h2/a?sslmode=require", "b c") == "postgresql://u:p%40@h1,h2/b%20c?sslmode=require"
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(13, "UTF8", False), "is PostgreSQL 13; 14 or later is needed"),
        (Facts(16, "LATIN1", False), "has the encoding LATIN1, which cannot hold every text: UTF8 is needed"),
        (Facts(16, "SQL_ASCII", False), "TEMPLATE template0"),
    ],
)
def test_a_database_that_cannot_carry_a_service_is_refused_with_the_remedy(facts: Facts, words: str) -> None:
    assert words in (refusal("database d on h", facts) or "")
    assert refusal("database d on h", Facts(14, "UTF8", True)) is None
