"""What a capture depends on: all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.small import SIGNATURE, SOURCE, small
from tests.trials import BY_NAME
from torch import nn
from torch.nn.utils import parametrizations

from musiva.compiler import SIZES
from musiva.compiler.arguments import given, values
from musiva.models.captured import signature_of
from musiva.models.captured.key import Unkept, facts_of
from musiva.perf.catalog import build

NAMES = (
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "LatteTransformer3DModel",
    "WanTransformer3DModel",
    "QwenImageTransformer2DModel",
)


def facts(module: nn.Module, **changed: object) -> dict[str, str]:
    asked = {"arguments": SIGNATURE.arguments, "sizes": SIZES, **changed}
    return facts_of(module, asked["arguments"], asked["sizes"])  # pyright: ignore


def differing(a: dict[str, str], b: dict[str, str]) -> set[str]:
    assert a.keys() == b.keys()
    return {kind for kind in a if a[kind] != b[kind]}


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_diffusers_have_a_key_without_their_weights(name: str) -> None:
    found = []
    for seed in (0, 1):
        module = build(BY_NAME[name], seed)
        signature = signature_of(module)
        sizes = [signature.sized(one) for one in SIZES]
        found.append(facts_of(module, signature.arguments, sizes))
    assert found[0] == found[1]


def test_a_key_is_that_of_the_config_and_the_dtype() -> None:
    entry = BY_NAME["PixArtTransformer2DModel"]
    module, arguments = build(entry), signature_of(build(entry)).arguments
    before = facts(module, arguments=arguments)
    other = type(module)(**{**entry.config, "norm_eps": 1e-3}).eval()
    assert "structure" in differing(before, facts(other, arguments=arguments))
    assert differing(before, facts(module.bfloat16(), arguments=arguments)) == {"structure"}


def set_scale(module: nn.Module) -> None:
    module.scale = 2.5


def grow(module: nn.Module) -> None:
    module.blocks[1].linear.weight = nn.Parameter(torch.rand(9, 8), requires_grad=False)


def share(module: nn.Module) -> None:
    module.blocks[1].linear.weight = module.blocks[0].linear.weight


def keep_a_table(module: nn.Module, value: float) -> None:
    module.table = torch.tensor([0.0, value])


def count_on(module: nn.Module, value: int) -> None:
    module.register_buffer("order", torch.tensor([value]))


def replace_a_layer(module: nn.Module) -> None:
    class Other(nn.Linear):
        pass

    module.last = Other(8, 4).requires_grad_(False)


def hold(module: nn.Module, value: float) -> None:
    """A function in the place of a method, with a number that only its closure knows."""
    right = type(module).forward

    def forward(hidden_states: torch.Tensor, return_dict: bool = True) -> object:
        return right(module, hidden_states * value, return_dict)

    module.forward = forward


CHANGES: tuple[Callable[[nn.Module], object], ...] = (
    set_scale,
    grow,
    share,
    replace_a_layer,
    lambda module: module.train(),
    lambda module: module.blocks[0].train(),
    partial(keep_a_table, value=1.0),
    partial(keep_a_table, value=2.0),
    partial(count_on, value=1),
    partial(count_on, value=2),
    partial(hold, value=2.0),
    partial(hold, value=3.0),
)


def test_whatever_changes_a_module_changes_its_key(tmp_path: Path) -> None:
    found = [facts(small(tmp_path)), facts(small(tmp_path, width=10))]
    for change in CHANGES:
        module = small(tmp_path)
        change(module)
        found.append(facts(module))
    seen = {one["structure"] for one in found}
    assert len(seen) == len(found)


def test_what_is_only_a_weight_does_not(tmp_path: Path) -> None:
    module = small(tmp_path)
    before = facts(module)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(0.5)
    module.requires_grad_(True)
    assert facts(module) == before == facts(small(tmp_path, seed=1))


def test_a_key_is_that_of_the_source(tmp_path: Path) -> None:
    before = facts(small(tmp_path))
    comment = facts(small(tmp_path, SOURCE + "\n# A word.\n"))
    assert differing(before, comment) == {"sources"}
    assert "sources" in differing(before, facts(small(tmp_path, SOURCE.replace("3.0", "4.0"))))
    assert facts(small(tmp_path)) == before


def test_a_class_that_got_another_method_has_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = small(tmp_path)
    before = facts(module)
    block = type(module.blocks[0])
    monkeypatch.setattr(block, "forward", lambda self, x: x)
    assert "structure" in differing(before, facts(module))


def test_a_key_is_that_of_the_arguments_and_the_sizes(tmp_path: Path) -> None:
    module = small(tmp_path)
    before = facts(module)
    arguments = {
        "other dims": {"hidden_states": values("columns", 4)},
        "a list": {"hidden_states": values("rows", 4, batch="list")},
        "more": {**SIGNATURE.arguments, "shape": given(lambda sizes: [sizes["rows"]])},
        "others": {**SIGNATURE.arguments, "shape": given(lambda sizes: [sizes["columns"]])},
    }
    found = [facts(module, arguments=one) for one in arguments.values()]
    assert all(differing(before, one) == {"arguments"} for one in found)
    assert len({one["arguments"] for one in found}) == len(found)
    assert differing(before, facts(module, sizes=SIZES[:2])) == {"sizes"}


def test_what_hangs_on_a_module_may_keep_it_out(tmp_path: Path) -> None:
    module = small(tmp_path)
    handle = module.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(Unkept, match=r"blocks\.0 has hooks"):
        facts(module)
    handle.remove()
    facts(module)
    parametrizations.orthogonal(module.blocks[1].linear)
    with pytest.raises(Unkept, match=r"blocks\.1\.linear has parametrizations"):
        facts(module)
    module = small(tmp_path)
    module.marker = object()
    with pytest.raises(Unkept, match=r"marker is a builtins\.object"):
        facts(module)


def test_a_class_without_a_source_file_is_kept_out(tmp_path: Path) -> None:
    scope: dict[str, type[nn.Module]] = {"Module": nn.Module, "__name__": "typed_in"}
    exec("class Typed(Module): pass", scope)
    with pytest.raises(Unkept, match="typed_in has no source file"):
        facts(scope["Typed"]())
