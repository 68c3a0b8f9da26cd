"""Checkpoints survive a kill at any byte of a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musiva.core.errors import BadCheckpoint
from musiva.train import Checkpoint, checkpoint, load_checkpoint, load_latest, save_checkpoint


def example(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    model = {
        "w": torch.randn(3, 5, generator=generator),
        "b": torch.randn(4, generator=generator).bfloat16(),
    }
    return Checkpoint(
        step=step,
        groups={"model": model, "ema": {"w": torch.ones(2)}},
        state={"cursor": {"epoch": 1}},
    )


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    tensors = all(
        torch.equal(a.groups[g][n], t) for g, named in b.groups.items() for n, t in named.items()
    )
    return (
        a.step == b.step
        and dict(a.state) == dict(b.state)
        and set(a.groups) == set(b.groups)
        and tensors
    )


def test_round_trip(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    path = save_checkpoint(tmp_path, example(7))
    loaded = load_checkpoint(path)
    assert equal(loaded, example(7))
    assert loaded.groups["model"]["b"].dtype == torch.bfloat16


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4):
        save_checkpoint(tmp_path, example(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000004", "step-000000030"]


class Killed(BaseException):
    """Stands for the process's end: nothing catches it."""


def test_a_kill_at_any_byte_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, example(1))
    write = checkpoint._write
    sizes: list[int] = []
    monkeypatch.setattr(
        checkpoint,
        "_write",
        lambda path, content: (sizes.append(len(content)), write(path, content)),
    )
    save_checkpoint(tmp_path / "probe", example(2))
    total = sum(sizes)
    for cut in [*range(0, total, total // 40), total - 1]:
        left = cut

        def cut_short(path: Path, content: bytes) -> None:
            nonlocal left
            path.write_bytes(content[:left])
            if left < len(content):
                raise Killed
            left -= len(content)

        monkeypatch.setattr(checkpoint, "_write", cut_short)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, example(2))
        latest = load_latest(tmp_path)
        assert latest is not None, cut
        assert equal(latest, example(1)), cut
    monkeypatch.setattr(checkpoint, "_write", write)
    save_checkpoint(tmp_path, example(2))
    latest = load_latest(tmp_path)
    assert latest is not None
    assert equal(latest, example(2))
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
def test_damage_is_seen_and_the_one_before_taken(tmp_path: Path, file: str) -> None:
    save_checkpoint(tmp_path, example(1))
    newest = save_checkpoint(tmp_path, example(2))
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / file).write_bytes(content)
    with pytest.raises(BadCheckpoint, match="step-000000002"):
        load_checkpoint(newest)
    latest = load_latest(tmp_path)
    assert latest is not None
    assert latest.step == 1
    (newest / file).unlink()
    latest = load_latest(tmp_path)
    assert latest is not None
    assert latest.step == 1
