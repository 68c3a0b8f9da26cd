"""Which module serves which diffusers class."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from musiva.core.errors import BadCheckpoint
from musiva.models.base import Family

__all__ = ["FAMILIES", "family_of"]

FAMILIES = {"PixArtTransformer2DModel": "musiva.models.pixart"}


def family_of(class_name: object) -> Family:
    """The family that reproduces a diffusers class. Raises BadCheckpoint for a class without
    one.
    """
    if not isinstance(class_name, str) or class_name not in FAMILIES:
        raise BadCheckpoint(
            f"_class_name: {class_name!r} has no family; supported: {', '.join(sorted(FAMILIES))}"
        )
    return cast(Family, import_module(FAMILIES[class_name]))
