"""axe-core, which checks a page against the rules of accessibility (WCAG): fetched once from npm,
pinned and checked.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musiva.core.errors import Unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["check", "fetch_axe"]

VERSION = "4.14.1"
ARCHIVE = f"axe-core-{VERSION}.tgz"
# npm's own SHA-512 of the archive.
INTEGRITY = (
    "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37Ogu"
    "dVGtQ=="
)
MEMBER = "package/axe.min.js"
# Colours are only right when nothing fades any more; a shimmer never ends.
RUN = """async () => {
  const ends = (one) => one.effect.getComputedTiming().endTime < Infinity;
  const ending = document.getAnimations().filter(ends);
  await Promise.allSettled(ending.map((one) => one.finished));
  const { violations, passes } = await axe.run(document);
  const brief = ({ id, help, nodes }) =>
    ({ rule: id, help, where: nodes.map((node) => node.target.join(" ")) });
  return { violations: violations.map(brief), passes: passes.length };
}"""


def fetch_axe(directory: Path) -> str:
    """The script, from the archive below `directory`, which is downloaded unless it is there.

    Raises Unavailable when npm is missing, fails, or delivers other bytes than the pinned ones.
    """
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / ARCHIVE
    if not archive.exists():
        if shutil.which("npm") is None:
            raise Unavailable(f"npm is needed to fetch {ARCHIVE}: install it, or put the file into "
                              f"{directory}")  # fmt: skip
        command = ["npm", "pack", f"axe-core@{VERSION}", "--silent"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.exists():
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise Unavailable(f"{archive} is not axe-core {VERSION}: remove it and try again")
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        assert member is not None
        return member.read().decode()


def check(page: Page, axe: str) -> dict[str, Any]:
    """violations: a list of {rule, help, where}. passes: how many rules found something to check
    and were content.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(axe)
    return page.evaluate(RUN)
