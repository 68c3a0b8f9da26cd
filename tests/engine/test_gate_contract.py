"""Gates on the four contract denoisers: what holds on them holds for any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tests.contract.denoisers import NAMES, Down, UNet, build
from tests.contract.test_contract import Sample, inputs_of
from torch import Tensor

from musiva.comm import Lone
from musiva.core.errors import ExecutionFailed
from musiva.core.types import COMPUTE, Action, DenoiseItem, Gate, Path
from musiva.engine.gate import Gates, Passage, passages_of
from musiva.engine.runner import PlainRun, forward
from musiva.engine.tap import modulated_site
from musiva.models import Denoiser
from musiva.store import Store

PROBES = {"first_block": "rest", "modulated_input": "all"}
# By sample, an action for each of four evaluations: a gate that opens or shuts, held, or neither.
FULL, SHUT, OPEN = COMPUTE, Gate("", 1e9), Gate("", 0.0)
SCRIPT = (
    (FULL, SHUT, SHUT, OPEN),
    (FULL, FULL, SHUT, SHUT),
    (FULL, OPEN, FULL, SHUT),
    (FULL, SHUT, OPEN, SHUT),
    (FULL, FULL, FULL, FULL),
)


class Device:
    """Samples that move on by themselves, and gates over a store."""

    def __init__(self, model: Denoiser, probes: Sequence[str | None]) -> None:
        """probes: of each sample; None for one without gates."""
        self.model, self.probes = model, probes
        self.samples = [Sample(model, seed) for seed in range(len(probes))]
        store = Store.Config(budget_bytes=1 << 22).build()
        self.gates = Gates(model, PlainRun(), store, Lone())

    def item(self, i: int, evaluation: int) -> DenoiseItem:
        chosen, probe = SCRIPT[i][evaluation], self.probes[i]
        if probe is None:
            action = COMPUTE
        elif isinstance(chosen, Gate):
            action = Action(gate=replace(chosen, probe=probe))
        else:
            action = chosen
        prompts = (str(i),)
        return DenoiseItem(
            sample=str(i),
            evaluation=evaluation,
            actions=(action,),
            path=Path(steps=4),
            seed=0,
            size=(8, 8),
            prompts=prompts,
            guidance=1.0,
            fresh=False,
            probes=() if probe is None else (probe,),
        )

    def move(self, i: int, evaluation: int) -> None:
        generator = torch.Generator().manual_seed(100 * evaluation + i)
        sample = self.samples[i]
        noise_LC = torch.randn(sample.tokens_LC.shape, generator=generator)
        sample.tokens_LC = sample.tokens_LC + 0.05 * noise_LC
        sample.time += 10.0

    @torch.inference_mode()
    def evaluate(self, chosen: Sequence[int], evaluation: int) -> tuple[list[Passage], int]:
        for i in chosen:
            self.move(i, evaluation)
        passages = passages_of([self.item(i, evaluation) for i in chosen])
        inputs, pack = inputs_of([self.samples[i] for i in chosen])

        def pack_of(items: Sequence[DenoiseItem]):
            return inputs_of([self.samples[int(item.sample)] for item in items])[1]

        rows = self.gates.forward(passages, inputs, pack, pack_of)
        self.gates.store.check_integrity()
        return passages, rows

    @torch.inference_mode()
    def dense(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """The image stream of a sample as embedded, after the first segment, and after all."""
        inputs, pack = inputs_of([self.samples[i]])
        run = PlainRun()
        streams = start = self.model.embed(inputs, pack, run)
        images = []
        for _, segment in self.model.segments:
            streams = segment(streams, pack, run)
            images.append(streams["image"])
        first, last = pack.split(images[0])[0], pack.split(images[-1])[0]
        return pack.split(start["image"])[0], first, last

    @torch.inference_mode()
    def head(self, i: int, image_LD: Tensor) -> Tensor:
        inputs, pack = inputs_of([self.samples[i]])
        run = PlainRun()
        streams = self.model.embed(inputs, pack, run)
        image_TD = pack.gather([image_LD])
        return pack.split(self.model.head({**streams, "image": image_TD}, pack, run))[0]


MIXES = {
    "first_block": ["first_block"] * 4 + [None],
    "modulated_input": ["modulated_input"] * 4 + [None],
    "both": ["first_block", "modulated_input", "modulated_input", "first_block", None],
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", NAMES)
def test_packed_equals_alone_to_the_byte(name: str, mix: str) -> None:
    model = build(name)
    packed, counts = Device(model, MIXES[mix]), []
    alone = [Device(model, MIXES[mix]) for _ in packed.samples]
    for evaluation in range(4):
        passages, rows = packed.evaluate(range(5), evaluation)
        counts.append(rows)
        for i, one in enumerate(passages):
            ((single,), _) = alone[i].evaluate([i], evaluation)
            assert one.error is None
            assert one.action == single.action
            assert one.measured == single.measured
            assert torch.equal(one.predictions[0], single.predictions[0]), (evaluation, i)
    assert counts[0] > counts[1] > 0


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_held_is_what_was_added_last(name: str, probe: str) -> None:
    """Against a sample run by hand, alone: full ones to the byte."""
    model, held = build(name), PROBES[probe]
    device = Device(model, MIXES[probe])
    kept: dict[int, Tensor] = {}
    reference: dict[int, Tensor] = {}
    for evaluation in range(4):
        passages, _ = device.evaluate(range(5), evaluation)
        for i, one in enumerate(passages[:4]):
            start, first, last = device.dense(i)
            base = start if held == "all" else first
            was_held = SCRIPT[i][evaluation] is SHUT
            assert one.action == Action(held=held if was_held else None)
            if was_held:
                assert torch.equal(one.predictions[0], device.head(i, base + kept[i]))
            else:
                assert torch.equal(one.predictions[0], device.head(i, last))
                kept[i] = last - base
            if probe == "first_block":
                change = first - start
                if i in reference:
                    wanted = (change - reference[i]).abs().mean() / reference[i].abs().mean()
                    assert one.measured[probe] == pytest.approx(float(wanted), rel=1e-5)
                if not was_held:
                    reference[i] = change
            elif evaluation:
                assert 0 < one.measured[probe] < 1


@pytest.mark.parametrize("name", NAMES)
def test_open_gates_are_the_plain_forward(name: str) -> None:
    model = build(name)
    device = Device(model, MIXES["both"])
    passages, rows = device.evaluate(range(5), 0)
    inputs, pack = inputs_of(device.samples)
    with torch.inference_mode():
        plain = pack.split(forward(model, inputs, pack, PlainRun()))
    assert rows == pack.image.num_rows
    for one, prediction in zip(passages, plain, strict=True):
        assert torch.equal(one.predictions[0], prediction)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("cross", "block.0.attn.qkv"),
        ("joint", "block.0.qkv.image"),
        ("video", "block.0.attn.qkv"),
        ("unet", "block.0.conv"),
    ],
)
def test_the_modulated_input_is_that_of_the_first_layer_in_a_branch(name: str, site: str) -> None:
    model = build(name)
    inputs, _ = inputs_of([Sample(model, 0)])
    with torch.inference_mode():
        assert modulated_site(model, inputs, PlainRun()) == site


@pytest.mark.parametrize("probe", PROBES)
def test_a_held_evaluation_runs_no_segment_that_it_need_not(probe: str) -> None:
    model, seen = build("cross"), []

    class Counting(PlainRun):
        def linear(self, site, layer, x, pack, activation=None):
            seen.append(site)
            return super().linear(site, layer, x, pack, activation)

    device = Device(model, MIXES[probe])
    device.gates = Gates(model, Counting(), device.gates.store, Lone())
    device.evaluate([0], 0)
    seen.clear()
    _, rows = device.evaluate([0], 1)
    assert rows == 0
    first = ["block.0.attn.time"]
    if probe == "first_block":
        first += ["block.0.attn.qkv", "block.0.attn.out", "block.0.cross.q", "block.0.cross.out"]
        first += ["block.0.mlp.time", "block.0.mlp.in", "block.0.mlp.out"]
    assert seen == ["patch_in", "time", "text_in", *first, "patch_out"]


class DownFirst(UNet):
    """Its first segment adds a stream that only it knows how to lay out, and no branch."""

    def build_blocks(self):
        blocks = super().build_blocks()
        blocks[0], blocks[1] = blocks[1], blocks[0]
        assert isinstance(blocks[0], Down)
        return blocks


def test_streams_of_an_unknown_layout_run_in_the_whole_pack() -> None:
    torch.manual_seed(0)
    model = DownFirst().eval().requires_grad_(False)
    device, alone = (Device(model, MIXES["first_block"]) for _ in range(2))
    for evaluation in (0, 1):
        passages, rows = device.evaluate([0, 1], evaluation)
        ((single,), _) = alone.evaluate([1], evaluation)
        assert rows == inputs_of(device.samples[:2])[1].image.num_rows
        assert torch.equal(passages[1].predictions[0], single.predictions[0])
    assert [one.action.held for one in passages] == ["rest", None]
    # Nothing of the image changes in that segment.
    assert passages[0].measured == {"first_block": 0.0}


def test_a_model_without_a_modulated_input_says_so() -> None:
    device = Device(DownFirst().eval().requires_grad_(False), MIXES["modulated_input"])
    with pytest.raises(ExecutionFailed, match="no modulated input"):
        device.evaluate([0], 0)
