"""Reading a component's config.json into a frozen dataclass; what is not understood is refused, by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

from musiva.core.errors import BadCheckpoint

__all__ = ["read_fields"]

Config = TypeVar("Config")


def read_fields(
    cls: type[Config],
    config: Mapping[str, object],
    *,
    where: str,
    fixed: Mapping[str, tuple[object, ...]],
) -> Config:
    """Build the dataclass `cls` from the keys it has fields for.

    fixed: keys without a field, and the values under which they change nothing. Keys that start
    with "_" are notes of the writer. Raises BadCheckpoint for an unknown key, a fixed key of
    another value, a missing key, or a value whose type differs from the field's default.
    """
    known = {f.name: f for f in fields(cls)}  # pyright: ignore[reportArgumentType]
    values: dict[str, object] = {}
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in known:
            values[key] = value
        elif key not in fixed:
            raise BadCheckpoint(
                f"{where}: {key}={value!r} is not a known setting; "
                f"known: {', '.join(sorted(known))}"
            )
        elif value not in fixed[key]:
            allowed = ", ".join(repr(v) for v in fixed[key])
            raise BadCheckpoint(f"{where}: {key}={value!r} is not supported; supported: {allowed}")
    for name, f in known.items():
        if name not in values:
            if f.default is MISSING:
                raise BadCheckpoint(f"{where}: {name} is missing")
            continue
        value, kind = values[name], str(f.type)
        fits = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
        }
        if not any(fits.get(k, value is None and k == "None") for k in kind.split(" | ")):
            raise BadCheckpoint(f"{where}: {name}={value!r}; expected {kind}")
        if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            raise BadCheckpoint(f"{where}: {name}={value!r}; expected a number of at least 0")
    return cls(**values)
