"""What a class of diffusers is called with, as a function of its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from musiva.compiler.arguments import Argument, Extent, Sizes, values

__all__ = ["Config", "Known", "Signature", "clip", "frames_first", "picture"]

# As the class has it: with all defaults.
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The arguments of a call for one sample, by name; a dot in a name says that it is an entry of
    a mapping. multiples: sizes that have to be multiples of a number. fixed: sizes that the class
    does not let vary. same: sizes that are always those of another name. before: how many tokens
    the class returns before those of its latent, along their axis.
    """

    arguments: Mapping[str, Argument]
    multiples: Sizes = field(default_factory=dict)
    fixed: Sizes = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    before: Extent = 0

    def sized(self, sizes: Sizes) -> dict[str, int]:
        """These sizes as the class allows them."""
        found = {name: size * self.multiples.get(name, 1) for name, size in sizes.items()}
        found |= self.fixed
        return found | {name: found[other] for name, other in self.same.items()}

    def allows(self, sizes: Sizes) -> bool:
        """Whether the class takes them."""
        return (
            all(sizes.get(name, n) == n for name, n in self.fixed.items())
            and all(sizes.get(name, 0) % n == 0 for name, n in self.multiples.items())
            and all(sizes.get(name) == sizes.get(other) for name, other in self.same.items())
        )

    def shown(self) -> str:
        """What is allowed, in words."""
        shapes = [
            f"{name} [{', '.join(map(str, one.dims))}]"
            for name, one in self.arguments.items()
            if one.is_data
        ]
        rules = [f"{name} a multiple of {n}" for name, n in self.multiples.items()]
        rules += [f"{name} = {n}" for name, n in self.fixed.items()]
        rules += [f"{name} = {other}" for name, other in self.same.items()]
        return "; ".join([", ".join(shapes), *rules])


Known = Callable[[Config], Signature]


def picture(channels: Extent, patch: int = 1) -> Argument:
    """A latent [C, H, W], of which a token is patch x patch positions."""
    return values(channels, *_grid(patch))


def clip(channels: Extent, patch: int = 1, frames: int = 1) -> Argument:
    """A latent [C, F, H, W]."""
    return values(channels, _times(frames, "frames"), *_grid(patch))


def frames_first(channels: Extent, patch: int = 1, frames: int = 1) -> Argument:
    """A latent [F, C, H, W]."""
    return values(_times(frames, "frames"), channels, *_grid(patch))


def _grid(patch: int) -> tuple[Extent, Extent]:
    return _times(patch, "rows"), _times(patch, "columns")


def _times(number: int, name: str) -> str:
    return name if number == 1 else f"{number}*{name}"
