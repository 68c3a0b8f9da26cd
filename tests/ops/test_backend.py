"""Who runs an operator: Triton on a GPU, which compiles here without one, and never on a CPU."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from musiva.core.pack import Pack, Rows
from musiva.ops.backend import uses_triton
from musiva.ops.modulated_norm import gated_add, modulated_norm
from musiva.ops.page_write import page_write
from musiva.ops.paged_attention import paged_attend
from musiva.ops.rows import gather_rows, scatter_rows

CPU_RUN = """
import sys, torch
from musiva.core.pack import Rows
from musiva.ops.modulated_norm import gated_add, modulated_norm
from musiva.ops.page_write import page_write
from musiva.ops.paged_attention import paged_attend
from musiva.ops.rows import gather_rows, scatter_rows
with torch.inference_mode():
    rows, slab, x, table = Rows.build([(1, 4, 4)]), *torch.ones(3, 1, 16, 2, 1, 8).unbind()
    q, flat, zeros = slab[0, :, 0], slab[0, :, 0, 0], torch.zeros(1, 1, dtype=torch.int64)
    page_write(q, q, slab, torch.arange(16))
    paged_attend(q, slab, zeros, zeros[0] + 16, rows)
    scatter_rows(flat, zeros[0], gather_rows(flat, zeros[0]))
    gated_add(flat, modulated_norm(flat, flat, flat, rows, 1e-6), flat, rows)
print([m for m in ("triton", "torch._dynamo") if m in sys.modules])
"""
WRITING = {"NORM": True, "ROTARY": True, "INTERLEAVED": True}
# Op, kernel, its element types in order (b: bfloat16, f: float32, i: int64), its constants.
KERNELS = {
    "attention": (
        ("paged_attention", "_attend_kernel", "bbiiiib"),
        {"PAGE": 16, "CHANNELS": 72, "BLOCK_Q": 64, "BLOCK_J": 64, "BLOCK_K": 128},
    ),
    "attention in float32": (
        ("paged_attention", "_attend_kernel", "fbiiiif"),
        {"PAGE": 10, "CHANNELS": 32, "BLOCK_Q": 64, "BLOCK_J": 64, "BLOCK_K": 32},
    ),
    "writing": (
        ("page_write", "_write_kernel", "bbbibff"),
        {"PAGE": 16, "CHANNELS": 72, "BLOCK_H": 16, "BLOCK_K": 128, **WRITING},
    ),
    "writing by halves": (
        ("page_write", "_write_kernel", "ffbifff"),
        {"PAGE": 16, "CHANNELS": 64, "BLOCK_H": 8, "BLOCK_K": 64, **WRITING, "INTERLEAVED": False},
    ),
    "gathering": (("rows", "_gather_kernel", "bib"), {"BLOCK": 1024}),
    "scattering": (("rows", "_scatter_kernel", "bif"), {"BLOCK": 1024}),
    "norm": (("modulated_norm", "_norm_kernel", "bbbib"), {"WIDTH": 3000, "BLOCK": 4096}),
    "gated add": (("modulated_norm", "_add_kernel", "fbbif"), {"WIDTH": 40, "BLOCK": 64}),
}


def test_a_cpu_run_imports_neither_triton_nor_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CPU_RUN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_triton_is_for_cuda_tensors_without_gradients() -> None:
    with FakeTensorMode():
        x, trained = torch.ones(2, device="cuda"), torch.ones(2, device="cuda", requires_grad=True)
        assert uses_triton(x)
        assert not uses_triton(x, trained)
        with torch.no_grad():
            assert uses_triton(x, trained)
        assert not uses_triton(x.double())
        assert not uses_triton(torch.ones(2))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_for_a_gpu(name: str, tmp_path: Path, monkeypatch) -> None:
    """The interpreter takes more than the compiler does, which needs no GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    (op, kernel, types), constants = KERNELS[name]
    fn = getattr(importlib.import_module(f"musiva.ops.{op}.triton"), kernel)
    pointers = [{"b": "*bf16", "f": "*fp32", "i": "*i64"}[t] for t in types]
    numbers = [
        "constexpr" if n in constants else "fp32" if n in ("scale", "eps") else "i32"
        for n in fn.arg_names[len(pointers) :]
    ]
    signature = dict(zip(fn.arg_names, [*pointers, *numbers], strict=True))
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(ASTSource(fn, signature, constants), target=target)
    # What a thread block of every card since Ampere can have.
    assert compiled.metadata.shared <= 99 * 1024
    assert compiled.asm["cubin"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gpu_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    lengths = [70, 5, 130]
    x_TD, value_TD = torch.randn(2, 256, 3 * 40).to(dtype)
    tables = torch.randn(3, 16, 3 * 40).to(dtype)
    slab = torch.zeros(20, 16, 2, 3, 40, dtype=dtype)
    table_SM, slot_T = torch.randperm(20)[:18].view(2, 9).repeat(2, 1)[:3], torch.randperm(256)
    rotary, weight_K = torch.randn(2, 256, 40), torch.randn(40)
    results = []
    for device in ("cpu", "cuda"):
        rows = Rows.build([(1, 1, n) for n in lengths], device=device)
        part = rows.take([torch.arange(0, n, 3) for n in lengths])
        x, value, mods, pages, table, slot, angles, weight = (
            t.to(device) for t in (x_TD, value_TD, tables, slab, table_SM, slot_T, rotary, weight_K)
        )
        x, value, slot = x[: rows.num_rows], value[: rows.num_rows], slot[: rows.num_rows]
        with torch.inference_mode():
            y = modulated_norm(x, mods[0], mods[1], rows, 1e-6)
            y = gated_add(y, value, mods[2], rows)
            q, k = y.unflatten(1, (3, 40)), value.unflatten(1, (3, 40))
            cos, sin = angles[:, : rows.num_rows]
            page_write(k, k, pages, slot, k_norm=(weight, 1e-6), rotary=(cos, sin))
            q = gather_rows(q.flatten(1), part.source_T).unflatten(1, (3, 40))
            out = paged_attend(q, pages, table, torch.tensor(lengths, device=device), part)
            scatter_rows(y, part.source_T[part.token_T >= 0], out.flatten(1)[part.token_T >= 0])
        results.append(torch.cat([x.cpu() for x in Pack({"image": rows}).split(y)]))
    bound = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(*results, rtol=bound, atol=bound)
