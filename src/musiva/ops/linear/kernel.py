"""Which linear kernel this machine should use, by a short probe whose answer is remembered."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from musiva.core.env import Env
from musiva.ops.linear.prepacked import Kernel, Linears

__all__ = ["Kernel", "choose_kernel", "fingerprint"]

log = logging.getLogger(__name__)
CANDIDATES: tuple[Kernel, ...] = ("prepacked", "plain")
SHAPES = ((384, 384), (384, 1536), (1536, 384))
ROWS = 256
ROUNDS = 7


def choose_kernel(dtype: torch.dtype, env: Env | None = None) -> Kernel:
    """The faster exact kernel for `dtype` on this CPU: from the environment, the cache folder, or a
    probe.
    """
    env = Env.read() if env is None else env
    if env.kernels != "auto":
        return env.kernels
    path = Path(env.cache_dir) / "kernels" / f"linear-{fingerprint(dtype)}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["kernel"]
        if stored in CANDIDATES:
            return stored
    except (OSError, ValueError, KeyError, TypeError):
        log.info("no stored kernel choice at %s: probing", path)
    seconds = probe(dtype)
    kernel = min(seconds, key=lambda k: seconds[k]) if seconds else "plain"
    _remember(path, {"kernel": kernel, "seconds": seconds})
    return kernel


def fingerprint(dtype: torch.dtype) -> str:
    """Names what the choice depends on: processor, its vector instructions, PyTorch, dtype."""
    facts = [_processor(), torch.backends.cpu.get_cpu_capability(), torch.__version__, str(dtype)]
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    return "|".join(sorted({line for line in lines if line.split("\t")[0].strip() in wanted}))


@torch.no_grad()
def probe(dtype: torch.dtype) -> dict[Kernel, float]:
    """Median seconds of each kernel over typical layers; a kernel that fails or is not exact is
    left out.
    """
    generator = torch.Generator().manual_seed(0)
    totals: dict[Kernel, float] = dict.fromkeys(CANDIDATES, 0.0)
    for width_in, width_out in SHAPES:
        layer = nn.Linear(width_in, width_out)
        layer.weight.copy_(torch.randn(width_out, width_in, generator=generator) / width_in**0.5)
        layer = layer.to(dtype)
        x_TD = torch.randn(ROWS, width_in, generator=generator).to(dtype)
        kernels: dict[Kernel, Linears] = {name: Linears(name) for name in totals}
        for name, linears in kernels.items():
            if not _is_exact(linears, layer, x_TD):
                totals.pop(name)
        samples: dict[Kernel, list[float]] = {name: [] for name in totals}
        for _ in range(ROUNDS):
            for name in totals:
                start = time.perf_counter()
                kernels[name](layer, x_TD)
                samples[name].append(time.perf_counter() - start)
        for name, taken in samples.items():
            totals[name] += statistics.median(taken)
    return totals


def _is_exact(linears: Linears, layer: nn.Linear, x_TD: torch.Tensor) -> bool:
    """Whether rows come out the same, to the bit, whatever rows are beside them."""
    try:
        whole_TN = linears(layer, x_TD)
        return all(
            torch.equal(linears(layer, x_TD[:rows]), whole_TN[:rows])
            for rows in (16, 32, 48, 112, 240)
        )
    except RuntimeError as error:
        log.info("linear kernel %s does not run here: %s", linears.kernel, error)
        return False


def _remember(path: Path, choice: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, delete=False, encoding="utf-8"
        ) as file:
            json.dump(choice, file)
        os.replace(file.name, path)
    except OSError as error:
        log.warning(
            "the kernel choice could not be stored at %s (%s): it is probed at every start",
            path,
            error,
        )
