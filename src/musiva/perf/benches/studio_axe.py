"""axe-core, which checks a page against the rules of accessibility (WCAG): fetched once from npm,
pinned and checked.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musiva.perf.npm import Package, fetch

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["check", "fetch_axe"]

AXE = Package(
    name="axe-core",
    version="4.14.1",
    integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
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

    Raises Unavailable when it cannot be had.
    """
    with tarfile.open(fetch(AXE, directory)) as tar:
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
