"""Who has to go so that an owner finds room. Pure: nothing is changed before it is known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from musiva.store.entry import Entry
from musiva.store.space import Extent, Space

__all__ = ["Holding", "Room", "make_room", "place"]

Placement = Mapping[str, tuple[int, ...]]


@dataclass(slots=True, eq=False)
class Holding:
    """What an owner has: its entries by site, the bytes of their pages, and what they are worth."""

    entries: Mapping[str, Entry]
    num_bytes: int
    value: float

    @property
    def density(self) -> float:
        """Value per byte."""
        return self.value / self.num_bytes

    def give(self, space: Space) -> None:
        """Free its pages."""
        for entry in self.entries.values():
            space.give(entry.pages, entry.kind.page_bytes)

    def claim(self, space: Space) -> None:
        """Take its pages again."""
        for entry in self.entries.values():
            space.claim(entry.pages, entry.kind.page_bytes)


@dataclass(frozen=True, slots=True)
class Room:
    """pages: by site. space: what is free then. evicted: who had to go."""

    pages: Placement
    space: Space
    evicted: tuple[Hashable, ...]


def place(space: Space, extents: Mapping[str, Extent]) -> Placement | None:
    """Takes pages for all sites. None if they do not fit, and some may have been taken then. Large
    pages go first, since so the fewest bytes stay free between two sizes.
    """
    pages: dict[str, tuple[int, ...]] = {}
    for site, extent in sorted(extents.items(), key=lambda item: -item[1].page_bytes):
        taken = space.take(extent)
        if taken is None:
            return None
        pages[site] = taken
    return pages


def make_room(
    space: Space,
    extents: Mapping[str, Extent],
    value: float,
    others: Mapping[Hashable, Holding],
) -> Room | None:
    """Room for a newcomer of this value, where all of `others` may be evicted that are worth less
    per byte: the least one first, of equals the one that `others` names first. None if there is not
    enough of them, or if those in the way are together worth as much as the newcomer.
    """
    num_bytes = sum(extent.num_bytes for extent in extents.values())
    lesser = [owner for owner, one in others.items() if one.density < value / num_bytes]
    lesser.sort(key=lambda owner: others[owner].density)
    trial, count = space.copy(), 0
    while not _fits(trial, extents, num_bytes):
        if count == len(lesser):
            return None
        others[lesser[count]].give(trial)
        count += 1
    # The last one had to go; it may be large enough that some of those before it need not.
    evicted = lesser[:count]
    for owner in reversed(lesser[: max(count - 1, 0)]):
        others[owner].claim(trial)
        if _fits(trial, extents, num_bytes):
            evicted.remove(owner)
        else:
            others[owner].give(trial)
    if evicted and sum(others[owner].value for owner in evicted) >= value:
        return None
    pages = place(trial, extents)
    assert pages is not None
    return Room(pages, trial, tuple(evicted))


def _fits(space: Space, extents: Mapping[str, Extent], num_bytes: int) -> bool:
    return space.num_free >= num_bytes and place(space.copy(), extents) is not None
