"""Published pages of other hosts: looked up in the directory, fetched by threads, and served."""

from __future__ import annotations

import logging
import platform
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from dataclasses import dataclass, field, replace

from musiva.comm import Link, LinkFigures, Meter, Service, address_of
from musiva.core.errors import Unavailable
from musiva.store.directory import Directory, Found, Holder, News
from musiva.store.haul import Haul
from musiva.store.page import Damaged, Page, is_name, packed, unpacked

__all__ = ["Remote"]

log = logging.getLogger(__name__)
# Pages that are looked up, and fetched, together with the first.
DEPTH = 16
FETCHERS = 4
# Connections that are kept; those of who went are among them until they are the oldest.
MOST_LINKS = 64
# Seconds between two signs of life, and until all pages are told of again.
BEAT, RETOLD = 4.0, 1200.0
TOLD_AT_ONCE = 512


@dataclass(slots=True)
class Road:
    """To another host, whoever asks whom there. haul: what a page takes from it. meter: of pages
    both ways.
    """

    haul: Haul = field(default_factory=lambda: Haul(2e-3, 5e-9))
    meter: Meter = field(default_factory=Meter)


class Remote:
    """One holder among those of a cluster. Thread-safe."""

    def __init__(
        self,
        directory: Directory,
        *,
        secret: bytes,
        listen: str,
        timeout: float,
        place: str | None,
        here: Callable[[str], Page | None],
        arrived: Callable[[str, Page, float], None],
        spread: Callable[[str, Page, bytearray], None],
    ) -> None:
        """listen: an address of this machine that others reach. timeout: seconds that a page may
        take. place: of a folder that others of this host have too. here: a page of this process or
        host. Of those that come arrived is told at once, with the seconds that it takes to have
        them again, and spread when nobody waits for them any more. Raises Unavailable.
        """
        self._counts: Counter[str] = Counter()
        self._directory, self._secret, self._timeout = directory, secret, timeout
        self._here, self._arrived, self._spread = here, arrived, spread
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._roads: dict[str, Road] = {}
        self._coming: dict[str, Future[Page | None]] = {}
        self._out = self._closed = False
        self._beaten, self._told = float("-inf"), float("-inf")
        self._service = Service(self._answer, secret, listen, lambda host: self._road(host).meter)
        name = uuid.uuid4().hex
        # Other hosts may have folders of that name.
        place = f"{platform.node()} {place or name}"
        self.holder = Holder(name, self._service.address, place)
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="musiva-cache-fetches")

    def close(self) -> None:
        with self._lock:
            self._closed = True
        with suppress(Unavailable):
            self._directory.leave(self.holder.name)
        self._directory.close()
        self._service.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for link in list(self._links.values()):
            link.close()

    def check(self) -> None:
        """Raise Unavailable where the directory cannot be asked."""
        self._directory.find("", 1)

    @property
    def counts(self) -> Counter[str]:
        """late: pages that came too late; declined: that would have taken longer than computing
        them; damaged; outages: of the directory; fetched_bytes, served_bytes.
        """
        with self._lock:
            return self._counts.copy()

    @property
    def links(self) -> list[LinkFigures]:
        """To each host that pages came from, or went to."""
        with self._lock:
            roads = sorted(self._roads.items())
        return [_figures(host, road) for host, road in roads]

    def fetched(self, key: str, saves: float) -> Page | None:
        """The page, if somebody has it and it is here in as many seconds. Where it is not, it may
        arrive later.
        """
        with self._lock:
            coming = self._coming.get(key)
            if coming is None:
                if self._closed or self._out:
                    return None
                coming = self._coming[key] = Future()
                self._pool.submit(self._seek, key, coming)
        try:
            return coming.result(min(saves, self._timeout))
        except TookTooLong:
            self._count("late")
            return None

    def tell(self, news: Sequence[News]) -> None:
        """All others what is here."""
        if news and not self._out:
            self._try(lambda: self._directory.tell(self.holder.name, news))

    def forget(self, keys: Sequence[str]) -> None:
        """That these are here no more."""
        if keys and not self._out:
            self._try(lambda: self._directory.forget(self.holder.name, keys))

    def beat(self, every: Callable[[], Sequence[News]]) -> None:
        """Give a sign of life, where one is due, and tell of every page where that was lost."""
        now = time.monotonic()
        if now - self._beaten < BEAT:
            return
        self._beaten = now

        def ask() -> None:
            known = self._directory.beat(self.holder)
            if not known or now - self._told >= RETOLD:
                news = every()
                for first in range(0, len(news), TOLD_AT_ONCE):
                    part = news[first : first + TOLD_AT_ONCE]
                    self._directory.tell(self.holder.name, part)
                self._told = now

        self._try(ask)

    def _seek(self, key: str, first: Future[Page | None]) -> None:
        """In a thread: ask who has it, and fetch it and what comes after it."""
        waiting: list[tuple[Found, Future[Page | None]]] = []
        try:
            found: list[Found] = []
            self._try(lambda: found.extend(self._directory.find(key, DEPTH)))
            if found:
                waiting.append((found[0], first))
            with self._lock:
                for one in found[1:]:
                    known = one.key in self._coming or not is_name(one.key)
                    if not known and not self._closed:
                        future = self._coming[one.key] = Future()
                        waiting.append((one, future))
            while waiting:
                one, future = waiting[0]
                page, whole = self._here(one.key), None
                if page is None:
                    page, whole = self._fetch(one)
                waiting.pop(0)
                self._came(one.key, future, page)
                if page is not None and whole is not None:
                    self._spread(one.key, page, whole)
        except Exception:
            log.exception("a page could not be fetched")
        finally:
            self._came(key, first, None)
            for one, future in waiting:
                self._came(one.key, future, None)

    def _came(self, key: str, future: Future[Page | None], page: Page | None) -> None:
        """It is here, or will not be. Nothing if that was said."""
        with self._lock:
            if self._coming.get(key) is not future:
                return
            del self._coming[key]
        future.set_result(page)

    def _fetch(self, one: Found) -> tuple[Page | None, bytearray | None]:
        """From the nearest of its holders that has it, also as bytes."""
        others = [holder for holder in one.holders if holder.name != self.holder.name]
        roads = {holder.name: self._road(address_of(holder.address)[0]) for holder in others}
        for holder in sorted(others, key=lambda h: roads[h.name].haul.predicted(one.num_bytes)):
            road = roads[holder.name]
            if road.haul.predicted(one.num_bytes) >= one.saves:
                self._count("declined")
                return None, None
            start = time.perf_counter()
            try:
                whole = self._link(holder.address).ask(one.key.encode())
                page = unpacked(whole) if whole else None
            except Unavailable as error:
                road.haul.failed(one.num_bytes, time.perf_counter() - start)
                log.info("a page could not be fetched: %s", error)
            except Damaged as error:
                self._count("damaged")
                log.warning("%s sent what is no page: %s", holder.address, error)
            else:
                if page is not None:
                    seconds = time.perf_counter() - start
                    road.haul.saw(len(whole), seconds)
                    road.meter.saw(received=len(whole), seconds=seconds)
                    self._count("fetched_bytes", len(whole))
                    self._arrived(one.key, page, road.haul.predicted(len(whole)))
                    return page, whole
                # It went, and others of its host may not know that it was told of.
                name, key = holder.name, one.key
                self._try(lambda name=name, key=key: self._directory.forget(name, [key]))
        return None, None

    def _road(self, host: str) -> Road:
        with self._lock:
            return self._roads.setdefault(host, Road())

    def _link(self, address: str) -> Link:
        oldest = None
        with self._lock:
            link = self._links.pop(address, None) or Link(address, self._secret, self._timeout)
            self._links[address] = link
            if len(self._links) > MOST_LINKS:
                oldest = self._links.pop(next(iter(self._links)))
        if oldest is not None:
            # Waits for its answer, if it is being asked.
            oldest.close()
        return link

    def _answer(self, question: bytearray) -> bytes:
        """The page that another host wants, as bytes; none where it is not here."""
        key = question.decode()
        page = self._here(key) if is_name(key) else None
        whole = b"" if page is None else bytes(packed(page))
        self._count("served_bytes", len(whole))
        return whole

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self._counts[what] += by

    def _try(self, ask: Callable[[], object]) -> None:
        """Ask the directory; where it does not answer, all go on without it."""
        try:
            ask()
        except Unavailable as error:
            self._count("outages")
            if not self._out:
                log.warning("%s; pages of other hosts are not found until it can be", error)
            # What was not told since is told when it can be asked again.
            self._out, self._told = True, float("-inf")
        else:
            if self._out:
                log.info("the directory can be asked again")
            self._out = False


def _figures(host: str, road: Road) -> LinkFigures:
    found = road.meter.figures("host", host)
    if not road.haul.known:
        return found
    first, each = road.haul.rates
    return replace(found, latency=first, bytes_per_second=1.0 / each)
