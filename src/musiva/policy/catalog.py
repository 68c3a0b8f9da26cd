"""Policies by name: `NAME` or `NAME:FIELD=VALUE,...`, and classes in a user's own file,
`FILE.py:CLASS` with fields in the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from musiva.core.errors import InvalidInput
from musiva.policy.adaptive import Adaptive
from musiva.policy.adaptive_tiles import AdaptiveTiles
from musiva.policy.base import Asks, Policy
from musiva.policy.first_block import FirstBlock
from musiva.policy.interval import Interval
from musiva.policy.marked import Marked
from musiva.policy.never import Never
from musiva.policy.ras import Ras
from musiva.policy.refine import Refine
from musiva.policy.tea_cache import TeaCache

__all__ = [
    "POLICIES",
    "PolicyClass",
    "build_policy",
    "load_policy_class",
    "place_of",
    "with_own",
]

PolicyClass = Callable[..., Policy]
# How modules of users' files are named, before a digest of the path: without a dot, at which pickle
# would look for a package.
LOADED = "musiva_policy_"
POLICIES: Mapping[str, PolicyClass] = MappingProxyType(
    {
        "never": Never,
        "interval": Interval,
        "adaptive": Adaptive,
        "adaptive_tiles": AdaptiveTiles,
        "first_block": FirstBlock,
        "tea_cache": TeaCache,
        "ras": Ras,
        "refine": Refine,
        "marked": Marked,
    }
)


def build_policy(spec: str, policies: Mapping[str, PolicyClass] = POLICIES) -> Policy:
    """Raises InvalidInput for "policy" if there is none of that name, or for a field of it."""
    name, _, given = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if name not in policies:
        raise InvalidInput("policy", spec, f"{', '.join(policies)}, then :FIELD=VALUE,...")
    made = policies[name]
    known = _fields(made)
    values: dict[str, object] = {}
    for part in filter(None, given.split(",")):
        field, equals, text = part.partition("=")
        if field not in known or not equals or field in values:
            allowed = f"{name}:FIELD=VALUE,... with fields {', '.join(known) or 'none'}, once each"
            raise InvalidInput("policy", spec, allowed)
        values[field] = _number(spec, field, text)
    try:
        policy = made(**values)
        Asks.of(policy)
    except InvalidInput as error:
        raise InvalidInput("policy", spec, f"{error.field} {error.allowed}") from error
    except (Exception, SystemExit) as error:
        # The constructor of a user's class is anybody's code.
        raise InvalidInput("policy", spec, f"one that can be made ({error!r})") from error
    return policy


def with_own(spec: str) -> tuple[str, Mapping[str, PolicyClass]]:
    """A policy as `build_policy` takes it, and the policies it is out of. `FILE.py:CLASS[:FIELD=
    VALUE,...]` adds that class, under its name in lower case. Runs that file. Raises InvalidInput.
    """
    file, mark, rest = spec.rpartition(".py:")
    if not mark:
        return spec, POLICIES
    place, separator, fields = rest.partition(":")
    name, made = load_policy_class(f"{file}{mark}{place}")
    return f"{name}{separator}{fields}", {**POLICIES, name: made}


def load_policy_class(place: str) -> tuple[str, PolicyClass]:
    """`FILE.py:CLASS` -> the class's name in lower case, and the class. Runs that file. Raises
    InvalidInput.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise InvalidInput("policy", place, "FILE.py:CLASS, a file that is there")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    spec = importlib.util.spec_from_file_location(f"{LOADED}{digest[:16]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their annotations up in the module of that name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise InvalidInput("policy", place, f"a file that Python can run ({error!r})") from error
    made = getattr(module, name, None)
    wanted = ("probes", "keep", "begin", "observe", "act")
    missing = [m for m in wanted if not hasattr(made, m)]
    if not isinstance(made, type) or missing:
        raise InvalidInput("policy", place, f"a class with {', '.join(missing or ['methods'])}")
    return name.lower(), made


def place_of(made: PolicyClass) -> str | None:
    """Where `load_policy_class` finds a class that it has loaded; None for any other."""
    module = getattr(made, "__module__", "")
    if not module.startswith(LOADED):
        return None
    return f"{sys.modules[module].__file__}:{getattr(made, '__qualname__', '')}"


def _fields(made: PolicyClass) -> list[str]:
    if not dataclasses.is_dataclass(made):
        return []
    return [f.name for f in dataclasses.fields(made)]


def _number(spec: str, field: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InvalidInput("policy", spec, f"a number for {field}")
