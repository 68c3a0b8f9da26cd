"""When to try again, and after how long."""

from __future__ import annotations

import httpx
import pytest

from musiva.client.retry import Retry, retry_after, worth_another


def test_backoff_doubles_within_its_jitter_and_ends() -> None:
    low, high = Retry(6, draw=lambda: 0.0), Retry(6, draw=lambda: 1.0)
    assert [low.wait(i, None) for i in range(7)] == [0.25, 0.5, 1, 2, 4, 4, None]
    assert [high.wait(i, None) for i in range(7)] == [0.5, 1, 2, 4, 8, 8, None]


def test_the_servers_own_time_is_kept_unless_it_is_too_long() -> None:
    retry = Retry(2, draw=lambda: 0.5)
    assert retry.wait(0, 5.0) == 5.25
    assert retry.wait(1, 0.0) == 0.25
    assert retry.wait(0, 61.0) is None
    assert retry.wait(2, 1.0) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=1445412480.0) == seconds


def test_what_may_be_gone_a_little_later() -> None:
    assert [s for s in range(300, 600) if worth_another(s)] == [429, 503]
    again = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError)
    never = (httpx.ReadTimeout, httpx.UnsupportedProtocol, httpx.DecodingError, httpx.PoolTimeout)
    assert all(worth_another(kind("")) for kind in again)
    assert not any(worth_another(kind("")) for kind in never)
