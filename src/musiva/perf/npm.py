"""Pinned packages of the npm registry: pictures, labels and tools that the repository does not
carry.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from musiva.core.errors import Unavailable

__all__ = ["Package", "fetch"]


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package at one version; `integrity` is npm's own SHA-512 of the archive."""

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch(package: Package, directory: Path) -> Path:
    """The package's archive below `directory`, downloaded with `npm pack` unless it is there.

    Raises Unavailable when npm is missing, fails, or delivers other bytes than the pinned ones.
    """
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / package.archive
    if not archive.exists():
        if shutil.which("npm") is None:
            raise Unavailable(f"npm is needed to fetch {package.name}: install Node.js, or put "
                              f"{package.archive} into {directory}")  # fmt: skip
        command = ["npm", "pack", f"{package.name}@{package.version}", "--silent"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.exists():
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise Unavailable(
            f"{archive} is not {package.name}@{package.version}: remove it and try again"
        )
    return archive
