"""What bench `chaos` does, and to whom: workers, the directory of their cache, the link to it,
Redis, and actors of Ray, each where it is there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from shutil import which
from types import MappingProxyType

from musiva.comm import Service
from musiva.core.errors import Unavailable
from musiva.engine import Fleet, RayCluster, WorkerStanding
from musiva.engine.fleet.launcher import Launcher
from musiva.engine.pipeline import Pipeline
from musiva.perf.far_directory import FarDirectory
from musiva.perf.proxy import Mode, Proxy
from musiva.perf.redis_server import RedisServer, redis_binary
from musiva.perf.veth import Veth, can_veth
from musiva.store import Cache, Embedded, answering

__all__ = ["SILENCE", "Fault", "Scene", "Setting", "settings"]

Fault = Callable[[Fleet, WorkerStanding], None]
# Seconds without an answer after which a worker counts as hung.
SILENCE = 1.5
SECRET = b"chaos"
# Of each worker, and of all together: little, so that pages go all the time.
CACHE = {"memory_bytes": 4 << 20, "shared_bytes": 8 << 20, "secret": SECRET, "timeout": 1.0}


def _pid(one: WorkerStanding) -> int:
    assert one.pid is not None
    return one.pid


def _kill(fleet: Fleet, one: WorkerStanding) -> None:
    os.kill(_pid(one), signal.SIGKILL)


def _stop(fleet: Fleet, one: WorkerStanding) -> None:
    """It never answers again, by itself."""
    os.kill(_pid(one), signal.SIGSTOP)


def _stall(fleet: Fleet, one: WorkerStanding) -> None:
    """It is held up for less time than it takes to be given up."""
    os.kill(_pid(one), signal.SIGSTOP)
    time.sleep(SILENCE / 3)
    os.kill(_pid(one), signal.SIGCONT)


def _drain(fleet: Fleet, one: WorkerStanding) -> None:
    fleet.drain(one.number)


WORKERS: Mapping[str, Fault] = MappingProxyType(
    {"killed": _kill, "stopped": _stop, "stalled": _stall, "drained": _drain}
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What faults happen to. launcher: None for processes. mend: all that was done to what the
    workers share.
    """

    faults: Mapping[str, Fault] = field(default_factory=lambda: WORKERS)
    cache: Cache.Config | None = None
    launcher: Launcher | None = None
    mend: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class Setting:
    """share: of all faults. count: workers, of `degree` ranks."""

    share: float
    begun: Callable[[], AbstractContextManager[Scene]]
    count: int = 3
    degree: int = 1


def settings(pipeline: Pipeline) -> dict[str, Setting | None]:
    """By name; None for what is not there."""
    redis = redis_binary() is not None and find_spec("redis") is not None
    ray, veth = find_spec("ray") is not None, can_veth()
    left = 1.0 - 0.2 - 0.2 - 0.1 * veth - 0.15 * redis - 0.1 * ray
    return {
        "processes": Setting(left, _plain),
        "processes of two ranks": Setting(0.2, _plain, count=2, degree=2),
        "processes with a cache": Setting(0.2, _with_directory),
        "processes with a cache over a link": Setting(0.1, _over_a_link) if veth else None,
        "processes with a cache in Redis": Setting(0.15, _with_redis) if redis else None,
        "actors of Ray": Setting(0.1, _with_ray, count=2) if ray else None,
    }


@contextmanager
def _plain() -> Iterator[Scene]:
    yield Scene()


@contextmanager
def _with_directory() -> Iterator[Scene]:
    """A directory that can be slow, silent or gone."""
    service = Service(answering(Embedded()), SECRET, "127.0.0.1")
    proxy = Proxy(service.address)

    def turn(mode: Mode, *_: object) -> None:
        proxy.mode = mode

    faults = {
        "directory slow": partial(turn, "delay"),
        "directory silent": partial(turn, "stall"),
        "directory gone": partial(turn, "cut"),
        "directory back": partial(turn, "pass"),
    }
    cache = Cache.Config(directory=proxy.address, **CACHE)  # type: ignore[arg-type]
    try:
        yield Scene({**WORKERS, **faults}, cache, mend=partial(turn, "pass"))
    finally:
        proxy.close()
        service.close()


@contextmanager
def _over_a_link() -> Iterator[Scene]:
    """A directory on another host, as far as the network is concerned."""
    with closing(Veth()) as link, closing(FarDirectory(link.far, SECRET, link.prefix)) as directory:
        faults: dict[str, Fault] = {
            "link down": lambda *_: link.down(),
            "link silent": lambda *_: link.silent(),
            "link back": lambda *_: link.up(),
        }
        if which("nft") is not None:
            faults["packets dropped"] = lambda *_: link.drop()
        cache = Cache.Config(directory=directory.address, **CACHE)  # type: ignore[arg-type]
        try:
            yield Scene({**WORKERS, **faults}, cache, mend=link.up)
        finally:
            link.up()


@contextmanager
def _with_redis() -> Iterator[Scene]:
    """Redis that dies, hangs and comes back with nothing."""
    server = RedisServer()
    faults: Mapping[str, Fault] = {
        "Redis killed": lambda *_: server.kill(),
        "Redis stopped": lambda *_: server.stop(),
        "Redis back": lambda *_: server.go_on(),
    }
    cache = Cache.Config(directory=server.url, **CACHE)  # type: ignore[arg-type]
    try:
        yield Scene({**WORKERS, **faults}, cache, mend=server.go_on)
    finally:
        server.close()


@contextmanager
def _with_ray() -> Iterator[Scene]:
    """Actors that Ray loses."""
    cluster = RayCluster("ray")
    try:
        yield Scene({"actor killed": _kill_actor, "drained": _drain}, launcher=cluster)
    finally:
        cluster.close()


def _kill_actor(fleet: Fleet, one: WorkerStanding) -> None:
    """As if its node had gone: nobody tells the fleet."""
    member = fleet._roster.places[one.number].member
    if member is None:
        raise Unavailable("it is gone already")
    ray, actors = member.hold._ray, member.hold._actors  # type: ignore[attr-defined]
    ray.kill(actors[0], no_restart=True)
