"""Questions and answers between processes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from musiva.comm import Link, Meter, Service, address_of
from musiva.core.errors import InvalidInput, Unavailable

SECRET = b"known"


def backwards(question: bytearray) -> bytes:
    if question == b"wait":
        time.sleep(1.0)
    if question == b"fail":
        raise RuntimeError("it cannot be answered")
    return bytes(reversed(question))


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(backwards, SECRET, "127.0.0.1")
    yield service
    service.close()


def test_every_question_has_its_answer(service: Service) -> None:
    link = Link(service.address, SECRET, 10.0)
    for question in (b"abc", b"", bytes(range(256)) * 20_000):
        assert bytes(link.ask(question)) == question[::-1]
    link.close()
    # It comes back.
    assert link.ask(b"xy") == b"yx"
    link.close()


def test_a_service_goes_on_where_one_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a process has no descriptor left, or no thread."""
    service = Service(backwards, SECRET, "127.0.0.1")
    real, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start(thread: threading.Thread) -> None:
        if thread.name == "musiva-service-serves" and failures:
            raise failures.pop()
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    link = Link(service.address, SECRET, 5.0)
    with pytest.raises(Unavailable):
        link.ask(b"abc")
    assert link.ask(b"abc") == b"cba"
    link.close()
    service.close()


def test_what_is_said_is_counted_by_host() -> None:
    meters: dict[str, Meter] = {}
    service = Service(backwards, SECRET, "127.0.0.1", lambda host: meters.setdefault(host, Meter()))
    links = [Link(service.address, SECRET, 10.0) for _ in range(2)]
    for link in links:
        link.ask(b"abc")
        link.ask(b"de")
        link.close()
    service.close()
    (host,) = meters
    assert host == "127.0.0.1"
    told = meters[host].figures("host", host)
    assert (told.sent_bytes, told.received_bytes, told.transfers) == (10, 10, 4)


def test_many_ask_at_a_time(service: Service) -> None:
    found: dict[int, bytes] = {}
    shared = Link(service.address, SECRET, 10.0)

    def ask(i: int) -> None:
        link = shared if i % 2 else Link(service.address, SECRET, 10.0)
        for j in range(20):
            assert bytes(link.ask(b"%d.%d" % (i, j))) == (b"%d.%d" % (i, j))[::-1]
        found[i] = b"done"
        if link is not shared:
            link.close()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert len(found) == 8


def test_who_does_not_know_the_secret_is_turned_away(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    link = Link(service.address, b"guessed", 10.0)
    with pytest.raises(Unavailable, match="does not answer"):
        link.ask(b"abc")
    link.close()
    assert "does not know the secret" in caplog.text


def test_who_says_nothing_holds_up_nobody(service: Service) -> None:
    with socket.create_connection(address_of(service.address)):
        link = Link(service.address, SECRET, 10.0)
        assert link.ask(b"ab") == b"ba"
        link.close()


def test_an_answer_that_takes_too_long_is_none_and_not_taken_for_the_next(
    service: Service,
) -> None:
    link = Link(service.address, SECRET, 0.5)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        link.ask(b"wait")
    assert time.monotonic() - start < 0.95
    assert link.ask(b"after") == b"retfa"
    link.close()


def test_a_question_that_cannot_be_answered_ends_its_connection_alone(service: Service) -> None:
    link = Link(service.address, SECRET, 10.0)
    with pytest.raises(Unavailable):
        link.ask(b"fail")
    assert link.ask(b"ok") == b"ko"
    link.close()


def test_nobody_there(service: Service) -> None:
    link = Link(service.address, SECRET, 2.0)
    assert link.ask(b"ab") == b"ba"
    service.close()
    for _ in range(2):
        with pytest.raises(Unavailable, match=service.address):
            link.ask(b"ab")
    with pytest.raises(Unavailable, match="nothing can be served at 203"):
        Service(backwards, SECRET, "203.0.113.1")


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:x", "host:0", "host:70000"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        address_of(text)


def test_addresses() -> None:
    assert address_of("[::1]:80") == ("::1", 80)
    assert address_of("a.b:9") == ("a.b", 9)
