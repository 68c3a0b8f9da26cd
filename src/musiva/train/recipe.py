"""Recipes and the files beside them: plain Python files, loaded by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from musiva.core.errors import InvalidInput

__all__ = ["load_recipe", "load_script"]

RECIPES = Path("recipes")


def load_recipe(name: str) -> ModuleType:
    """A path to a .py file, or the name of one in recipes/ here. Raises InvalidInput."""
    path = Path(name) if name.endswith(".py") else RECIPES / f"{name}.py"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES.glob("*.py")) if RECIPES.is_dir() else []
        allowed = "a path to a .py file" + (f", or one of {', '.join(known)}" if known else "")
        raise InvalidInput("RECIPE", name, allowed)
    recipe = load_script(path)
    missing = [part for part in ("STAGES", "main") if not hasattr(recipe, part)]
    if missing:
        raise InvalidInput("RECIPE", name, f"a recipe; this file lacks {' and '.join(missing)}")
    return recipe


def load_script(path: Path) -> ModuleType:
    """The module in a .py file, which may import the files beside it, as a script does."""
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
