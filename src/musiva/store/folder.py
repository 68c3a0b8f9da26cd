"""Tiers of published pages in a folder: one in the shared memory of a host, one on a disk.

All processes of a host have the same folder, without asking each other: a page is a file, which is
there whole or not at all, and nobody ever changes it.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

from musiva.core.errors import Unavailable
from musiva.store.directory import News
from musiva.store.page import HEAD_BYTES, Damaged, Page, after_of, packed, saves_of, unpacked

__all__ = ["SHARED_ROOT", "Folder"]

log = logging.getLogger(__name__)
SHARED_ROOT = Path("/dev/shm")
# Names that begin with a dot are those of no page.
LOCK, PART = ".lock", ".part"
# Of the budget, what is left after pages had to go.
LEFT = 0.9
# Of the budget, what is written between two looks at what the others have written.
LOOK = 1 / 16
# Pages that others are told of at once, those that were wanted last.
MOST_TOLD = 4096
# Seconds after which a page that nobody wanted counts half.
HALF_LIFE = 600.0


class Folder:
    """Pages by key, of about `budget_bytes` together; where there are more, those go that save
    least per byte, what was not wanted for long counting less. Thread-safe.

    What the folder refuses, as a disk that is full, is counted in `failures` and told in the log,
    and the page is not kept.
    """

    def __init__(self, path: Path, budget_bytes: int, *, passing: bool = False) -> None:
        """passing: the folder goes with the last process that has it open. Raises Unavailable."""
        self.path, self.budget_bytes = path, budget_bytes
        self.evictions = self.failures = self.damaged = 0
        self._passing = passing
        # Pages that went, which nobody has been told yet.
        self._gone: list[str] = []
        # Bytes as of the last look, and written since.
        self._used, self._since = 0, 0
        try:
            self._lock: int | None = _locked(path, passing=passing)
            self._used = self._measured()
        except OSError as error:
            raise Unavailable(f"pages cannot be kept in {path}: {error}") from error

    @classmethod
    def shared(cls, name: str, budget_bytes: int) -> Folder:
        """In the shared memory of this host, for all that give it this name, or in a folder for
        passing files where there is none. What others have left there that were killed is removed.
        """
        root = SHARED_ROOT if SHARED_ROOT.is_dir() else Path(tempfile.gettempdir())
        for old in root.glob("musiva-*"):
            with suppress(OSError):
                if old.name != name and (old / LOCK).is_file():
                    _remove_if_unused(old)
        # The rest of the memory is not ours.
        budget_bytes = min(budget_bytes, max(shutil.disk_usage(root).free // 2, 1))
        return cls(root / name, budget_bytes, passing=True)

    def __contains__(self, key: str) -> bool:
        return self._file(key).is_file()

    @property
    def used_bytes(self) -> int:
        """As far as this process knows."""
        return self._used + self._since

    @property
    def keys(self) -> list[str]:
        with suppress(OSError):
            return [one.name for one in os.scandir(self.path) if not one.name.startswith(".")]
        return []

    def num_bytes(self, key: str) -> int | None:
        """Of a page; None where it is not there."""
        with suppress(OSError):
            return self._file(key).stat().st_size
        return None

    def get(self, key: str) -> Page | None:
        """The page, in memory of its own: one that is mapped would hold a descriptor for as long as
        anybody has it.
        """
        path = self._file(key)
        try:
            with open(path, "rb") as file:
                whole = bytearray(os.fstat(file.fileno()).st_size)
                file.readinto(whole)
            os.utime(path)
            return unpacked(whole)
        except FileNotFoundError:
            return None
        except (Damaged, ValueError) as error:
            self.damaged += 1
            log.warning("%s is damaged (%s), and removed", path, error)
            self.drop(key)
        except OSError as error:
            self._fail(error)
        return None

    def put(self, key: str, page: Page) -> bool:
        """Whether the page is there now."""
        if key in self:
            return True
        return self.write(key, packed(page))

    def write(self, key: str, whole: bytes | bytearray) -> bool:
        """`put`, of a page as bytes."""
        if len(whole) > self.budget_bytes:
            return False
        part = self.path / f"{PART}.{uuid.uuid4().hex}"
        try:
            self._since += len(whole)
            if self.used_bytes > self.budget_bytes or self._since > LOOK * self.budget_bytes:
                self._make_room(len(whole))
            part.write_bytes(whole)
            part.rename(self._file(key))
        except OSError as error:
            self._fail(error)
            with suppress(OSError):
                part.unlink()
            return False
        return True

    def drop(self, key: str) -> None:
        """Nothing if it is not there."""
        with suppress(OSError):
            self._file(key).unlink()
            self._gone.append(key)

    def news(self) -> list[News]:
        """What others are told of it: the pages that were wanted last."""
        found: list[tuple[float, os.DirEntry[str]]] = []
        with suppress(OSError), os.scandir(self.path) as every:
            for one in every:
                with suppress(OSError):
                    if not one.name.startswith("."):
                        found.append((one.stat().st_mtime, one))
        told: list[News] = []
        for _, one in sorted(found, key=lambda pair: pair[0])[-MOST_TOLD:]:
            with suppress(OSError, Damaged), open(one.path, "rb") as file:
                saves, after = after_of(file)
                told.append(News(one.name, one.stat().st_size, saves, after))
        return told

    def went(self) -> list[str]:
        """Pages that this process has let go since it was asked last."""
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """May be repeated."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        with suppress(OSError):
            os.close(lock)
            if self._passing:
                _remove_if_unused(self.path)

    def _file(self, key: str) -> Path:
        return self.path / key

    def _fail(self, error: OSError) -> None:
        if not self.failures:
            log.warning("pages cannot be kept in %s: %s", self.path, error)
        self.failures += 1

    def _measured(self) -> int:
        """Bytes of the pages that are there, whoever has written them."""
        total = 0
        for one in os.scandir(self.path):
            with suppress(OSError):
                total += one.stat().st_size
        return total

    def _make_room(self, needed: int) -> None:
        """Look at all that is there, and let pages go where they are too many. Raises OSError."""
        self._used, self._since = self._measured(), needed
        if self._used + needed <= self.budget_bytes:
            return
        ranked = sorted(filter(None, map(self._ranked, os.scandir(self.path))))
        for _, name, size in ranked:
            if self._used + needed <= LEFT * self.budget_bytes:
                return
            self.drop(name)
            self._used -= size
            self.evictions += 1

    def _ranked(self, one: os.DirEntry[str]) -> tuple[float, str, int] | None:
        """What a page is worth per byte, its name and its bytes; None of what is not ours."""
        with suppress(OSError):
            told = one.stat()
            idle = max(time.time() - told.st_mtime, 0.0)
            if one.name.startswith(PART):
                return None if idle < HALF_LIFE else (0.0, one.name, told.st_size)
            try:
                with open(one.path, "rb") as file:
                    saves = saves_of(file.read(HEAD_BYTES))
            except Damaged:
                return None
            worth = saves * math.exp2(-idle / HALF_LIFE) / max(told.st_size, 1)
            return worth, one.name, told.st_size
        return None


def _locked(path: Path, *, passing: bool) -> int:
    """The lock of a folder, which is there then: as long as anybody has it, it is in use; that of
    who was killed is gone. Raises OSError, also for a folder that has files of others.
    """
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise PermissionError("it belongs to somebody else")
        # One that passes may lose its lock before its pages, while somebody removes it.
        if not passing and not (path / LOCK).exists() and os.listdir(path):
            raise FileExistsError("there are other files; it has to be empty, or one of Musiva's")
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Whoever was closing it just now may have removed it before it was locked.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
                return lock
        os.close(lock)


def _remove_if_unused(path: Path) -> None:
    """Raises OSError where somebody has it open."""
    lock = os.open(path / LOCK, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(lock)
