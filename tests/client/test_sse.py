"""The parser of server-sent events against the standard's words, cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.client.sse import EventParser, ServerSentEvent

SAMPLE = "\ufeff: hello\n\nevent: preview\ndata: {1: 'ü 狐 🦊'}\ndata:two\n\nid: 4\ndata: three\n\n"
EXPECTED = [
    ServerSentEvent("preview", "{1: 'ü 狐 🦊'}\ntwo"),
    ServerSentEvent("message", "three"),
]


def parsed(*chunks: bytes) -> list[ServerSentEvent]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(end=st.sampled_from(["\n", "\r", "\r\n"]), cuts=st.lists(st.integers(0, 120)))
def test_any_line_end_cut_anywhere(end: str, cuts: list[int]) -> None:
    content = SAMPLE.replace("\n", end).encode()
    places = [0, *sorted(cuts), len(content)]
    pieces = [content[a:b] for a, b in pairwise(places)]
    assert parsed(*pieces) == EXPECTED


def test_byte_by_byte() -> None:
    for end in ("\n", "\r", "\r\n"):
        content = SAMPLE.replace("\n", end).encode()
        assert parsed(*(content[i : i + 1] for i in range(len(content)))) == EXPECTED


@pytest.mark.parametrize(
    ("content", "events"),
    [
        ("data\n\n", [("message", "")]),
        ("data:\ndata:\n\n", [("message", "\n")]),
        ("data:  two spaces\n\n", [("message", " two spaces")]),
        ("data: a:b: c\n\n", [("message", "a:b: c")]),
        ("event: lonely\n\ndata: x\n\n", [("message", "x")]),
        ("strange: field\n:comment\nretry: 5\ndata: x\n\n", [("message", "x")]),
        ("data: never ended\n", []),
        ("data: x", []),
        ("\n\n\n", []),
    ],
)
def test_corners_of_the_standard(content: str, events: list[tuple[str, str]]) -> None:
    assert parsed(content.encode()) == [ServerSentEvent(*one) for one in events]


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    (event,) = parsed(b"data: \xff\xfe\n\n")
    assert event.data == "\ufffd\ufffd"


def test_a_long_line_in_small_pieces_takes_linear_time() -> None:
    """8 MB in 2,000 pieces; joining all again for each piece would copy 8 GB."""
    parser = EventParser()
    parser.feed(b"data: ")
    for _ in range(2000):
        assert parser.feed(b"x" * 4096) == []
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) == 2000 * 4096
