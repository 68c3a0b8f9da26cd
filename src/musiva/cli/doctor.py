"""`musiva doctor`: what this machine offers, and what Musiva makes of it."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from musiva import __version__
from musiva.cli.machine import set_threads
from musiva.core.env import Env

__all__ = ["examine", "run"]

PACKAGES = (
    "numpy",
    "safetensors",
    "tokenizers",
    "pillow",
    "fastapi",
    "uvicorn",
    "diffusers",
    "transformers",
    "openai",
)
VECTOR_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
Facts = dict[str, object]


def run(arguments: Namespace, env: Env) -> int:
    set_threads(None, env)
    found = examine(env)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found, 0)
    return 0


def examine(env: Env) -> Facts:
    """All findings, by topic; takes a second or two, for the probes."""
    import torch

    from musiva.engine import shipped_models

    return {
        "musiva": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "linear layers": {name: _linears(name, env) for name in ("float32", "bfloat16")},
        "gpu": _gpus(),
        "cache": {"path": str(env.cache_dir), "writable": _writable(env.cache_dir)},
        "packages": {name: _version(name) for name in PACKAGES},
        "models": {name: str(path) for name, path in shipped_models().items()},
        "default model": "shipped"
        if "default" in shipped_models()
        else "missing: pass --model DIR",
    }


def _processor() -> Facts:
    import torch

    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags |= set(value.split())
        elif key.strip() == "model name":
            name = value.strip()
    present = [flag for flag in VECTOR_FLAGS if flag in flags]
    return {
        "name": name,
        "cores": os.cpu_count(),
        "vector instructions": present,
        "used by PyTorch": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": any("bf16" in flag for flag in present),
        "oneDNN": torch.backends.mkldnn.is_available(),
    }


def _linears(name: str, env: Env) -> Facts:
    """The kernel that will be used, and the speed of each that is exact here."""
    import torch

    from musiva.ops.linear import choose_kernel
    from musiva.ops.linear.kernel import ROWS, SHAPES, probe

    dtype = getattr(torch, name)
    operations = sum(2 * ROWS * width_in * width_out for width_in, width_out in SHAPES)
    speeds = {
        kernel: round(operations / seconds / 1e9, 1) for kernel, seconds in probe(dtype).items()
    }
    return {"kernel": choose_kernel(dtype, env), "GFLOP/s": speeds}


def _gpus() -> list[Facts]:
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        found.append({"name": facts.name, "GiB": round(facts.total_memory / 2**30, 1)})
    return found


def _writable(directory: Path) -> bool:
    """Whether files can be kept there; it is made if need be, as the kernel choice would."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _show(facts: Mapping[str, object], depth: int) -> None:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            print(f"{'  ' * depth}{name}")
            _show(value, depth + 1)
        else:
            print(f"{'  ' * depth}{name:{22 - 2 * depth}} {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key} {item}" for key, item in value.items())
    return "not installed" if value is None else str(value)
