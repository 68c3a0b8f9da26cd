"""`musiva models`: what is shipped, or what a directory holds, by configs and headers alone."""

from __future__ import annotations

import json
import math
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musiva.core.env import Env
from musiva.core.errors import BadCheckpoint, CannotCapture, Unavailable, UnknownModel

__all__ = ["inspect", "run"]

Facts = dict[str, object]
# Letters of a reason.
MOST = 300


def run(arguments: Namespace, env: Env) -> int:
    from musiva.engine import shipped_models

    if arguments.directory is None:
        found = [inspect(directory) for directory in shipped_models().values()]
    else:
        found = [inspect(Path(arguments.directory))]
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("no model is shipped with this installation")
    for model in [] if arguments.json else found:
        _show(model)
    return 0


def inspect(directory: Path) -> Facts:
    """name, path, family, supported ("yes" or the reason why not), reach and defaults, components.

    Raises UnknownModel if it is neither a diffusers pipeline nor one component of it, BadCheckpoint
    if it is broken.
    """
    from musiva.models import read_config

    if (directory / "model_index.json").is_file():
        index = read_config(directory, "model_index.json")
        named = [
            name
            for name, entry in index.items()
            if isinstance(entry, list) and (directory / name).is_dir()
        ]
        components = {name: _component(directory / name) for name in sorted(named)}
        facts: Facts = {"family": index.get("_class_name")}
        try:
            facts |= _limits(directory)
        except (BadCheckpoint, Unavailable) as error:
            facts["supported"] = f"no: {error}"
    elif (directory / "config.json").is_file():
        components = {directory.name: _component(directory)}
        facts = {"family": components[directory.name]["class"]}
    else:
        allowed = "a directory with a model_index.json, or a component of one with a config.json"
        raise UnknownModel("DIR", str(directory), allowed)
    parameters = sum(int(str(one.get("parameters", 0))) for one in components.values())
    resolved = directory.resolve()
    return {
        "name": resolved.name,
        "path": str(resolved),
        **facts,
        "parameters": parameters,
        "components": components,
    }


def _component(directory: Path) -> Facts:
    """Its class, and of its weights the number of parameters, dtypes and bytes on disk."""
    from musiva.models import read_config

    name = next(
        (n for n in ("config.json", "scheduler_config.json") if (directory / n).is_file()), None
    )
    config = read_config(directory, name) if name else {}
    architectures = config.get("architectures")
    facts: Facts = {"class": config.get("_class_name")}
    if isinstance(architectures, list) and architectures:
        facts["class"] = architectures[0]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        headers = [_header(path) for path in files]
        tensors = [tensor for header in headers for tensor in header.values()]
        facts["parameters"] = sum(math.prod(shape) for _, shape in tensors)
        facts["dtypes"] = sorted({dtype for dtype, _ in tensors})
        facts["bytes"] = sum(path.stat().st_size for path in files)
    return facts


def _header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Tensor name to dtype and shape. Raises BadCheckpoint for a file that is cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path}: not a complete safetensors file ({error})") from error


def _limits(directory: Path) -> Facts:
    """Whether a pipeline runs here, how, and what a request may ask of it. Raises BadCheckpoint if
    it is none that does.
    """
    import torch

    from musiva.engine import Defaults
    from musiva.models import read_config
    from musiva.models.captured import PIPELINES, module_from
    from musiva.models.vae import AutoencoderKL

    module = module_from(directory / "transformer", weights=False)
    facts: Facts = {"supported": "yes", **_reach(module)}
    kind = PIPELINES.get(str(read_config(directory, "model_index.json").get("_class_name")))
    if kind is not None:
        return {**facts, "steps": kind.steps, "guidance": kind.guidance}
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(read_config(directory / "vae"))
    config: Any = module.config
    unit = vae.downscale * config.patch_size
    defaults = Defaults.read(directory, config.sample_size * vae.downscale, unit)
    return {
        **facts,
        "size": "x".join(map(str, defaults.size)),
        "sides": f"{defaults.min_side} to {defaults.max_side}, multiples of {unit}",
        "steps": defaults.steps,
        "guidance": defaults.guidance,
    }


def _reach(module: Any) -> Facts:
    """What can be done with a class of diffusers: it is captured."""
    from musiva.models.captured import captured_from, signature_of

    try:
        denoiser = captured_from(module, signature_of(module))
    except CannotCapture as error:
        reason = textwrap.shorten(str(error), MOST, placeholder=" ...")
        return {"reach": "evaluations; batches on a GPU", "black box": reason}
    return {"reach": ", ".join(denoiser.reach)}


def _show(model: Mapping[str, object]) -> None:
    lines = {name: value for name, value in model.items() if name not in ("name", "components")}
    print(model["name"])
    for name, value in lines.items():
        print(f"  {name:12} {_count(value) if name == 'parameters' else value}")
    components: Mapping[str, Mapping[str, object]] = model["components"]  # type: ignore[assignment]
    for name, one in components.items():
        told = [str(one["class"] or "-")]
        if "parameters" in one:
            dtypes: list[str] = one["dtypes"]  # type: ignore[assignment]
            told += [
                _count(one["parameters"]),
                ", ".join(dtypes),
                f"{int(str(one['bytes'])) / 1e6:.1f} MB",
            ]
        print(f"    {name:14} {'  '.join(told)}")


def _count(parameters: object) -> str:
    number = int(str(parameters))
    return f"{number / 1e6:.2f} M" if number >= 10_000 else str(number)
