"""`musiva train`: run a recipe, a Python file with `STAGES` and `main(stage, *arguments)`."""

from __future__ import annotations

from argparse import Namespace

from musiva.cli.machine import set_threads
from musiva.core.env import Env

__all__ = ["run"]


def run(arguments: Namespace, env: Env) -> int:
    """Without a stage, all stages in order. A stage that was interrupted continues, one that is
    done passes.
    """
    set_threads(None, env)
    from musiva.train import load_recipe

    recipe = load_recipe(arguments.recipe)
    for stage in [arguments.stage] if arguments.stage else recipe.STAGES:
        recipe.main(stage, *arguments.argument)
    return 0
