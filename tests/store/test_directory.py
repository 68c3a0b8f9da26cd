"""Directories: in a process, behind a service, and in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from musiva.comm import Service
from musiva.core.errors import InvalidInput, Unavailable
from musiva.store.directory import (
    NEXT,
    Directory,
    Embedded,
    Found,
    Holder,
    News,
    RemoteDirectory,
    answering,
)
from musiva.store.redis import RedisDirectory

A, B = Holder("a", "10.0.0.1:5", "here"), Holder("b", "10.0.0.2:5", "there")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["embedded", "remote", "redis"])
def directory(request: pytest.FixtureRequest) -> Iterator[Directory]:
    if request.param == "embedded":
        yield Embedded()
    elif request.param == "remote":
        own = Embedded()
        service = Service(answering(own), b"secret", "127.0.0.1")
        yield RemoteDirectory(service.address, b"secret")
        service.close()
        own.check_integrity()
    else:
        yield request.getfixturevalue("in_redis")()


def found(directory: Directory, key: str, depth: int = 1) -> dict[str, list[str]]:
    return {one.key: [h.name for h in one.holders] for one in directory.find(key, depth)}


def test_who_has_what(directory: Directory) -> None:
    assert directory.find("k", 4) == []
    assert not directory.beat(A)
    assert directory.beat(A)
    directory.beat(B)
    directory.tell("a", [News("k", 100, 0.5), News("l", 10, 0.25)])
    directory.tell("b", [News("k", 100, 0.5)])
    assert directory.find("k", 4) == [Found("k", 100, 0.5, (A, B))]
    directory.forget("a", ["k", "never told"])
    assert found(directory, "k") == {"k": ["b"]}
    directory.leave("b")
    assert directory.find("k", 4) == []
    assert found(directory, "l") == {"l": ["a"]}
    # One that was away has to tell all again.
    assert not directory.beat(B)
    directory.close()


def test_what_came_after_is_found_with_it(directory: Directory) -> None:
    directory.beat(A)
    directory.tell("a", [News("0", 1, 1.0)])
    for i in range(1, 6):
        directory.tell("a", [News(str(i), 1, 1.0, str(i - 1))])
    # Another picture that goes on otherwise from the third.
    directory.tell("a", [News("x", 1, 1.0, "2"), News("y", 1, 1.0, "x")])
    assert list(found(directory, "0", 3)) == ["0", "1", "2"]
    assert set(found(directory, "0", 64)) == {"0", "1", "2", "3", "4", "5", "x", "y"}
    assert list(found(directory, "2", 2)) == ["2", "x"]
    for i in range(10):
        directory.tell("a", [News(f"many{i}", 1, 1.0, "5")])
    latest = [f"many{i}" for i in range(9, 9 - NEXT, -1)]
    assert list(found(directory, "5", 64)) == ["5", *latest]
    directory.close()


def test_pages_told_of_by_nobody_known_are_nowhere() -> None:
    own = Embedded()
    own.tell("a", [News("k", 1, 1.0)])
    assert own.find("k", 1) == []
    own.check_integrity()


def test_who_is_not_heard_of_has_nothing() -> None:
    clock = Clock()
    own = Embedded(ttl=10.0, clock=clock)
    for one in (A, B):
        own.beat(one)
        own.tell(one.name, [News("k", 1, 1.0)])
    clock.now += 9.0
    assert own.beat(A)
    clock.now += 2.0
    assert found(own, "k") == {"k": ["a"]}
    assert not own.beat(B)
    assert found(own, "k") == {"k": ["a"]}
    own.check_integrity()


def test_only_so_many_pages_are_known() -> None:
    own = Embedded(max_pages=3)
    own.beat(A)
    own.tell("a", [News(str(i), 1, 1.0) for i in range(5)])
    assert [bool(own.find(str(i), 1)) for i in range(5)] == [False, False, True, True, True]
    own.check_integrity()


def test_anything_may_happen_to_a_directory() -> None:
    draw, clock = Random(5), Clock()
    own = Embedded(ttl=5.0, max_pages=12, clock=clock)
    truth: dict[str, set[str]] = {}
    heard: dict[str, float] = {}
    names = [Holder(str(i), f"h:{i + 1}", str(i)) for i in range(4)]
    for _ in range(4000):
        one, key = draw.choice(names), f"k{draw.randrange(12)}"
        for name in [n for n, at in heard.items() if at < clock.now - 5.0]:
            del heard[name]
            for holders in truth.values():
                holders.discard(name)
        what = draw.randrange(6)
        if what == 0:
            assert own.beat(one) == (one.name in heard)
            heard[one.name] = clock.now
        elif what == 1:
            own.beat(one)
            heard[one.name] = clock.now
            own.tell(one.name, [News(key, 1, 1.0, f"k{draw.randrange(12)}")])
            truth.setdefault(key, set()).add(one.name)
        elif what == 2:
            own.forget(one.name, [key])
            truth.get(key, set()).discard(one.name)
        elif what == 3 and draw.random() < 0.2:
            own.leave(one.name)
            heard.pop(one.name, None)
            for holders in truth.values():
                holders.discard(one.name)
        elif what == 4:
            clock.now += draw.uniform(0.0, 2.0)
        else:
            told = {h for several in found(own, key).values() for h in several}
            assert told == truth.get(key, set())
        own.check_integrity()


@pytest.fixture
def in_redis(request: pytest.FixtureRequest) -> Callable[[], RedisDirectory]:
    """A directory in a server that speaks what Redis speaks."""
    fakeredis = pytest.importorskip("fakeredis")
    server = fakeredis.FakeServer(version=(7,))
    redis = pytest.importorskip("redis")

    def made(**options: Any) -> RedisDirectory:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                redis.Redis,
                "from_url",
                lambda url, **given: fakeredis.FakeRedis(server=server, decode_responses=True),
            )
            return RedisDirectory("redis://somewhere:6379", **options)

    return made


def test_redis_forgets_holders_by_itself(in_redis: Callable[..., RedisDirectory]) -> None:

    directory = in_redis(ttl=0.2)
    directory.beat(A)
    directory.tell("a", [News("k", 1, 1.0)])
    assert found(directory, "k") == {"k": ["a"]}
    time.sleep(0.3)
    assert directory.find("k", 1) == []
    assert not directory.beat(A)
    assert found(directory, "k") == {"k": ["a"]}
    directory.close()


def test_redis_forgets_who_went_though_others_have_the_page(
    in_redis: Callable[..., RedisDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = in_redis(ttl=0.2)
    directory.beat(A)
    directory.tell("a", [News("k", 1, 1.0)])
    time.sleep(0.3)
    directory.beat(B)
    directory.tell("b", [News("k", 1, 1.0)])
    assert found(directory, "k") == {"k": ["b"]}
    (page,) = directory._pages(["k"]).values()
    assert {"by:a", "by:b"} <= set(page)
    monkeypatch.setattr("musiva.store.redis.PAGE_TTL", -60)
    assert found(directory, "k") == {"k": ["b"]}
    (page,) = directory._pages(["k"]).values()
    assert "by:a" not in page
    assert "by:b" in page
    directory.close()


def test_clusters_with_other_prefixes_have_nothing_in_common(
    in_redis: Callable[..., RedisDirectory],
) -> None:
    ours, theirs = in_redis(prefix="ours"), in_redis(prefix="theirs")
    ours.beat(A)
    ours.tell("a", [News("k", 1, 1.0)])
    assert theirs.find("k", 1) == []
    assert found(ours, "k") == {"k": ["a"]}


def test_a_redis_that_is_not_there() -> None:
    pytest.importorskip("redis")
    with pytest.raises(Unavailable, match=r"redis://127\.0\.0\.1:1 cannot be asked"):
        RedisDirectory("redis://:hidden@127.0.0.1:1").find("k", 1)
    with pytest.raises(InvalidInput, match="directory") as caught:
        RedisDirectory("http://:hidden@host")
    assert "hidden" not in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    directory = RemoteDirectory("127.0.0.1:1", b"secret", 1.0)
    with pytest.raises(Unavailable):
        directory.find("k", 1)
