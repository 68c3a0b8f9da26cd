"""`musiva inspect`: where the compute of a picture went, and what it was worth."""

from __future__ import annotations

import io
import json
import logging
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musiva.cli.machine import load_engine
from musiva.cli.pictures import check_writable, write_atomically
from musiva.core.env import Env
from musiva.core.errors import InvalidInput, UnknownModel

if TYPE_CHECKING:
    import numpy as np

    from musiva.core.types import Request
    from musiva.engine import Engine
    from musiva.perf.inspect import Findings
    from musiva.policy import PolicyClass

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(arguments: Namespace, env: Env) -> int:
    """What can be refused is refused before anything is computed."""
    prompt, options = _parameters(arguments.picture)
    known = options.pop("model", None)
    check_writable("out", arguments.out)
    policies = _policies(arguments.policy, options.get("policy"))
    arguments.model = _model(arguments.model, known)
    from musiva.engine import Engine

    config = Engine.Config(policies=policies, store_bytes=arguments.store_mib << 20)
    with load_engine(arguments, env, config) as engine:
        name = engine.pipeline.name
        if known not in (None, name):
            raise UnknownModel("model", name, f"{known!r}, which the picture was made with")
        request = engine.request(prompt, **options)
        if request.frames > 1:
            allowed = "a picture; this is a clip"
            raise InvalidInput("picture", str(arguments.picture), allowed)
        findings = _find(engine, request)
        parameters = engine.parameters(request, 0)
    told = {
        "picture": str(arguments.picture),
        "parameters": parameters,
        "policy": request.policy,
        "file_psnr": _file_psnr(arguments.picture, findings.run.picture),
        **findings.as_json(),
    }
    from musiva.perf.inspect import draw

    chart = io.BytesIO()
    draw(findings, prompt, _facts(request, parameters)).save(chart, "PNG")
    stem = f"{arguments.picture.stem}.inspect"
    for suffix, content in ((".png", chart.getvalue()), (".json", _text(told))):
        path = arguments.out / f"{stem}{suffix}"
        write_atomically(path, content)
        print(path)
    return 0


def _parameters(picture: Path) -> tuple[str, dict[str, Any]]:
    """Prompt and options that a picture carries. Raises InvalidInput."""
    from musiva.client import options_from
    from musiva.core.provenance import read_parameters

    try:
        prompt, options = options_from(read_parameters(picture))
    except InvalidInput as error:
        raise InvalidInput("PICTURE", error.value, error.allowed) from error
    return prompt, dict(options)


def _policies(place: str | None, spec: str | None) -> Mapping[str, PolicyClass]:
    """Those that are there, with the class of --policy, which has to be the picture's."""
    from musiva.policy import POLICIES, load_policy_class

    name = (spec or "never").partition(":")[0]
    if place is None:
        if name not in POLICIES:
            allowed = "with --policy FILE.py:CLASS, the class that the picture was made with"
            raise InvalidInput("policy", spec, allowed)
        return POLICIES
    own, made = load_policy_class(place)
    if own != name:
        allowed = f"the class that the picture was made with, which is called {name!r}"
        raise InvalidInput("policy", place, allowed)
    return {**POLICIES, own: made}


def _model(chosen: str | None, known: str | None) -> str:
    """What to load. Raises UnknownModel for a picture's model that is known by its name only."""
    if chosen is not None or known is None:
        return chosen or "default"
    from musiva.engine import shipped_models

    if known not in shipped_models():
        allowed = "a shipped model, or the directory of the picture's by --model DIR"
        raise UnknownModel("model", known, allowed)
    return known


def _find(engine: Engine, request: Request) -> Findings:
    from musiva.core.types import Level
    from musiva.perf.inspect import compare, follow
    from musiva.policy import TilePolicy

    policy = engine.policies_of(request)[0]
    print("the picture, as it was made", file=sys.stderr, flush=True)
    run = follow(engine, request)
    print("its dense run", file=sys.stderr, flush=True)
    dense = follow(engine, replace(request, levels=(Level("never"),)))
    if not isinstance(policy, TilePolicy):
        return compare(run, dense, None)
    height, width = (side * engine.pipeline.unit for side in policy.tile)
    return compare(run, dense, (height, width))


def _file_psnr(file: Path, picture: np.ndarray) -> float | None:
    """Of the file against the picture that was made of it now; None for one of another size. Warns
    where a file that loses nothing has other pixels.
    """
    import numpy as np
    from PIL import Image

    from musiva.perf.quality import psnr

    with Image.open(file) as image:
        lossless, pixels = image.format == "PNG", np.asarray(image.convert("RGB"))
    if lossless and not np.array_equal(pixels, picture):
        log.warning(
            "%s has other pixels than what its parameters give here: it was changed, or made on "
            "another machine, with another version, --dtype, --compile or room in the store",
            file,
        )
    return round(psnr(pixels, picture), 2) if pixels.shape == picture.shape else None


def _facts(request: Request, parameters: Mapping[str, object]) -> list[str]:
    path = request.path
    made = f"{parameters['size']}, {path.steps} steps of {parameters['sampler']}"
    made += f", guidance {request.guidance:g}, seed {request.seed}, model {parameters['model']}"
    return [f"Quality {request.min_quality}, policy {request.policy}", made]


def _text(told: Mapping[str, object]) -> str:
    return json.dumps(told, indent=2) + "\n"
