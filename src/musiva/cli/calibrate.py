"""`musiva calibrate`: measure a model, and keep what was found beside its weights."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from musiva.cli.machine import as_loaded, set_threads
from musiva.cli.pictures import check_writable
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]

DEFAULT_STEPS = 50


def run(arguments: Namespace, env: Env) -> int:
    """Everything that can be refused is refused before the measuring, which takes minutes."""
    set_threads(arguments.threads, env)
    from musiva.engine.load import load_pipeline, model_directory
    from musiva.perf.calibration import Plan, calibrate
    from musiva.policy import FOLDER

    directory = model_directory(arguments.model)
    out: Path = directory if arguments.out is None else arguments.out
    check_writable("out", out)
    own = directory / FOLDER / "prompts.txt"
    prompts = _prompts(arguments.prompts, own)
    pipeline = load_pipeline(arguments.model, **as_loaded(arguments))
    steps = arguments.steps or sorted({pipeline.defaults.steps, DEFAULT_STEPS}, reverse=True)
    plan = Plan(prompts, steps, arguments.size, arguments.guidance)
    found = calibrate(pipeline, plan, lambda line: print(line, file=sys.stderr, flush=True))
    folder = found.write(out)
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    print(folder)
    return 0


def _prompts(file: Path | None, own: Path) -> list[str]:
    """Lines of a file that are not empty. Raises InvalidInput."""
    if file is None and not own.is_file():
        allowed = "a text file, a prompt a line: this model has none of an earlier calibration"
        raise InvalidInput("prompts", None, allowed)
    path = own if file is None else file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "prompts", str(path), f"a text file that can be read ({error})"
        ) from error
    return [line.strip() for line in lines if line.strip()]
