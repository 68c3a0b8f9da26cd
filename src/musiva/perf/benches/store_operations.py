"""What the operations of a store take, on 1 MiB each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable

import torch

from musiva.perf.child import Message
from musiva.store import Need, Store

__all__ = ["operation_rows"]

MIB = 1 << 20
OWNERS = 64
SITE = "residual"
WHOLE = {SITE: Need(1024, (256,), torch.float32)}
HALF = {SITE: Need(512, (256,), torch.float32)}


def operation_rows(rounds: int) -> list[Message]:
    """Median microseconds over `rounds` rounds of each operation on 1 MiB, in a store of 64 MiB
    that is as full as it can be. pages: how those of the owner lie.
    """
    clock = Clock()
    store = Store.Config(budget_bytes=OWNERS * MIB).build()
    values_LF = torch.randn(1024, 256)
    for number in range(-1, rounds):
        clock.running = number >= 0  # the first round takes the memory
        for owner in range(OWNERS):
            clock.time("reserve", "consecutive", lambda o=owner: store.reserve(o, WHOLE, 1.0))
        _use(clock, store, 0, "consecutive", values_LF)
        clock.time("evict and reserve", "consecutive", lambda: store.reserve("new", WHOLE, 2.0))
        for owner in store.owners:
            clock.time("free", "consecutive", lambda o=owner: store.free(o))
        for owner in range(2 * OWNERS):
            store.reserve(owner, HALF, 1.0)
        for owner in range(0, 2 * OWNERS, 2):
            store.free(owner)
        clock.time("reserve", "scattered", lambda: store.reserve("wide", WHOLE, 1.0))
        _use(clock, store, "wide", "scattered", values_LF)
        for owner in store.owners:
            store.free(owner)
    return clock.rows()


def _use(clock: Clock, store: Store, owner: Hashable, pages: str, values_LF: torch.Tensor) -> None:
    clock.time("write", pages, lambda: store.write(owner, SITE, values_LF, version=0))
    clock.time("read", pages, lambda: store.read(owner, SITE))


class Clock:
    """Seconds of operations, by name and by how pages lie; only while it runs."""

    def __init__(self) -> None:
        self.running = True
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def time(self, name: str, pages: str, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        if self.running:
            self._seconds.setdefault((name, pages), []).append(seconds)

    def rows(self) -> list[Message]:
        return [
            {"what": name, "pages": pages, "microseconds_per_mib": 1e6 * statistics.median(taken)}
            for (name, pages), taken in self._seconds.items()
        ]
