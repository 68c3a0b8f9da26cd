"""Flags that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from musiva.cli.values import whole
from musiva.core.env import MAX_THREADS

__all__ = ["STORE_MIB", "Commands", "add_cache", "add_key", "add_machine", "add_store"]

STORE_MIB = 256
Commands = argparse._SubParsersAction  # the type that add_subparsers documents, under its only name


def add_key(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument("--api-key-file", type=Path, metavar="FILE", help=what)


def add_store(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--store-mib",
        type=whole("store-mib", 1, 1 << 24),
        metavar="N",
        help=f"budget of what gates of policies hold, in MiB (default: {STORE_MIB})",
    )


def add_cache(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--cache-mib",
        type=whole("cache-mib", 1, 1 << 24),
        metavar="N",
        help="keep what was computed for requests that begin alike, in N MiB of each process; "
        "workers find each other's (default: nothing is kept)",
    )
    p.add_argument(
        "--cache-shared-mib",
        type=whole("cache-shared-mib", 1, 1 << 24),
        metavar="N",
        help="and in the shared memory of each host that has workers (default: 1024)",
    )
    p.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="and in files there, for the next start too (default: none)",
    )
    p.add_argument(
        "--cache-dir-mib",
        type=whole("cache-dir-mib", 1, 1 << 30),
        metavar="N",
        help="of those files (default: 16384)",
    )
    p.add_argument(
        "--directory",
        metavar="URL",
        help="redis://HOST:PORT, rediss:// or unix://: who has what is kept in Redis or Valkey, "
        "for several servers together (default: the server keeps it for its workers)",
    )
    p.add_argument(
        "--cache-listen",
        metavar="HOST",
        help="the address of this machine at which the others of a directory fetch",
    )
    p.add_argument(
        "--cache-secret-file",
        type=Path,
        metavar="FILE",
        help="what all servers of a directory know, as its only line",
    )


def add_machine(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        default="default",
        metavar="MODEL",
        help="a shipped model or a diffusers directory (default: default)",
    )
    p.add_argument("--dtype", default="float32", help="float32 or bfloat16 (default: float32)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: auto)")
    p.add_argument(
        "--compile",
        action="store_true",
        help="have torch.compile make kernels of the model, which takes minutes; needs a compiler",
    )
    p.add_argument(
        "--threads",
        type=whole("threads", 1, MAX_THREADS),
        metavar="N",
        help="of the CPU kernels (default: MUSIVA_THREADS, or all cores)",
    )
