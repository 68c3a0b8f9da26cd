"""How workers are started and ended: as processes of this machine, or as threads of this process,
where one wants to look into all of them.
"""

from __future__ import annotations

import multiprocessing
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch

from musiva.comm import Meter, ThreadGroup
from musiva.core.errors import InvalidInput, RankLost
from musiva.engine.fleet.group import Leader, follow
from musiva.engine.fleet.wire import Channel, Failed, PipeChannel
from musiva.engine.fleet.worker import (
    Order,
    Seat,
    Worker,
    attend_to,
    cache_of,
    executor_of,
    work,
)
from musiva.engine.pipeline import Pipeline

__all__ = ["Hold", "Launcher", "Processes", "Threads", "pair_of_queues"]


class Hold(Protocol):
    """A worker that was started. pid: of its first process; None where it has none."""

    @property
    def channel(self) -> Channel: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def whole(self) -> bool:
        """Whether all of its ranks are there."""
        ...

    def kill(self) -> None:
        """End it at once, whatever it does; who waits for it is told. May be repeated."""
        ...

    def join(self, timeout: float | None) -> bool:
        """Wait until it has ended; False if it has not."""
        ...


class Launcher(Protocol):
    @property
    def home(self) -> str:
        """An address of this machine that the workers reach."""
        ...

    def __call__(self, number: int, order: Order) -> Hold:
        """Start worker `number`. Raises OSError or Unavailable where none can be had."""
        ...


class Processes:
    """Workers of this machine. Their memory is their own, and their ranks share its GPUs out, where
    there are any.
    """

    home = "127.0.0.1"

    def __call__(self, number: int, order: Order) -> Hold:
        count, degree = torch.cuda.device_count(), order.degree
        if count and order.devices[0] in ("auto", "cuda"):
            if degree > count:
                raise InvalidInput("degree", degree, f"at most {count}, the GPUs of this machine")
            ranks = range(number * degree, (number + 1) * degree)
            order = replace(order, devices=[f"cuda:{rank % count}" for rank in ranks])
        return ProcessHold(number, order)


class ProcessHold:
    def __init__(self, number: int, order: Order) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.channel: Channel = PipeChannel(ours)
        self._folder = Path(tempfile.mkdtemp(prefix="musiva-")) if order.degree > 1 else None
        between = [context.Pipe() for _ in range(order.degree - 1)]
        ends = [[one for one, _ in between], *([other] for _, other in between)]
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_main,
                args=(theirs if rank == 0 else None, order, rank, self._folder, own),
                name=f"musiva-worker-{number}.{rank}",
                daemon=True,
            )
            for rank, own in enumerate(ends)
        ]
        try:
            for process in self._processes:
                process.start()
        except BaseException:
            for process in self._processes:
                if process.pid is not None:
                    process.kill()
            self.join(1.0)
            raise
        # The only other ends are the workers', so that who waits here is told when these end.
        for end in (theirs, *(end for pair in between for end in pair)):
            end.close()
        self.pid = self._processes[0].pid

    @property
    def whole(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def join(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        for process in [one for one in self._processes if one.pid is not None]:
            process.join(None if end is None else max(end - time.monotonic(), 0.0))
        gone = not any(one.is_alive() for one in self._processes if one.pid is not None)
        if gone and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return gone


def _main(
    connection: Connection | None,
    order: Order,
    rank: int,
    folder: Path | None,
    others: Sequence[Connection],
) -> None:
    seat = None
    if folder is not None:
        seat = Seat(rank, f"file://{folder}/store", [PipeChannel(one) for one in others])
    if connection is not None:
        work(PipeChannel(connection), order, seat)
    elif seat is not None:
        attend_to(order, seat)


class Threads:
    """Workers, and their ranks, that share this process and one loaded model."""

    home = "127.0.0.1"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def __call__(self, number: int, order: Order) -> Hold:
        return ThreadHold(number, order, self._pipeline)


class ThreadHold:
    pid = None

    def __init__(self, number: int, order: Order, pipeline: Pipeline) -> None:
        ours, theirs = pair_of_queues()
        self.channel: Channel = ours
        between = [pair_of_queues() for _ in range(order.degree - 1)]
        self._channels = [ours, *(one for one, _ in between)]
        self._groups = ThreadGroup.all_of(order.degree)
        self._order, self._pipeline = order, pipeline
        ends = [theirs, *(leader for _, leader in between)]
        self._threads = [
            threading.Thread(target=self._run, args=(rank, end)) for rank, end in enumerate(ends)
        ]
        self._others = [one for one, _ in between]
        for rank, thread in enumerate(self._threads):
            thread.name, thread.daemon = f"musiva-worker-{number}.{rank}", True
            thread.start()

    def _run(self, rank: int, end: Channel) -> None:
        order, pipeline = self._order, self._pipeline
        try:
            with suppress(RankLost), cache_of(order) as cache:
                own = executor_of(pipeline, order, self._groups[rank], cache)
                if rank:
                    follow(own, end)
                else:
                    leads = Leader(own, self._others) if self._others else own
                    Worker(end, order, pipeline, leads, cache, own.root).run()
        except Exception as error:
            with suppress(OSError):
                end.send(Failed(error))
        finally:
            if rank == 0:
                end.close()

    @property
    def whole(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def kill(self) -> None:
        """Nothing goes either way any more, and its threads end with their step."""
        for channel in self._channels:
            channel.cut()
        for group in self._groups:
            group.leave()

    def join(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        self._threads[0].join(timeout)
        if not self._threads[0].is_alive():
            for channel in self._channels[1:]:
                channel.close()
        for thread in self._threads[1:]:
            thread.join(None if end is None else max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)


class QueueChannel:
    """One end of two queues."""

    def __init__(
        self,
        incoming: queue.SimpleQueue[object],
        outgoing: queue.SimpleQueue[object],
        cut: threading.Event,
    ) -> None:
        self._incoming, self._outgoing, self._cut = incoming, outgoing, cut
        self._closed = False
        self.meter = Meter()

    def send(self, message: object) -> None:
        if self._closed or self._cut.is_set():
            raise OSError("nobody is at the other end")
        self._outgoing.put(message)
        self.meter.saw()

    def receive(self) -> object:
        message = self._incoming.get()
        if message is END or self._cut.is_set():
            # For whoever receives next.
            self._incoming.put(END)
            raise EOFError("nobody is at the other end")
        self.meter.saw()
        return message

    def drain(self, timeout: float) -> list[object] | None:
        """All that has come, waiting for the first so many seconds; None where nobody is there."""
        found: list[object] = []
        with suppress(queue.Empty):
            found.append(self._incoming.get(timeout=timeout))
            while True:
                found.append(self._incoming.get_nowait())
        if END not in found:
            return found
        self._incoming.put(END)
        return [message for message in found if message is not END] or None

    def close(self) -> None:
        self._closed = True
        self._outgoing.put(END)
        self._incoming.put(END)

    def cut(self) -> None:
        """As a killed process does: what is on its way is lost."""
        self._cut.set()
        self.close()


END = object()


def pair_of_queues() -> tuple[QueueChannel, QueueChannel]:
    """Both ends, for two threads of a process."""
    there: queue.SimpleQueue[object] = queue.SimpleQueue()
    back: queue.SimpleQueue[object] = queue.SimpleQueue()
    cut = threading.Event()
    return QueueChannel(back, there, cut), QueueChannel(there, back, cut)
