"""Flags that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from musiva.cli.values import whole
from musiva.core.env import MAX_THREADS

__all__ = ["STORE_MIB", "Commands", "add_key", "add_machine", "add_store"]

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
        "--threads",
        type=whole("threads", 1, MAX_THREADS),
        metavar="N",
        help="of the CPU kernels (default: MUSIVA_THREADS, or all cores)",
    )
