"""The cache of a cluster: published pages, found wherever they are.

A page is what was computed once and is exactly what others would compute: what a model says of a
latent, the rows of a prompt. Its name tells all that it was made from, so it never changes, two
pages of one name are the same, and whoever finds none computes.

Tiers, nearest first: the memory of this process, a folder in the shared memory of the host, one on
a disk, and other hosts, which the directory knows. Asking never takes longer than computing would:
what is far is fetched by other threads, and what comes after it on the way before it is asked for.
"""

from __future__ import annotations

import logging
import platform
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from musiva.comm import LinkFigures
from musiva.core.errors import InvalidInput
from musiva.store.directory import Directory, Holder, News, RemoteDirectory
from musiva.store.folder import Folder
from musiva.store.haul import Haul
from musiva.store.memory import Memory
from musiva.store.page import Page, packed
from musiva.store.redis import RedisDirectory
from musiva.store.remote import Remote

__all__ = ["Cache", "CacheFigures", "directory_of"]

log = logging.getLogger(__name__)
# Seconds that a page is waited for of which nobody knows what it saves.
PATIENCE = 1.0
# Bytes of pages that wait for being written; more are not published.
PENDING_BYTES = 256 << 20
# Seconds between two looks at whether a sign of life is due.
LOOK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFigures:
    """What a cache has done since it was built. memory_budget_bytes, memory_used_bytes: of its own;
    folders: bytes that are used of each, and may be, by host and path, since several caches have
    the same. pages: in memory. hits: by tier. misses: also those for which it
    would have taken too long. late: of these, pages that came too late. declined: that were known
    and would have taken longer than computing them. published: pages; dropped: those that were not,
    since too many waited. damaged: that were found to be no pages. outages: questions that the
    directory did not answer. fetched_bytes, served_bytes: from and to other hosts. saved: seconds
    that hits saved.
    """

    memory_budget_bytes: int = 0
    memory_used_bytes: int = 0
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    pages: int = 0
    memory_hits: int = 0
    shared_hits: int = 0
    disk_hits: int = 0
    remote_hits: int = 0
    misses: int = 0
    late: int = 0
    declined: int = 0
    published: int = 0
    dropped: int = 0
    evictions: int = 0
    failures: int = 0
    damaged: int = 0
    outages: int = 0
    fetched_bytes: int = 0
    served_bytes: int = 0
    saved: float = 0.0

    @property
    def used_bytes(self) -> int:
        return self.memory_used_bytes + sum(used for used, _ in self.folders.values())

    @property
    def budget_bytes(self) -> int:
        return self.memory_budget_bytes + sum(budget for _, budget in self.folders.values())

    def done(self) -> CacheFigures:
        """What it has done, as of a cache that is no more."""
        return replace(self, memory_budget_bytes=0, memory_used_bytes=0, folders={}, pages=0)

    @property
    def hits(self) -> int:
        return self.memory_hits + self.shared_hits + self.disk_hits + self.remote_hits

    @staticmethod
    def total(several: Sequence[CacheFigures]) -> CacheFigures:
        """Of several caches together, which may have folders in common."""
        names = [one.name for one in fields(CacheFigures) if one.name != "folders"]
        folders = {at: told for one in several for at, told in one.folders.items()}
        sums = {n: sum(getattr(one, n) for one in several) for n in names}
        return CacheFigures(folders=folders, **sums)


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    folder: Folder
    haul: Haul


class Cache:
    """Thread-safe. Close it when nobody uses it any more. Where its directory cannot be asked it
    goes on without.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """memory_bytes: of this process. shared: name of a folder in the host's shared memory; None
        for none. shared_bytes: of all processes of the host together. disk: a folder that stays
        where everything else has ended; None for none. directory: where one is, HOST:PORT of ours
        or a url of Redis; None for a cache of this host alone. secret: that all of the cluster
        know. listen: an address of this machine that the others reach. timeout: seconds that a page
        of another host may take.

        Raises InvalidInput.
        """

        memory_bytes: int = 256 << 20
        shared: str | None = None
        shared_bytes: int = 1 << 30
        disk: Path | None = None
        disk_bytes: int = 16 << 30
        directory: str | None = None
        secret: bytes = field(default=b"", repr=False)
        listen: str = "127.0.0.1"
        timeout: float = 5.0

        def __post_init__(self) -> None:
            for name in ("memory_bytes", "shared_bytes", "disk_bytes"):
                if getattr(self, name) < 1:
                    raise InvalidInput(name, getattr(self, name), "a whole number of at least 1")
            if not self.timeout > 0.0:
                raise InvalidInput("timeout", self.timeout, "seconds above 0")
            if self.listen in ("", "0.0.0.0", "::"):
                allowed = "the one address of this machine at which the others reach it"
                raise InvalidInput("listen", self.listen or "(none)", allowed)
            if self.directory is not None and not self.secret:
                raise InvalidInput("secret", "(none)", "one that all of the cluster know")

        def build(self) -> Cache:
            """Raises InvalidInput for the address of a directory, Unavailable for a folder or an
            address that cannot be had, and a directory that cannot be asked.
            """
            cache = Cache(self)
            try:
                cache.check()
            except BaseException:
                cache.close()
                raise
            return cache

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._memory = Memory(config.memory_bytes)
        self._counts: Counter[str] = Counter()
        self._saved = 0.0
        self._tiers: list[Tier] = []
        self._remote: Remote | None = None
        self._posts: queue.SimpleQueue[tuple[str, Page] | None] = queue.SimpleQueue()
        # Bytes that wait for being written.
        self._pending = 0
        # What the directory is still to be told: pages that went from the memory, and that came.
        self._gone, self._news = set[str](), list[News]()
        self._written = threading.Condition(self._lock)
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="musiva-cache-writes", daemon=True)
        try:
            if config.shared is not None:
                shared = Folder.shared(config.shared, config.shared_bytes)
                self._tiers.append(Tier("shared", shared, Haul(1e-4, 5e-10)))
            if config.disk is not None:
                disk = Folder(config.disk, config.disk_bytes)
                self._tiers.append(Tier("disk", disk, Haul(1e-3, 2e-9)))
            if config.directory is not None:
                self._remote = Remote(
                    directory_of(config.directory, config.secret),
                    secret=config.secret,
                    listen=config.listen,
                    timeout=config.timeout,
                    place=config.shared,
                    here=self._here,
                    arrived=self._arrive,
                    spread=self._spread,
                )
        except BaseException:
            for tier in self._tiers:
                tier.folder.close()
            raise
        self._writer.start()

    def close(self) -> None:
        """What waits for being written is. May be repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._posts.put(None)
        self._writer.join()
        if self._remote is not None:
            self._remote.close()
        for tier in self._tiers:
            tier.folder.close()

    def check(self) -> None:
        """Raise Unavailable where the directory cannot be asked, or wants another secret."""
        if self._remote is not None:
            self._remote.check()

    @property
    def holder(self) -> Holder | None:
        """What the directory knows it as; None without one."""
        return None if self._remote is None else self._remote.holder

    def find(self, key: str, saves: float | None = None, *, near: bool = False) -> Page | None:
        """The page of that name, if having it takes less than the seconds that it saves; None: that
        nobody knows how many these are. near: only if it is in this memory. Its tensors are on the
        host, and must not be changed.
        """
        saves = PATIENCE if saves is None else saves
        with self._lock:
            page = self._memory.get(key)
            if page is not None:
                return self._hit("memory", page)
            if near:
                self._counts["misses"] += 1
                return None
        for tier in self._tiers:
            if (page := self._read(key, tier, saves)) is not None:
                with self._lock:
                    self._remember(key, page, tier.haul.predicted(page.num_bytes))
                    return self._hit(tier.name, page)
        page = None if self._remote is None else self._remote.fetched(key, saves)
        with self._lock:
            if page is not None:
                return self._hit("remote", page)
            self._counts["misses"] += 1
            return None

    def publish(self, key: str, page: Page) -> None:
        """Let everyone find a page, soon. Where too many wait, it is not published."""
        with self._lock:
            if self._closed or key in self._memory:
                return
            if self._pending + page.num_bytes > PENDING_BYTES:
                self._counts["dropped"] += 1
                return
            self._pending += page.num_bytes
        self._posts.put((key, page))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published so far is there for others; False if it is not."""
        with self._written:
            return self._written.wait_for(lambda: self._pending == 0, timeout)

    def figures(self) -> CacheFigures:
        with self._lock:
            folders = [tier.folder for tier in self._tiers]
            remote = self._remote.counts if self._remote is not None else Counter()
            count = self._counts + remote
            return CacheFigures(
                memory_budget_bytes=self._memory.budget_bytes,
                memory_used_bytes=self._memory.used_bytes,
                folders={
                    f"{platform.node()} {f.path}": (f.used_bytes, f.budget_bytes) for f in folders
                },
                pages=len(self._memory),
                memory_hits=count["memory"],
                shared_hits=count["shared"],
                disk_hits=count["disk"],
                remote_hits=count["remote"],
                misses=count["misses"],
                late=count["late"],
                declined=count["declined"],
                published=count["published"],
                dropped=count["dropped"],
                evictions=sum((self._memory.evictions, *(f.evictions for f in folders))),
                failures=sum(f.failures for f in folders),
                damaged=sum((count["damaged"], *(f.damaged for f in folders))),
                outages=count["outages"],
                fetched_bytes=count["fetched_bytes"],
                served_bytes=count["served_bytes"],
                saved=self._saved,
            )

    @property
    def links(self) -> Sequence[LinkFigures]:
        """To other hosts."""
        return () if self._remote is None else self._remote.links

    def check_integrity(self) -> None:
        """Raise AssertionError where what is counted is not what is there."""
        with self._lock:
            self._memory.check_integrity()
            assert self._pending >= 0, f"{self._pending} bytes wait"

    def _hit(self, tier: str, page: Page) -> Page:
        self._counts[tier] += 1
        self._saved += page.saves
        return page

    def _remember(self, key: str, page: Page, again: float) -> None:
        """In this memory. again: seconds that having it again would take, unless it is computed."""
        self._gone.discard(key)
        self._gone |= set(self._memory.put(key, page, min(page.saves, again)))

    def _read(self, key: str, tier: Tier, saves: float) -> Page | None:
        """Of a folder, where that pays."""
        num_bytes = tier.folder.num_bytes(key)
        if num_bytes is None:
            return None
        if tier.haul.predicted(num_bytes) >= saves:
            with self._lock:
                self._counts["declined"] += 1
            return None
        start = time.perf_counter()
        page = tier.folder.get(key)
        if page is not None:
            tier.haul.saw(num_bytes, time.perf_counter() - start)
        return page

    def _here(self, key: str) -> Page | None:
        """A page of this process or this host, for others."""
        with self._lock:
            page = self._memory.peek(key)
        for tier in self._tiers:
            page = page or tier.folder.get(key)
        return page

    def _arrive(self, key: str, page: Page, again: float) -> None:
        """A page of another host."""
        with self._lock:
            self._remember(key, page, again)

    def _spread(self, key: str, page: Page, whole: bytearray) -> None:
        """It is for all of this host, which others may have it of from now on."""
        for tier in self._tiers[:1]:
            tier.folder.write(key, whole)
        with self._lock:
            self._news.append(_news(key, page))

    def _write(self) -> None:
        """The thread that publishes, and gives signs of life."""
        ended = False
        while not ended:
            posts: list[tuple[str, Page]] = []
            wait = None if self._remote is None else LOOK
            with suppress(queue.Empty):
                while (post := self._posts.get(timeout=wait)) is not None:
                    posts.append(post)
                    wait = 0.0
                ended = True
            try:
                self._publish(posts)
            except Exception:
                # Whatever it is, it must not be the last that is published.
                log.exception("pages could not be published")
            finally:
                with self._written:
                    self._pending -= sum(page.num_bytes for _, page in posts)
                    self._written.notify_all()

    def _publish(self, posts: Sequence[tuple[str, Page]]) -> None:
        remote = self._remote
        if remote is not None:
            remote.beat(self._all)
        news = [_news(key, page) for key, page in posts if self._place(key, page)]
        with self._lock:
            gone, self._gone = self._gone, set()
            came, self._news = self._news, []
            gone |= {k for t in self._tiers for k in t.folder.went() if k not in self._memory}
        if remote is not None:
            remote.tell([*came, *news])
            remote.forget([k for k in gone if not any(k in t.folder for t in self._tiers)])

    def _place(self, key: str, given: Page) -> bool:
        """Into the tiers of this host; whether it is in any."""
        # A copy: what it is cut from may be far larger.
        tensors = {n: x.detach().to("cpu", copy=True) for n, x in given.tensors.items()}
        page, whole = replace(given, tensors=tensors), None
        with self._lock:
            self._remember(key, page, page.saves)
            is_here = key in self._memory
        for tier in self._tiers:
            # Nobody would read what takes longer to read than to compute.
            if tier.haul.predicted(page.num_bytes) >= page.saves or key in tier.folder:
                continue
            whole = packed(page) if whole is None else whole
            is_here |= tier.folder.write(key, whole)
        with self._lock:
            self._counts["published"] += is_here
        return is_here

    def _all(self) -> list[News]:
        """All pages that others can have of this process, or the ones that were wanted last."""
        told = {one.key: one for tier in self._tiers for one in tier.folder.news()}
        with self._lock:
            pages = {key: self._memory.peek(key) for key in self._memory.keys}
        told |= {key: _news(key, page) for key, page in pages.items() if page}
        return list(told.values())


def _news(key: str, page: Page) -> News:
    return News(key, page.num_bytes, page.saves, page.after)


def directory_of(where: str, secret: bytes) -> Directory:
    """See `Cache.Config`. Raises InvalidInput for an address, Unavailable without Redis' client."""
    if "://" in where:
        return RedisDirectory(where)
    return RemoteDirectory(where, secret)
