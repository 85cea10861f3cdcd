"""What the Kafka client repeats many times a second is logged once in a while."""

import io
import logging
from collections.abc import Iterator

import pytest

from services.chassis.process.logging import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("INFO", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_client_repeats_itself_once_in_a_while_and_our_own_words_are_never_held_back(stream: io.StringIO) -> None:
    for _ in range(50):
        logging.getLogger("aiokafka").error("Unable connect to node with id %s", 1)
        logging.getLogger("aiokafka.consumer.fetcher").error("Failed fetch messages from %s", 1)
        logging.getLogger("services.chassis.kernel.relay.relay").warning("relay interrupted")

    said = stream.getvalue()
    assert said.count("Unable connect to node") == 1
    assert said.count("Failed fetch messages") == 1
    assert said.count("relay interrupted") == 50
