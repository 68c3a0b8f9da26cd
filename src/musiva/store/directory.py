"""The directory: who in a cluster has which published pages, and which came after which.

Pages never change and are named by what they were made from, so that the worst a directory can say
is that somebody has one who has it no more; then it is computed. Who has not been heard of for a
while has nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from musiva.comm import Link

__all__ = [
    "NEXT",
    "TTL",
    "Directory",
    "Embedded",
    "Found",
    "Holder",
    "News",
    "RemoteDirectory",
    "answering",
]

# Seconds after which a holder that has not been heard of has nothing.
TTL = 15.0
# Pages that may be known to come after one; the last told count.
NEXT = 4


@dataclass(frozen=True, slots=True)
class Holder:
    """name: of its own in the whole cluster. address: where its pages can be had. place: of the
    folder that it shares with others of its host.
    """

    name: str
    address: str
    place: str


@dataclass(frozen=True, slots=True)
class News:
    """A page that somebody has. saves: seconds. after: the page before it of the same picture."""

    key: str
    num_bytes: int
    saves: float
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page that somebody has, and who."""

    key: str
    num_bytes: int
    saves: float
    holders: tuple[Holder, ...]


class Directory(Protocol):
    """Each call raises Unavailable where the directory cannot be asked."""

    def beat(self, holder: Holder) -> bool:
        """It lives; whether what it told is still known. If not, it has to tell all again."""
        ...

    def tell(self, name: str, news: Sequence[News]) -> None: ...

    def forget(self, name: str, keys: Sequence[str]) -> None:
        """It has these no more."""
        ...

    def leave(self, name: str) -> None:
        """It has nothing any more."""
        ...

    def find(self, key: str, depth: int) -> list[Found]:
        """The page, and up to `depth` - 1 that came after it; nothing where nobody has it."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Entry:
    num_bytes: int
    saves: float
    names: set[str] = field(default_factory=set)
    later: list[str] = field(default_factory=list)


class Embedded:
    """A directory in this process, for all that ask it. Thread-safe.

    max_pages: that it knows; the one that was told of longest ago is forgotten first.
    """

    def __init__(
        self,
        *,
        ttl: float = TTL,
        max_pages: int = 1 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl, self._max, self._clock = ttl, max_pages, clock
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._holders: dict[str, tuple[Holder, float]] = {}
        self._held: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def beat(self, holder: Holder) -> bool:
        with self._lock:
            self._expire()
            known = holder.name in self._holders
            self._holders[holder.name] = holder, self._clock()
            self._held.setdefault(holder.name, set())
            return known

    def tell(self, name: str, news: Sequence[News]) -> None:
        with self._lock:
            if name not in self._holders:
                return  # it is told so when it beats
            for one in news:
                entry = self._entries.pop(one.key, None) or Entry(one.num_bytes, one.saves)
                self._entries[one.key] = entry
                entry.names.add(name)
                self._held[name].add(one.key)
            # Only now, since those of a picture may come in any order.
            for one in news:
                before = self._entries.get(one.after or "")
                if before is not None:
                    rest = [key for key in before.later if key != one.key]
                    before.later = [one.key, *rest][:NEXT]
            while len(self._entries) > self._max:
                self._remove(next(iter(self._entries)))

    def forget(self, name: str, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._unhold(name, key)

    def leave(self, name: str) -> None:
        with self._lock:
            self._leave(name)

    def find(self, key: str, depth: int) -> list[Found]:
        with self._lock:
            self._expire()
            found: dict[str, Found] = {}
            wanted = [key]
            while wanted and len(found) < depth:
                at = wanted.pop(0)
                entry = self._entries.get(at)
                if entry is None or at in found:
                    continue
                holders = tuple(self._holders[name][0] for name in sorted(entry.names))
                found[at] = Found(at, entry.num_bytes, entry.saves, holders)
                wanted += entry.later
            return list(found.values())

    def close(self) -> None:
        """Nothing: it ends with its process."""

    def check_integrity(self) -> None:
        """Raise AssertionError unless holders and pages name each other."""
        with self._lock:
            told = {(name, key) for name, keys in self._held.items() for key in keys}
            known = {(name, key) for key, one in self._entries.items() for name in one.names}
            assert told == known, f"one side alone knows {told ^ known}"
            assert self._held.keys() == self._holders.keys(), "holders of whom nothing is known"
            empty = [key for key, one in self._entries.items() if not one.names]
            assert not empty, f"pages that nobody has: {empty}"

    def _expire(self) -> None:
        oldest = self._clock() - self._ttl
        for name in [name for name, (_, at) in self._holders.items() if at < oldest]:
            self._leave(name)

    def _leave(self, name: str) -> None:
        for key in list(self._held.get(name, ())):
            self._unhold(name, key)
        self._holders.pop(name, None)
        self._held.pop(name, None)

    def _unhold(self, name: str, key: str) -> None:
        entry = self._entries.get(key)
        if entry is None or name not in entry.names:
            return
        entry.names.discard(name)
        self._held[name].discard(key)
        if not entry.names:
            del self._entries[key]

    def _remove(self, key: str) -> None:
        for name in list(self._entries[key].names):
            self._unhold(name, key)


def answering(directory: Directory) -> Callable[[bytearray], bytes]:
    """What a service answers whose questions a `RemoteDirectory` asks."""

    def answer(question: bytearray) -> bytes:
        what, *rest = json.loads(question)
        value: Any = None
        if what == "beat":
            value = directory.beat(Holder(*rest))
        elif what == "tell":
            name, news = rest
            directory.tell(name, [News(*one) for one in news])
        elif what == "forget":
            directory.forget(*rest)
        elif what == "leave":
            directory.leave(*rest)
        elif what == "find":
            value = [asdict(one) for one in directory.find(*rest)]
        return json.dumps(value).encode()

    return answer


class RemoteDirectory:
    """One that another process has."""

    def __init__(self, address: str, secret: bytes, timeout: float = 2.0) -> None:
        """Raises InvalidInput for an address."""
        self._link = Link(address, secret, timeout)

    def beat(self, holder: Holder) -> bool:
        return self._ask("beat", holder.name, holder.address, holder.place)

    def tell(self, name: str, news: Sequence[News]) -> None:
        self._ask("tell", name, [(n.key, n.num_bytes, n.saves, n.after) for n in news])

    def forget(self, name: str, keys: Sequence[str]) -> None:
        self._ask("forget", name, list(keys))

    def leave(self, name: str) -> None:
        self._ask("leave", name)

    def find(self, key: str, depth: int) -> list[Found]:
        found = []
        for one in self._ask("find", key, depth):
            holders = tuple(Holder(**holder) for holder in one["holders"])
            found.append(Found(one["key"], one["num_bytes"], one["saves"], holders))
        return found

    def close(self) -> None:
        self._link.close()

    def _ask(self, what: str, *arguments: object) -> Any:
        return json.loads(self._link.ask(json.dumps([what, *arguments]).encode()))
