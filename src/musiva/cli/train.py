"""`musiva train`: run a recipe, a Python file with `STAGES` and `main(stage, *arguments)`."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

from musiva.cli.machine import set_threads
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["load_recipe", "run"]

RECIPES = Path("recipes")


def run(arguments: Namespace, env: Env) -> int:
    """Without a stage, all stages in order. A stage that was interrupted continues, one that is
    done passes.
    """
    set_threads(None, env)
    recipe = load_recipe(arguments.recipe)
    for stage in [arguments.stage] if arguments.stage else recipe.STAGES:
        recipe.main(stage, *arguments.argument)
    return 0


def load_recipe(name: str) -> ModuleType:
    """A path to a .py file, or the name of one in recipes/ here. Raises InvalidInput."""
    path = Path(name) if name.endswith(".py") else RECIPES / f"{name}.py"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES.glob("*.py")) if RECIPES.is_dir() else []
        allowed = "a path to a .py file" + (f", or one of {', '.join(known)}" if known else "")
        raise InvalidInput("RECIPE", name, allowed)
    # A recipe imports the files beside it, as a script does.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InvalidInput("RECIPE", name, "a path to a .py file")
    recipe = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = recipe
    spec.loader.exec_module(recipe)
    missing = [part for part in ("STAGES", "main") if not hasattr(recipe, part)]
    if missing:
        raise InvalidInput("RECIPE", name, f"a recipe; this file lacks {' and '.join(missing)}")
    return recipe
