"""Caches of several hosts that find each other's pages."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from musiva.comm import Service
from musiva.core.errors import InvalidInput, Unavailable
from musiva.perf.proxy import Proxy
from musiva.store import Cache, CacheFigures, Embedded, Page, answering

SECRET = b"known to all"


@pytest.fixture(autouse=True)
def _signs_of_life_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musiva.store.remote.BEAT", 0.2)
    monkeypatch.setattr("musiva.store.cache.LOOK", 0.05)


def page(number: int, saves: float = 1.0, after: str | None = None) -> Page:
    return Page({"x": torch.full((64,), float(number))}, saves, after)


def number_of(found: Page | None) -> float | None:
    return None if found is None else float(found.tensors["x"][0])


class Cluster:
    """A directory, and caches that know it through a proxy."""

    def __init__(self) -> None:
        self.directory = Embedded()
        self._service = Service(answering(self.directory), SECRET, "127.0.0.1")
        self.proxy = Proxy(self._service.address)
        self._caches: list[Cache] = []

    def join(self, **options: object) -> Cache:
        config = Cache.Config(directory=self.proxy.address, secret=SECRET, **options)  # type: ignore[arg-type]
        self._caches.append(config.build())
        return self._caches[-1]

    def end(self) -> None:
        self.proxy.mode = "pass"
        for one in self._caches:
            one.close()
            one.check_integrity()
        self.proxy.close()
        self._service.close()
        self.directory.check_integrity()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.end()


def publish(cache: Cache, *pages: tuple[str, Page]) -> None:
    for key, one in pages:
        cache.publish(key, one)
    assert cache.flush(10.0)


def until(truth: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pages_are_found_wherever_they_are(cluster: Cluster) -> None:
    first, second, third = cluster.join(), cluster.join(), cluster.join()
    publish(first, ("k", page(1)))
    assert number_of(first.find("k")) == 1
    assert number_of(second.find("k")) == 1
    assert number_of(second.find("k")) == 1
    told = second.figures()
    assert (told.remote_hits, told.memory_hits, told.misses) == (1, 1, 0)
    assert told.saved == 2.0
    assert told.fetched_bytes == first.figures().served_bytes > 256
    ((sent,), (received,)) = first.links, second.links
    assert sent.sent_bytes == received.received_bytes == told.fetched_bytes
    assert (received.kind, received.other, received.transfers) == ("host", "127.0.0.1", 1)
    assert received.latency is not None
    assert received.bytes_per_second is not None
    assert sent.latency is None, "nothing came from there"
    # Both have it now, and it is enough that one is there.
    until(lambda: len(cluster.directory.find("k", 1)[0].holders) == 2)
    first.close()
    assert number_of(third.find("k")) == 1
    assert third.find("nobody's") is None
    assert third.figures().misses == 1


def test_what_comes_after_is_fetched_on_the_way(cluster: Cluster) -> None:
    first, second = cluster.join(), cluster.join()
    names = [f"k{i}" for i in range(8)]
    pages = [(n, page(i, after=names[i - 1] if i else None)) for i, n in enumerate(names)]
    publish(first, *pages)
    assert number_of(second.find("k0")) == 0
    until(lambda: second.figures().pages == 8)
    assert [number_of(second.find(name)) for name in names[1:]] == list(range(1, 8))
    told = second.figures()
    assert (told.remote_hits, told.memory_hits) == (1, 7)


def test_what_takes_longer_than_computing_is_not_fetched(cluster: Cluster) -> None:
    first, second = cluster.join(), cluster.join()
    publish(first, ("cheap", page(1, saves=1e-6)))
    assert second.find("cheap", 1e-6) is None
    until(lambda: second.figures().declined == 1)
    assert second.figures().fetched_bytes == 0


def test_the_nearest_host_that_has_it_is_asked(cluster: Cluster) -> None:
    near, far, asks = cluster.join(), cluster.join(listen="127.0.0.2"), cluster.join()
    for i, one in enumerate((far, near)):
        publish(one, (f"only{i}", page(i)))
    assert number_of(asks.find("only0")) == 0
    assert number_of(asks.find("only1")) == 1
    remote = asks._remote
    assert remote is not None
    for _ in range(3):
        remote._roads["127.0.0.1"].haul.failed(1 << 10, 5.0)
    for one in (near, far):
        publish(one, ("both", page(7)))
    assert number_of(asks.find("both")) == 7
    got = {link.other: link.transfers for link in asks.links}
    assert got == {"127.0.0.1": 1, "127.0.0.2": 2}
    # And the other one is not worth the way.
    publish(near, ("near", page(8)))
    assert asks.find("near", 0.5) is None
    until(lambda: asks.figures().declined == 1)


def test_pages_of_a_folder_are_told_of_by_who_comes_later(cluster: Cluster, tmp_path: Path) -> None:
    """As of a server that starts again on its disk."""
    first = cluster.join(disk=tmp_path)
    publish(first, ("a", page(1)), ("b", page(2, after="a")))
    first.close()
    assert cluster.directory.find("a", 2) == []
    again, other = cluster.join(disk=tmp_path), cluster.join()
    until(lambda: [one.key for one in cluster.directory.find("a", 2)] == ["a", "b"])
    assert number_of(other.find("a")) == 1
    until(lambda: other.figures().pages == 2)
    assert again.figures().pages == 0


def test_a_folder_that_several_have_is_counted_once(tmp_path: Path) -> None:
    caches = [Cache.Config(memory_bytes=1000, disk=tmp_path).build() for _ in range(3)]
    publish(caches[0], ("k", page(1)))
    each = [one.figures() for one in caches]
    together = CacheFigures.total(each)
    assert together.budget_bytes == 3 * 1000 + Cache.Config().disk_bytes
    assert together.used_bytes < 2 * each[0].used_bytes
    assert together.done().budget_bytes == together.done().used_bytes == 0
    for one in caches:
        one.close()


def test_a_page_that_went_unseen_is_told_of_no_more(cluster: Cluster) -> None:
    """As where a process has let one go from the folder that others of its host have told of."""
    first, second = cluster.join(), cluster.join()
    publish(first, ("k", page(1)))
    first._memory.drop("k")
    assert second.find("k") is None
    until(lambda: not cluster.directory.find("k", 1))
    assert second.figures().fetched_bytes == 0


def test_connections_to_who_went_are_not_kept_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.store.remote.MOST_LINKS", 2)
    asks = cluster.join()
    for i in range(4):
        one = cluster.join()
        publish(one, (f"k{i}", page(i)))
        assert number_of(asks.find(f"k{i}")) == i
        one.close()
    remote = asks._remote
    assert remote is not None
    assert len(remote._links) == 2


def test_nobody_waits_for_longer_than_computing_takes(cluster: Cluster) -> None:
    first, second = cluster.join(), cluster.join()
    publish(first, ("k", page(1)))
    assert second.find("other") is None
    cluster.proxy.mode = "stall"
    start = time.monotonic()
    assert second.find("k", 0.1) is None
    assert time.monotonic() - start < 0.5
    assert second.figures().late == 1
    cluster.proxy.mode = "pass"
    # It arrives later, for the next one.
    until(lambda: second.figures().pages == 1)
    assert number_of(second.find("k", 0.1)) == 1


def test_a_page_that_its_holder_has_lost_is_computed(cluster: Cluster) -> None:
    first, second = cluster.join(), cluster.join()
    publish(first, ("k", page(1)))
    with first._lock:
        first._memory.drop("k")
    assert second.find("k") is None
    # The same of a holder that is not there any more, and could not say so.
    publish(first, ("l", page(2)))
    assert first._remote is not None
    first._remote._service.close()
    assert second.find("l") is None


def test_what_was_evicted_is_taken_back(cluster: Cluster) -> None:
    first = cluster.join(memory_bytes=1000)
    publish(first, *((f"k{i}", page(i, saves=1.0 + i)) for i in range(5)))
    first.publish("last", page(9, saves=99.0))
    assert first.flush(10.0)
    until(lambda: len(cluster.directory) == first.figures().pages == 3)


def test_the_service_goes_on_without_a_directory(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = cluster.join(), cluster.join()
    publish(first, ("k", page(1)))
    cluster.proxy.mode = "cut"
    publish(second, ("own", page(2)))
    until(lambda: second.figures().outages > 0)
    assert number_of(second.find("own")) == 2
    start = time.monotonic()
    for i in range(20):
        assert second.find(f"nobody's {i}") is None
    assert time.monotonic() - start < 2.0
    assert caplog.text.count("pages of other hosts are not found") <= 2
    # Back again, each tells of all that it has.
    cluster.proxy.mode = "pass"
    until(lambda: number_of(second.find("k")) == 1, 20.0)
    until(lambda: number_of(first.find("own")) == 2, 20.0)


def test_a_directory_that_has_forgotten_all_is_told_again() -> None:
    one = Embedded()
    service = Service(answering(one), SECRET, "127.0.0.1")
    proxy = Proxy(service.address)
    config = Cache.Config(directory=proxy.address, secret=SECRET)
    cache = config.build()
    publish(cache, ("k", page(1)))
    assert len(one) == 1
    assert cache.holder is not None
    one.leave(cache.holder.name)
    assert len(one) == 0
    until(lambda: len(one) == 1, 20.0)
    cache.close()
    assert len(one) == 0
    proxy.close()
    service.close()


def test_hosts_share_their_memory(cluster: Cluster) -> None:
    name = f"musiva-test-cache-{os.getpid()}"
    first, second = cluster.join(shared=name), cluster.join(shared=name)
    publish(first, ("k", page(1)))
    assert number_of(second.find("k")) == 1
    assert second.figures().shared_hits == 1
    assert first.holder is not None
    assert second.holder is not None
    assert first.holder.place == second.holder.place != first.holder.name


def test_a_disk_stays(tmp_path: Path) -> None:
    for expected in (None, 1.0):
        cache = Cache.Config(disk=tmp_path).build()
        assert number_of(cache.find("k")) == expected
        cache.publish("k", page(1))
        cache.close()
    assert cache.figures().disk_hits == 1


def test_a_damaged_page_is_computed(tmp_path: Path) -> None:
    cache = Cache.Config(disk=tmp_path).build()
    cache.publish("k", page(1))
    cache.close()
    whole = bytearray((tmp_path / "k").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "k").write_bytes(whole)
    other = Cache.Config(disk=tmp_path).build()
    assert other.find("k") is None
    assert other.figures().damaged == 1
    other.close()


def test_too_many_pages_at_once_are_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musiva.store.cache.PENDING_BYTES", 1000)
    cache = Cache.Config().build()
    held, go = threading.Event(), threading.Event()

    def hold(posts: object) -> None:
        held.set()
        assert go.wait(10.0)
        publish_them(posts)

    publish_them = cache._publish  # type: ignore[assignment]
    cache._publish = hold  # type: ignore[method-assign]
    cache.publish("first", page(0))
    assert held.wait(10.0)
    for i in range(10):
        cache.publish(f"k{i}", page(i))
    go.set()
    assert cache.flush(10.0)
    told = cache.figures()
    assert (told.published, told.dropped) == (3, 8)
    cache.close()


@contextmanager
def nothing_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: not [t for t in set(threading.enumerate()) - before if t.is_alive()])


def test_a_closed_cache_leaves_nothing(tmp_path: Path) -> None:
    with nothing_left():
        cluster = Cluster()
        cache = cluster.join(disk=tmp_path)
        cache.find("k")
        cache.close()
        cache.close()
        assert cache.find("k") is None
        cache.publish("k", page(1))
        cluster.end()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"shared_bytes": -1}, "shared_bytes"),
        ({"timeout": 0.0}, "timeout"),
        ({"listen": "0.0.0.0"}, "listen: got '0.0.0.0'; allowed: the one address"),
        ({"directory": "127.0.0.1:1"}, "secret"),
    ],
)
def test_caches_that_cannot_be(options: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Cache.Config(**options)  # type: ignore[arg-type]


def test_a_directory_that_cannot_be() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer"):
        Cache.Config(directory="127.0.0.1:1", secret=SECRET).build()
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        Cache.Config(directory="nowhere", secret=SECRET).build()
    service = Service(answering(Embedded()), SECRET, "127.0.0.1")
    with pytest.raises(Unavailable):
        Cache.Config(directory=service.address, secret=b"another").build()
    with pytest.raises(Unavailable, match="nothing can be served"):
        Cache.Config(directory=service.address, secret=SECRET, listen="203.0.113.1").build()
    service.close()
