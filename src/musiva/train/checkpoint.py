"""Checkpoints that a kill at any byte cannot damage.

A checkpoint is a directory `step-<number>` of safetensors files, `state.json` and `manifest.json`,
which holds the SHA-256 of every other file. It is written under a temporary name, flushed to the
disk, then renamed; only after that are older ones removed. Reading takes the newest one whose
manifest holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from musiva.core.errors import BadCheckpoint

__all__ = ["Checkpoint", "is_valid", "load_checkpoint", "load_latest", "save_checkpoint"]

_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`groups` are named sets of tensors ("model", "ema", "optim"); `state` is plain JSON."""

    step: int
    groups: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, object]


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `checkpoint` below `directory`, then remove all but the `keep` newest; returns its
    path.

    Raises OSError when the disk refuses; what was there before is then still valid.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{checkpoint.step:09d}"
    temporary = directory / f".tmp-{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    files = {
        f"{group}.safetensors": _to_bytes(tensors) for group, tensors in checkpoint.groups.items()
    }
    files[_STATE] = _json_bytes({"step": checkpoint.step, **checkpoint.state})
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, content in {**files, _MANIFEST: _json_bytes(manifest)}.items():
        _write(temporary / name, content)
    _sync_directory(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync_directory(directory)
    for old in _steps(directory)[keep:]:
        shutil.rmtree(old)
    return final


def load_latest(directory: Path) -> Checkpoint | None:
    """The newest valid checkpoint below `directory`, or None when there is none."""
    for path in _steps(directory):
        if is_valid(path):
            return load_checkpoint(path)
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises BadCheckpoint when a file is missing or differs from the
    manifest.
    """
    if not is_valid(path):
        raise BadCheckpoint(f"{path}: a file is missing or differs from {_MANIFEST}")
    state = json.loads((path / _STATE).read_bytes())
    groups = {file.stem: load(file.read_bytes()) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(step=state.pop("step"), groups=groups, state=state)


def is_valid(path: Path) -> bool:
    """True when the manifest is there and every file it names has the bytes it promises."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        return all(
            hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
            for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _steps(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
