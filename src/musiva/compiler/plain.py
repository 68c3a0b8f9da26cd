"""Dataclasses of plain values as JSON, and back: what is read has the types that were written, or
it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["plain", "typed"]

T = TypeVar("T")
LEAVES = (str, int, float, bool, NoneType)


def plain(value: object, without: Sequence[str] = ()) -> object:
    """Of mappings by words, lists and numbers; sets in order. without: fields that are left out.
    Raises TypeError for what has no such form.
    """
    if is_dataclass(value):
        names = (one.name for one in fields(value) if one.name not in without)
        return {name: plain(getattr(value, name)) for name in names}
    if type(value) in LEAVES:
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"{list(value)}: names are words")
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return [plain(one) for one in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    raise TypeError(f"{type(value).__name__} is no plain value")


def typed(kind: type[T], value: object, **given: object) -> T:
    """The inverse of `plain`, for a dataclass. given: fields that were left out. Raises ValueError
    where the value is of another type.
    """
    hints = _hints(kind)
    wanted = hints.keys() - given.keys()
    if not isinstance(value, dict) or value.keys() != wanted:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{kind.__name__}: {found}, and not {sorted(wanted)}")
    made = {name: _read(hints[name], one) for name, one in value.items()}
    return kind(**made, **given)


@cache
def _hints(kind: type) -> dict[str, Any]:
    every = get_type_hints(kind)
    return {one.name: every[one.name] for one in fields(kind)}


def _read(kind: Any, value: object) -> object:
    if kind in LEAVES:
        if type(value) is kind:
            return value
    elif kind is object:
        return value
    elif is_dataclass(kind):
        return typed(kind, value)  # pyright: ignore[reportArgumentType]
    else:
        origin, of = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return _one_of(of, value)
        if isinstance(value, dict) and origin in (dict, Mapping):
            return {name: _read(of[1], one) for name, one in value.items()}
        if isinstance(value, list) and origin is tuple and of[-1] is not ...:
            if len(value) == len(of):
                return tuple(map(_read, of, value))
        elif isinstance(value, list) and origin in LISTS:
            return LISTS[origin](_read(of[0], one) for one in value)
    raise ValueError(f"{str(value)[:80]!r} is no {kind}")


LISTS: Mapping[object, Any] = {
    list: list,
    tuple: tuple,
    Sequence: tuple,
    set: set,
    frozenset: frozenset,
}


def _one_of(kinds: Sequence[Any], value: object) -> object:
    for kind in kinds:
        try:
            return _read(kind, value)
        except ValueError:
            continue
    raise ValueError(f"{str(value)[:80]!r} is none of {kinds}")
