"""Folders of files that are written whole, and used only if they are as they were written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["MANIFEST", "Unusable", "stored", "written_to"]

# Sums of all other files, by name.
MANIFEST = "manifest.json"
ATTEMPTS = 20


class Unusable(Exception):
    """What lies on disk cannot be used; the message says why."""


def stored(folder: Path) -> dict[str, bytes]:
    """The files of a folder that `written_to` wrote, by name. Raises FileNotFoundError where there
    is none, Unusable where they are not as they were written.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    try:
        sums = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        files = {name: (folder / name).read_bytes() for name in sums}
    except (OSError, ValueError, TypeError) as error:
        raise Unusable(f"it cannot be read ({error})") from error
    for name, content in files.items():
        if sums[name] != hashlib.sha256(content).hexdigest():
            raise Unusable(f"{name} is not as it was written")
    return files


def written_to(folder: Path, files: Mapping[str, bytes]) -> None:
    """A folder of these files in the place of what is there. Whoever reads it finds all of it or
    nothing, and of several that write at once one stays. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        new = work / "new"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        (new / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
        for i in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                os.rename(folder, work / f"old{i}")
            try:
                os.rename(new, folder)
                return
            except OSError as error:
                # Another process may just have put its own there.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or i == ATTEMPTS - 1:
                    raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
