"""What a capture depends on, as digests: it is kept on disk under all of them.

That is the source of the classes, the config, whatever else hangs on the modules, the shapes of
weights and not what is in them, the layouts of arguments, the sizes that are looked at, the
compiler and the libraries below.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from importlib import metadata
from logging import Logger
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

import musiva.compiler
from musiva.compiler import Argument, Sizes, digest

__all__ = ["Unkept", "facts_of"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Where diffusers has the config of a module, with notes of its own under names that begin with "_".
CONFIG = "_internal_dict"
LEAVES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)


class Unkept(Exception):
    """A capture cannot be kept; the message says why."""


def facts_of(
    module: nn.Module, arguments: Mapping[str, Argument], sizes: Sequence[Sizes]
) -> dict[str, str]:
    """By kind. Raises Unkept where something is attached to the module of which it cannot be told
    what it does.
    """
    told = _Told(module)
    structure = told.structure()
    try:
        return {
            "class": _name(type(module)),
            "structure": digest(structure),
            "sources": digest(_sources(told.files)),
            "arguments": digest([_argument(name, one, sizes) for name, one in arguments.items()]),
            "sizes": digest([dict(one) for one in sizes]),
            "compiler": _compiler(),
            "libraries": f"torch {torch.__version__}, {torch.get_default_dtype()}, "
            f"diffusers {_version('diffusers')}",
        }
    except TypeError as error:
        raise Unkept(str(error)) from error


def _argument(name: str, argument: Argument, sizes: Sequence[Sizes]) -> object:
    """Functions of sizes count by what they return."""
    made = [argument.make(one) for one in sizes] if argument.make is not None else None
    return name, argument.kind, argument.dims, argument.batch, argument.high, made


class _Told:
    """A module, and whatever hangs on it, as values that have a digest. files: names of the Python
    modules that its classes and functions are of.
    """

    def __init__(self, module: nn.Module) -> None:
        self.files: set[str] = set()
        self._modules = dict(module.named_modules())
        self._names = {id(one): name for name, one in self._modules.items()}
        self._internal = frozenset(vars(nn.Module()))
        # Tensors are told apart, so that one in two places is not two alike.
        self._weights: dict[int, int] = {}
        # What may hold itself, with the values, so that no other takes their place in memory.
        self._seen: dict[int, tuple[int, object]] = {}

    def structure(self) -> object:
        return [self._module(name, one) for name, one in self._modules.items()]

    def _module(self, name: str, one: nn.Module) -> object:
        if any(getattr(one, hooks) for hooks in HOOKS):
            raise Unkept(f"{name or 'the module'} has hooks")
        if hasattr(one, "parametrizations"):
            raise Unkept(f"{name or 'the module'} has parametrizations")
        own = [(key, vars(one)[key]) for key in sorted(vars(one).keys() - self._internal)]
        loose = one._non_persistent_buffers_set
        return (
            name,
            self._class(type(one)),
            # The class may have got another one since it was written.
            self._value(type(one).forward, f"{name}.forward"),
            one.training,
            [(key, self._weight(tensor)) for key, tensor in one._parameters.items()],
            [(key, self._buffer(tensor), key in loose) for key, tensor in one._buffers.items()],
            [(key, self._names.get(id(child))) for key, child in one._modules.items()],
            [(key, self._attribute(key, value, name)) for key, value in own],
        )

    def _weight(self, tensor: Tensor | None) -> object:
        if tensor is None:
            return None
        alike = self._weights.setdefault(id(tensor), len(self._weights))
        shape, dtype = tuple(tensor.shape), tensor.dtype
        return alike, _name(type(tensor)), shape, dtype, tensor.device, tensor.is_contiguous()

    def _buffer(self, tensor: Tensor | None) -> object:
        """Tables of whole numbers say what is computed; all others are weights."""
        is_weight = tensor is None or tensor.is_floating_point() or tensor.is_complex()
        return self._weight(tensor), None if is_weight else tensor

    def _attribute(self, key: str, value: object, owner: str) -> object:
        if key == CONFIG and isinstance(value, Mapping):
            value = {name: one for name, one in value.items() if not name.startswith("_")}
        return self._value(value, f"{owner}.{key}".lstrip("."))

    def _value(self, value: object, where: str) -> object:
        """where: what errors call it."""
        if isinstance(value, Enum):
            return self._class(type(value)), value.name
        if value is None or isinstance(value, (*LEAVES, Tensor)):
            return value
        if value is ...:
            return "ellipsis", ()
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module) and id(value) in self._names:
            return "module", self._names[id(value)]
        if isinstance(value, ModuleType | Logger):
            return type(value).__name__, getattr(value, "__name__", "")
        if isinstance(value, BuiltinFunctionType | OpOverload | OpOverloadPacket):
            return type(value).__name__, str(value.__module__), value.__name__
        if isinstance(value, tuple | frozenset | CodeType):
            return self._whole(value, where)
        if id(value) in self._seen:
            return "again", self._seen[id(value)][0]
        self._seen[id(value)] = len(self._seen), value
        return self._whole(value, where)

    def _whole(self, value: object, where: str) -> object:
        """Of what has parts."""
        if isinstance(value, Mapping):
            items = [self._value(one, where) for item in value.items() for one in item]
            return self._class(type(value)), items
        if isinstance(value, list | tuple):
            return type(value).__name__, [self._value(one, where) for one in value]
        if isinstance(value, set | frozenset):
            return "set", sorted(digest(self._value(one, where)) for one in value)
        if isinstance(value, np.ndarray | np.generic):
            return "array", str(value.dtype), value.shape, value.tobytes()
        if isinstance(value, partial):
            parts = (value.func, value.args, value.keywords)
            return "partial", [self._value(one, where) for one in parts]
        if isinstance(value, MethodType):
            return "method", self._value(value.__func__, where), self._value(value.__self__, where)
        if isinstance(value, FunctionType):
            return self._function(value, where)
        if isinstance(value, CodeType):
            constants = [self._value(one, where) for one in value.co_consts]
            return "code", value.co_code, value.co_names, constants
        return self._object(value, where)

    def _function(self, value: FunctionType, where: str) -> object:
        self.files.add(str(value.__module__))
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, held)
        name = f"{value.__module__}.{value.__qualname__}"
        return "function", name, [self._value(one, where) for one in parts]

    def _object(self, value: object, where: str) -> object:
        if hasattr(value, "__dict__"):
            own: Mapping[str, object] = vars(value)
        elif is_dataclass(value):
            own = {one.name: getattr(value, one.name) for one in fields(value)}
        else:
            raise Unkept(f"{where} is a {_name(type(value))}")
        inside = [(key, self._value(own[key], f"{where}.{key}")) for key in sorted(own)]
        return self._class(type(value)), inside

    def _class(self, kind: type) -> str:
        self.files.update(one.__module__ for one in kind.__mro__)
        return _name(kind)


def _sources(names: Iterable[str]) -> dict[str, str]:
    """Digests of the files of Python modules, and of those of their own packages from which they
    take functions and classes. Raises Unkept for one of these names without a file.
    """
    found: dict[str, str] = {}
    # The version of torch is told apart, that of Python does not matter.
    others = {"torch", *sys.stdlib_module_names} - {"__main__"}
    first = set(names)
    stack = sorted(first)
    while stack:
        name = stack.pop()
        package = name.partition(".")[0]
        if name in found or package in others:
            continue
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None)
        if module is None or not isinstance(path, str):
            if name in first:
                raise Unkept(f"{name} has no source file")
            continue
        try:
            found[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            raise Unkept(f"{path} cannot be read ({error})") from error
        homes = (_home(value, module) for value in list(vars(module).values()))
        stack += [one for one in homes if one.partition(".")[0] == package]
    return dict(sorted(found.items()))


def _home(value: object, within: ModuleType) -> str:
    """The Python module that something in another one is of. What a package has of its own modules
    hangs on what was imported before.
    """
    if type(value) is ModuleType:
        return "" if hasattr(within, "__path__") else value.__name__
    return str(value.__module__) if isinstance(value, type | FunctionType) else ""


def _compiler() -> str:
    """Of the sources of the compiler."""
    root = Path(next(iter(musiva.compiler.__path__)))
    files = sorted(root.rglob("*.py"))
    return digest([(str(one.relative_to(root)), one.read_bytes()) for one in files])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
