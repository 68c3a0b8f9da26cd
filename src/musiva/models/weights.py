"""Tensors of a component of a diffusers directory, and how they get into a module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint

__all__ = ["load_weights", "read_config", "read_tensors"]

STEMS = ("diffusion_pytorch_model", "model")


def read_config(directory: Path, name: str = "config.json") -> dict[str, object]:
    """The JSON object in directory/name. Raises BadCheckpoint if it is absent or no JSON object."""
    path = directory / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadCheckpoint(f"{path}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a component, in the dtype of the files; one file or shards with an index.

    Raises BadCheckpoint naming the file that is absent, cut short or no safetensors file.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                tensors.update((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - not a dict
        except FileNotFoundError as error:
            raise BadCheckpoint(f"{path}: weights file is missing") from error
        except (SafetensorError, OSError) as error:
            raise BadCheckpoint(f"{path}: not a complete safetensors file ({error})") from error
    return tensors


def _files(directory: Path) -> list[Path]:
    for stem in STEMS:
        single, index = (
            directory / f"{stem}.safetensors",
            directory / f"{stem}.safetensors.index.json",
        )
        if single.is_file():
            return [single]
        if index.is_file():
            weight_map = read_config(directory, index.name).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise BadCheckpoint(f"{index}: weight_map: expected tensor names and files")
            return [directory / str(name) for name in sorted(set(weight_map.values()))]
    raise BadCheckpoint(
        f"{directory}: no weights; expected one of {', '.join(f'{s}.safetensors' for s in STEMS)}"
    )


def _check_tensors(
    given: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str
) -> None:
    """Raise BadCheckpoint unless names and shapes agree; the message names the first few that do
    not.
    """
    problems = [f"{name} is missing" for name in sorted(expected.keys() - given.keys())]
    problems += [
        f"{name} is not a tensor of this model" for name in sorted(given.keys() - expected.keys())
    ]
    problems += [
        f"{name} has shape {list(given[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name].shape != shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadCheckpoint(f"{where}: {'; '.join(problems[:5])}{more}")


def load_weights(module: nn.Module, source: Path | Mapping[str, Tensor]) -> None:
    """Give `module` the tensors of a component directory, or of a state dict, whose names and
    shapes must agree.
    """
    tensors = read_tensors(source) if isinstance(source, Path) else source
    where = str(source) if isinstance(source, Path) else type(module).__name__
    _check_tensors(tensors, {name: t.shape for name, t in module.state_dict().items()}, where)
    module.load_state_dict(tensors, strict=True, assign=True)
