"""Local processes that run one function together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from musiva.comm.group import Group, Lone, TorchGroup
from musiva.core.errors import RankLost

__all__ = ["joined", "launch"]

TIMEOUT = 300.0


@contextmanager
def joined(
    rank: int, size: int, meeting: str, timeout: float = TIMEOUT, start: float = TIMEOUT
) -> Iterator[Group]:
    """This process as one of a group, over gloo between CPUs and NCCL between GPUs. meeting: where
    it meets, `file:///PATH` of one machine or `tcp://HOST:PORT` of the first rank. timeout: seconds
    after which a rank that does not take part counts as lost; start: that they may be apart when
    they come. Raises RankLost where not all come.
    """
    if meeting.startswith("file:"):
        # Ranks of one machine meet on its own address, whatever the host is called.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(
            backend,
            init_method=meeting,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=start),
        )
        group = dist.new_group(timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        raise RankLost(f"rank {rank} of {size}: {error}") from error
    try:
        yield TorchGroup(cast("dist.ProcessGroup", group), timeout=timedelta(seconds=timeout))
    finally:
        dist.destroy_process_group()


def launch(fn: Callable[..., Any], size: int, *arguments: object, threads: int = 1) -> list[Any]:
    """fn(group, *arguments) in `size` processes on this machine, over gloo; what each returned, in
    the order of ranks. fn, arguments and results go from process to process by pickle.

    Raises what torch.multiprocessing raises where one of them fails: the others are ended.
    """
    if size == 1:
        return [fn(Lone(), *arguments)]
    with tempfile.TemporaryDirectory(prefix="musiva-") as folder:
        mp.spawn(_work, (fn, size, folder, threads, arguments), nprocs=size, join=True)  # pyright: ignore
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _work(
    rank: int,
    fn: Callable[..., Any],
    size: int,
    folder: str,
    threads: int,
    arguments: tuple[object, ...],
) -> None:
    torch.set_num_threads(threads)
    with joined(rank, size, f"file://{folder}/store") as group:
        torch.save(fn(group, *arguments), Path(folder) / f"{rank}.pt")
