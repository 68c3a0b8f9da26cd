"""Captures that are kept on disk: the same to the byte, and never those of another model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.small import SIGNATURE, SOURCE, small
from tests.trials import BY_NAME
from torch import Tensor, nn

from musiva.compiler import Captured, Unusable, bound
from musiva.compiler.artifact import files_of, from_files, prologue_files, prologue_of
from musiva.compiler.folder import MANIFEST, stored, written_to
from musiva.compiler.prologue import Prologue
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.engine.verify import verified
from musiva.models.captured import captured_from, module_from, signature_of
from musiva.models.captured.cache import captured_of
from musiva.models.captured.check import call_of, found_of, largest_error
from musiva.perf.captures import NEW
from musiva.perf.catalog import build

NAMES = (
    "SD3Transformer2DModel",
    *(
        pytest.param(name, marks=pytest.mark.matrix)
        for name in (
            "PixArtTransformer2DModel",
            "FluxTransformer2DModel",
            "LatteTransformer3DModel",
            "WanTransformer3DModel",
        )
    ),
)
SIZES = [SIGNATURE.sized(one) for one in NEW[:2]]
FILES = ("program.py", "prologue.py", "capture.json", "tensors.safetensors", MANIFEST)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("MUSIVA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "captures"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="musiva"):
        yield caplog


@cache
def kept_small(root: Path) -> Path:
    """A cache folder with the capture of `small`, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSIVA_CACHE_DIR", str(root / "of small"))
        found = captured_of(small(root), SIGNATURE)
        error(found)
    return root / "of small" / "captures"


@pytest.fixture
def kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry of `small`."""
    shutil.copytree(kept_small(tmp_path_factory.getbasetemp()), folder)
    (entry,) = folder.iterdir()
    return entry


def error(captured: Captured) -> float:
    with torch.no_grad():
        return largest_error(captured, SIGNATURE, SIZES, PlainRun())


def outcome(module: nn.Module, captured: Captured) -> list[Tensor]:
    """Outputs of a mixed pack, and the gradients of all parameters."""
    signature = signature_of(module)
    sizes = [signature.sized(one) for one in NEW[:2]]
    calls = [call_of(signature, one, i) for i, one in enumerate(sizes)]
    found = [x for one in found_of(captured, sizes, calls, PlainRun()) for x in one]
    module.zero_grad()
    torch.stack([x.square().sum() for x in found]).sum().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert len(gradients) > len(found)
    return [x.detach() for x in found] + gradients


def refuse(*_: object) -> None:
    raise AssertionError("the class was exported again")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_says_the_same_to_the_byte(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [build(BY_NAME[name]).requires_grad_(True) for _ in range(2)]
    first = captured_from(modules[0]).captured
    assert not first.is_cached
    expected = outcome(modules[0], first)
    # The package has a function of the name of its module.
    monkeypatch.setattr(sys.modules["musiva.compiler.capture"], "export", refuse)
    monkeypatch.setattr("musiva.compiler.captured.export", refuse)
    second = captured_from(modules[1]).captured
    assert second.is_cached
    assert second.entry == first.entry
    assert second.text == first.text
    assert second.artifact.program == first.artifact.program
    assert second.parts == first.parts
    found = outcome(modules[1], second)
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def test_weights_are_those_of_the_module_at_hand(tmp_path: Path) -> None:
    """Also where there were none when it was captured."""
    name = "PixArtTransformer2DModel"
    build(BY_NAME[name]).save_pretrained(tmp_path)
    without = captured_from(module_from(tmp_path, weights=False)).captured
    assert not without.is_cached
    assert not any(bool(one.any()) for one in without.module.parameters())
    for module in (module_from(tmp_path), build(BY_NAME[name], 1)):
        signature, denoiser = signature_of(module), captured_from(module)
        assert denoiser.captured.is_cached
        sizes = [signature.sized(one) for one in NEW[:2]]
        with torch.no_grad():
            assert largest_error(denoiser.captured, signature, sizes, PlainRun()) < 1e-4


def test_a_small_class_is_kept_with_all_that_it_needs(kept: Path, tmp_path: Path) -> None:
    found = captured_of(small(tmp_path), SIGNATURE)
    assert found.is_cached
    artifact = found.artifact
    # Positions that torch works out, a table that Python does, constants made of weights, and one
    # that the graph brings along.
    assert artifact.sized > artifact.baked > set()
    assert {"embed_constants", "blocks_0_constants"} <= found.early.keys()
    assert error(found) < 1e-5
    assert {one.name for one in kept.iterdir()} >= {*FILES}
    assert len(list((kept / "sizes").iterdir())) == len(SIZES)


def test_other_weights_of_a_small_class(kept: Path, tmp_path: Path) -> None:
    found = captured_of(small(tmp_path, seed=3), SIGNATURE)
    assert found.is_cached
    assert error(found) < 1e-5
    with torch.no_grad():
        for tensor in (*found.module.parameters(), *found.module.buffers()):
            tensor.mul_(1.5)
    assert error(found) > 1e-3  # constants are as they were bound
    found.bind()
    assert error(found) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": SOURCE.replace("3.0", "4.0")}, "structure, sources"),
        pytest.param(
            {"source": SOURCE.replace("scale = 2.0", "scale = 2.5")},
            "structure, sources",
            marks=pytest.mark.matrix,
        ),
        ({"width": 6}, "structure"),
    ],
)
def test_another_model_is_captured_anew(
    kept: Path,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    change: dict[str, object],
    said: str,
) -> None:
    found = captured_of(small(tmp_path, **change), SIGNATURE)
    assert not found.is_cached
    assert error(found) < 1e-5
    assert f"Small is captured: other {said}\n" in log.text
    assert captured_of(small(tmp_path, **change), SIGNATURE).is_cached


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_what_is_broken_is_not_read(kept: Path, name: str, how: str) -> None:
    path = kept / name
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 4
        path.write_bytes(bytes(content[:middle]) if how == "cut" else bytes(content))
    with pytest.raises(Unusable):
        from_files(stored(kept))


@pytest.mark.parametrize(
    "tables", [[], {}, {"artifact": {}}, {"ops": 1}, "text", {"ops": [], "artifact": {"title": 1}}]
)
def test_tables_of_another_kind_are_not_read(kept: Path, tables: object) -> None:
    files = {**stored(kept), "capture.json": json.dumps(tables).encode()}
    with pytest.raises(Unusable, match=r"capture\.json"):
        from_files(files)


@pytest.mark.parametrize(
    "name",
    [
        "program.py",
        *(pytest.param(n, marks=pytest.mark.matrix) for n in ("capture.json", MANIFEST)),
    ],
)
def test_what_is_broken_is_captured_anew_and_replaced(
    kept: Path, tmp_path: Path, log: pytest.LogCaptureFixture, name: str
) -> None:
    content = (kept / name).read_bytes()
    (kept / name).write_bytes(content[: len(content) // 2])
    found = captured_of(small(tmp_path), SIGNATURE)
    assert not found.is_cached
    assert error(found) < 1e-5
    assert "Small is captured anew" in log.text
    assert name in log.text or name == MANIFEST
    assert captured_of(small(tmp_path), SIGNATURE).is_cached


def test_sizes_that_are_broken_are_looked_up_anew(
    kept: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    for one in (kept / "sizes").iterdir():
        (one / "prologue.py").write_text("def places(*_): return {}")
    found = captured_of(small(tmp_path), SIGNATURE)
    assert found.is_cached
    assert error(found) < 1e-5
    assert "prologue.py is not as it was written: the class is looked at again" in log.text
    log.clear()
    assert error(captured_of(small(tmp_path), SIGNATURE)) < 1e-5
    assert "looked at again" not in log.text


def test_the_oldest_sizes_are_forgotten(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.compiler.entry.MOST_SIZES", 3)
    found = captured_of(small(tmp_path), SIGNATURE)
    for rows in (4, 5, 7):
        found.places(SIGNATURE.sized({"rows": rows}))
    names = {one.name.partition("-")[0] for one in (kept / "sizes").iterdir()}
    assert names == {"rows=4", "rows=5", "rows=7"}


def test_where_nothing_can_be_kept_it_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MUSIVA_CACHE_DIR", str(tmp_path / "file"))
    found = captured_of(small(tmp_path), SIGNATURE)
    assert not found.is_cached
    assert found.entry is None
    assert error(found) < 1e-5
    assert sum("could not be kept" in one.message for one in log.records) == 1


def test_what_hangs_on_hooks_is_not_kept(
    folder: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    module = small(tmp_path)
    module.blocks[0].register_forward_pre_hook(lambda *_: None)
    assert captured_of(module, SIGNATURE).entry is None
    assert "its capture is not kept: blocks.0 has hooks" in log.text
    assert not folder.exists()


def test_a_program_that_was_held_against_its_class_is_held_again_shortly(
    kept: Path, tmp_path: Path
) -> None:
    def sizes_of(denoiser: object) -> set[int]:
        return {dict(key)["rows"] for key in denoiser.captured._sized}

    denoiser = captured_from(small(tmp_path), SIGNATURE)
    assert not denoiser.captured.entry.is_verified
    assert sizes_of(verified(denoiser, SIGNATURE)) == {6, 4}
    again = captured_from(small(tmp_path), SIGNATURE)
    assert again.captured.entry.is_verified
    assert sizes_of(verified(again, SIGNATURE)) == {6}
    # What was written since was held against nothing.
    again.captured.entry.write(again.captured.artifact, {})
    assert not again.captured.entry.is_verified


def test_a_kept_program_that_is_wrong_is_captured_anew(
    kept: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    files = stored(kept)
    wrong = files["program.py"].replace(b" * 3.0", b" * 2.0")
    assert wrong != files["program.py"]
    written_to(kept, {**files, "program.py": wrong})
    denoiser = captured_from(small(tmp_path), SIGNATURE)
    assert denoiser.captured.is_cached
    assert error(denoiser.captured) > 1e-3
    right = verified(denoiser, SIGNATURE)
    assert not right.captured.is_cached
    assert error(right.captured) < 1e-5
    assert "as it is kept: captured anew" in log.text
    assert error(captured_of(small(tmp_path), SIGNATURE)) < 1e-5


def test_a_program_that_is_wrong_when_it_is_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = captured_from(small(tmp_path), SIGNATURE)
    text = denoiser.captured.text.replace(" * 3.0", " * 2.0")
    made = replace(denoiser.captured.artifact, text=text)
    monkeypatch.setattr("musiva.models.captured.cache.capture", lambda module, *_: other(module))

    def other(module: nn.Module) -> Captured:
        return bound(module, SIGNATURE.arguments, made)

    with pytest.raises(CannotCapture, match="differs from the class"):
        verified(captured_from(small(tmp_path), SIGNATURE, fresh=True), SIGNATURE)


def test_an_artifact_is_read_as_it_was_written(kept: Path, tmp_path: Path) -> None:
    artifact = captured_of(small(tmp_path), SIGNATURE).artifact
    again = from_files(files_of(artifact))
    assert replace(again, prologue=artifact.prologue) == artifact
    assert again.prologue.text == artifact.prologue.text
    # An operation of several parts is one.
    ops = {id(op) for op in again.program.ops}
    assert all(id(op) in ops for part in again.parts for op in part.ops)


def test_tensors_of_all_kinds_are_read_as_they_were_written() -> None:
    x = torch.arange(6.0).view(2, 3)
    tensors = {
        "plain": x,
        "turned": x.T,
        "part": x[:, 1:],
        "number": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "whole": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "half": x.bfloat16(),
        "complex": torch.polar(x, x),
        "mirrored": torch.polar(x, x).conj(),
        "double complex": torch.polar(x, x).to(torch.complex128),
    }
    found = prologue_of(prologue_files(Prologue("text = 1", tensors)))
    assert found.text == "text = 1"
    assert found.tensors.keys() == tensors.keys()
    for name, one in tensors.items():
        assert found.tensors[name].dtype == one.dtype, name
        assert torch.equal(found.tensors[name], one), name
