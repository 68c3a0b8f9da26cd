"""Bench `cluster-cache`: requests that repeat others, or differ in one thing, land on hosts that
did not make those. How many of the evaluations that some other host has made are found, what that
saves, and that no picture is ever another one, whatever becomes of pages, hosts and links.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from musiva.comm import Service
from musiva.engine import (
    InlineExecutor,
    Intake,
    Pipeline,
    Scheduler,
    StepLoop,
    load_pipeline,
    shipped_models,
)
from musiva.perf.benches.base import Findings
from musiva.perf.proxy import Proxy
from musiva.store import Cache, Embedded, Page, answering

__all__ = ["KEYS", "measure"]

KEYS = ("remote_hit_rate", "wrong_pictures")
RUNS, QUICK_RUNS = 10_000, 240
# Of the runs, those before anything goes wrong; the rate of hits is theirs.
CALM = 0.2
HOSTS = 4
SECRET = b"cluster-cache"
# What a host keeps before anything goes wrong, and then.
BYTES, FEW_BYTES = 256 << 20, 2 << 20
# One run in so many has a fault before it.
FAULTS_EVERY = 5
# One in so many runs is of something that nobody has asked for.
NEW_EVERY = 6
PROMPTS = ("a red fox", "a green apple", "a snail", "the moon", "a cup of tea")
CHOICES: Mapping[str, Sequence[object]] = {
    "prompt": PROMPTS,
    "seed": (1, 2, 3),
    "size": ((64, 64), (72, 64), (64, 80)),
    "steps": (4, 6),
    "guidance": (1.0, 4.0, 5.0),
    "policy": (
        "never",
        "interval:interval=2,warmup=2",
        "ras:warmup=2,interval=3,share=0.5",
        "adaptive",
        "first_block:threshold=0.1",
    ),
    "sampler": ("euler", "dpm++2m"),
}
Kind = tuple[tuple[str, object], ...]


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    # Two versions of a model have one directory: their pages must never meet.
    versions = [load_pipeline("default"), load_pipeline("default")]
    with torch.no_grad():
        next(iter(versions[1].denoiser.parameters()))[:1].mul_(1.01)
    runs, draw = QUICK_RUNS if quick else RUNS, random.Random(11)
    # First, as long as nothing else goes on.
    speed = _speed(versions[0], quick=quick)
    with _cluster(versions, BYTES) as cluster:
        study, calm = Study(cluster, versions, draw), {}
        for i in range(runs):
            if i == int(CALM * runs):
                calm = study.told()
                study.become_small()
            if i > CALM * runs and i % FAULTS_EVERY == 0:
                study.hurt()
            study.run()
            if (i + 1) % (runs // 10) == 0:
                said = f"{study.wrong} wrong, {study.found} of {study.known} found"
                print(f"{i + 1}/{runs} runs: {said}", file=sys.stderr)
        for host in cluster.hosts:
            host.cache.check_integrity()
    findings.gate.check("runs", runs, holds=study.wrong == 0)
    findings.figures["remote_hit_rate"] = calm.get("rate")
    findings.figures["wrong_pictures"] = float(study.wrong)
    findings.rows += [{"what": "calm", **calm}, {"what": "all", **study.told()}]
    findings.rows.append({"what": "faults", **study.faults})
    findings.rows.append({"what": "seconds of a picture", **speed})
    return findings


class Watched(Cache):
    """Notes what was asked for that somebody else had published, and whether it was found."""

    def __init__(self, config: Cache.Config, published: set[str]) -> None:
        super().__init__(config)
        self.published, self.own = published, set[str]()
        self.known = self.found = 0

    def find(self, key: str, saves: float | None = None, *, near: bool = False) -> Page | None:
        page = super().find(key, saves, near=near)
        if key in self.published and key not in self.own:
            self.known += 1
            self.found += page is not None
            self.own.add(key)
        return page

    def publish(self, key: str, page: Page) -> None:
        if key in self.published and key not in self.own:
            # It was not asked for any more, or came too late.
            self.known += 1
        super().publish(key, page)
        self.published.add(key)
        self.own.add(key)


class Host:
    """A worker, stepped by hand."""

    def __init__(self, pipeline: Pipeline, config: Cache.Config, published: set[str]) -> None:
        self.pipeline, self.config, self.published = pipeline, config, published
        self.open()

    def open(self) -> None:
        """With nothing in its memory."""
        self.cache = Watched(self.config, self.published)
        self.executor = InlineExecutor(self.pipeline, cache=self.cache)
        scheduler = Scheduler.Config().build()
        self.loop = StepLoop(self.executor, scheduler)
        self.front = Intake(self.pipeline, tariff=scheduler.tariff)

    def picture(self, kind: Kind) -> np.ndarray:
        """What it makes of a request."""
        return made(self.loop, self.front, kind)


def made(loop: StepLoop, front: Intake, kind: Kind) -> np.ndarray:
    request = front.request(**dict(kind))  # type: ignore[arg-type]
    loop.submit(
        request,
        policies=front.policies_of(request),
        trip=front.trip_of(request),
        rows=front.rows_of(request),
    )
    picture = None
    while (events := loop.step()) is not None:
        for event in events:
            if event.error is not None:
                raise event.error
            picture = event.picture if event.kind == "picture" else picture
    return np.asarray(picture)


@dataclass
class Cluster:
    hosts: list[Host]
    proxy: Proxy


@contextmanager
def _cluster(versions: Sequence[Pipeline], num_bytes: int) -> Iterator[Cluster]:
    """Hosts of alternating versions, each with a memory of its own, and a directory that they reach
    through a proxy.
    """
    directory = Embedded()
    service = Service(answering(directory), SECRET, "127.0.0.1")
    proxy = Proxy(service.address, seconds=0.02)
    config = Cache.Config(
        memory_bytes=num_bytes, directory=proxy.address, secret=SECRET, timeout=1.0
    )
    published: set[str] = set()
    hosts = [Host(versions[i % len(versions)], config, published) for i in range(HOSTS)]
    try:
        yield Cluster(hosts, proxy)
        directory.check_integrity()
    finally:
        proxy.mode = "pass"
        for host in hosts:
            host.cache.close()
        proxy.close()
        service.close()


@dataclass
class Study:
    """Requests that repeat others or differ from them in one thing, each on a host that made none
    like it. wrong: pictures that are others than without a cache.
    """

    cluster: Cluster
    versions: Sequence[Pipeline]
    draw: random.Random
    wrong: int = 0
    runs: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    asked: list[Kind] = field(default_factory=list)
    expected: dict[tuple[int, Kind], np.ndarray] = field(default_factory=dict)
    by: dict[Kind, set[int]] = field(default_factory=dict)
    # Of hosts that are no more.
    gone: list[Watched] = field(default_factory=list)

    @property
    def known(self) -> int:
        """Evaluations and prompts that were asked for on a host that never had them, and that
        another one had made.
        """
        return sum(cache.known for cache in self._caches())

    @property
    def found(self) -> int:
        return sum(cache.found for cache in self._caches())

    def told(self) -> dict[str, float]:
        figures = [cache.figures() for cache in self._caches()]
        return {
            "runs": self.runs,
            "rate": self.found / max(self.known, 1),
            "known": self.known,
            "hits": sum(one.hits for one in figures),
            "remote_hits": sum(one.remote_hits for one in figures),
            "misses": sum(one.misses for one in figures),
            "late": sum(one.late for one in figures),
            "declined": sum(one.declined for one in figures),
            "evictions": sum(one.evictions for one in figures),
            "outages": sum(one.outages for one in figures),
            "fetched_bytes": sum(one.fetched_bytes for one in figures),
        }

    def run(self) -> None:
        kind = self._drawn()
        number = self._elsewhere(kind)
        host = self.cluster.hosts[number]
        picture = host.picture(kind)
        host.cache.flush(1.0)
        self.by.setdefault(kind, set()).add(number)
        self.asked.append(kind)
        self.runs += 1
        self.wrong += not np.array_equal(picture, self._expected(host, kind))

    def hurt(self) -> None:
        """Something goes wrong."""
        what = self.draw.choice(tuple(FAULTS))
        FAULTS[what](self)
        self.faults[what] = self.faults.get(what, 0) + 1

    def become_small(self) -> None:
        """Let all hosts have room for little, so that pages go all the time."""
        for host in self.cluster.hosts:
            host.config = replace(host.config, memory_bytes=FEW_BYTES)
            self.reopen(host)

    def reopen(self, host: Host) -> None:
        """A host comes back with nothing."""
        self.gone.append(host.cache)
        host.cache.close()
        host.open()

    def _drawn(self) -> Kind:
        """One of those that were asked for, that or with one thing changed; or a new one."""
        if not self.asked or self.draw.randrange(NEW_EVERY) == 0:
            return tuple((name, self.draw.choice(among)) for name, among in CHOICES.items())
        kind = self.draw.choice(self.asked)
        if self.draw.random() < 0.5:
            return kind
        name = self.draw.choice(tuple(CHOICES))
        other = self.draw.choice(CHOICES[name])
        return tuple((n, other if n == name else value) for n, value in kind)

    def _elsewhere(self, kind: Kind) -> int:
        """A host that has not made this, if there is one."""
        every = range(len(self.cluster.hosts))
        others = [i for i in every if i not in self.by.get(kind, ())]
        return self.draw.choice(others or list(every))

    def _expected(self, host: Host, kind: Kind) -> np.ndarray:
        version = self.versions.index(host.pipeline)
        if (version, kind) not in self.expected:
            self.expected[version, kind] = _alone(host.pipeline, kind)
        return self.expected[version, kind]

    def _caches(self) -> list[Watched]:
        return [*self.gone, *(host.cache for host in self.cluster.hosts)]


def _alone(pipeline: Pipeline, kind: Kind) -> np.ndarray:
    """Without a cache."""
    scheduler = Scheduler.Config().build()
    loop = StepLoop(InlineExecutor(pipeline), scheduler)
    return made(loop, Intake(pipeline, tariff=scheduler.tariff), kind)


def _turn(mode: str, study: Study) -> None:
    """What becomes of what is said to the directory, until the next fault of a link."""
    study.cluster.proxy.mode = mode  # type: ignore[assignment]


def _lose_host(study: Study) -> None:
    study.reopen(study.draw.choice(study.cluster.hosts))


def _lose_pages(study: Study) -> None:
    """Some pages are gone that the directory still knows."""
    cache = study.draw.choice(study.cluster.hosts).cache
    with cache._lock:
        for key in cache._memory.keys:
            if study.draw.random() < 0.5:
                cache._memory.drop(key)


FAULTS = {
    "directory slow": partial(_turn, "delay"),
    "directory silent": partial(_turn, "stall"),
    "directory gone": partial(_turn, "cut"),
    "directory back": partial(_turn, "pass"),
    "host lost": _lose_host,
    "pages lost": _lose_pages,
}


def _speed(pipeline: Pipeline, *, quick: bool) -> dict[str, float]:
    """Of a dense picture that nobody has made, and of one that another host has."""
    count = 4 if quick else 40
    with _cluster([pipeline], BYTES) as cluster:
        first, second, *_ = cluster.hosts
        times: dict[str, list[float]] = {"computed": [], "found": [], "alone": []}
        for i in range(count):
            kind: Kind = (("prompt", PROMPTS[0]), ("seed", 100 + i), ("size", (96, 96)))
            start = time.perf_counter()
            _alone(pipeline, kind)
            times["alone"].append(time.perf_counter() - start)
            for what, host in (("computed", first), ("found", second)):
                start = time.perf_counter()
                host.picture(kind)
                times[what].append(time.perf_counter() - start)
                host.cache.flush(5.0)
    medians = {what: statistics.median(several) for what, several in times.items()}
    return {**medians, "found_over_alone": medians["found"] / medians["alone"]}
