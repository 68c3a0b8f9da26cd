"""Linear kernels: right, exact by row, counted, and chosen once per machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from musiva.core.env import Env
from musiva.ops.linear import ACTIVATIONS, Linears, choose_kernel, fingerprint, linear_reference

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), [(16, 48), (12, 7), (3, 24), (96, 96)])
def test_prepacked_matches_and_keeps_rows(width_in, width_out, bias, activation, dtype) -> None:
    torch.manual_seed(0)
    layer, linears = nn.Linear(width_in, width_out, bias=bias).to(dtype), Linears("prepacked")
    x_TD = torch.randn(272, 2 * width_in).to(dtype)[:, ::2]
    with torch.inference_mode():
        whole = linears(layer, x_TD, activation)
        expected = linear_reference(layer.double(), x_TD.double(), activation)
        layer.to(dtype)
        assert (whole.double() - expected).abs().max() <= TOLERANCES[dtype] * expected.abs().max()
        for rows in (16, 32, 112, 256):
            assert torch.equal(linears(layer, x_TD[:rows], activation), whole[:rows])
            assert torch.equal(
                linears(layer, x_TD[16 : 16 + rows], activation), whole[16 : 16 + rows]
            )


def test_weights_train_where_gradients_flow() -> None:
    layer, linears = nn.Linear(8, 8), Linears("prepacked")
    linears(layer, torch.randn(4, 8), "gelu_tanh").sum().backward()
    assert layer.weight.grad is not None
    assert linears.nbytes == 0


def test_prepacked_bytes_are_counted_once() -> None:
    layer, linears = nn.Linear(8, 24), Linears("prepacked")
    with torch.no_grad():
        for _ in range(3):
            linears(layer, torch.randn(16, 8))
    assert linears.nbytes == 8 * 24 * 4


def test_unknown_activations_raise() -> None:
    for kernel in ("plain", "prepacked"):
        with pytest.raises(ValueError, match="swish"), torch.no_grad():
            Linears(kernel)(nn.Linear(8, 8), torch.randn(16, 8), "swish")


class TestChoice:
    def test_is_remembered(self, tmp_path: Path) -> None:
        env = Env(cache_dir=tmp_path)
        first = choose_kernel(torch.float32, env)
        (path,) = (tmp_path / "kernels").iterdir()
        assert json.loads(path.read_text())["kernel"] == first
        other = "plain" if first == "prepacked" else "prepacked"
        path.write_text(json.dumps({"kernel": other}))
        assert choose_kernel(torch.float32, env) == other

    @pytest.mark.parametrize("content", ["", "{", '{"kernel": "magic"}', "[]"])
    def test_survives_a_damaged_memory(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "kernels" / f"linear-{fingerprint(torch.float32)}.json"
        path.parent.mkdir()
        path.write_text(content)
        kernel = choose_kernel(torch.float32, Env(cache_dir=tmp_path))
        assert json.loads(path.read_text())["kernel"] == kernel

    def test_works_where_nothing_can_be_stored(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        assert choose_kernel(torch.float32, Env(cache_dir=tmp_path / "file")) in (
            "plain",
            "prepacked",
        )
        assert "could not be stored" in caplog.text

    def test_can_be_forced(self, tmp_path: Path) -> None:
        assert choose_kernel(torch.float32, Env(cache_dir=tmp_path, kernels="plain")) == "plain"
        assert not list(tmp_path.iterdir())
