"""Local processes that run one function together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from musiva.comm.group import Group, Lone, TorchGroup

__all__ = ["launch"]

TIMEOUT = timedelta(minutes=5)


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
    # Ranks of one machine meet on its own address, whatever the host is called.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(Path(folder) / "store"), size)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        group: Group = TorchGroup()
        torch.save(fn(group, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
