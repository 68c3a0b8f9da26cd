"""`musiva capture`: what of a model runs in packs and in tiles, and what does not, and why."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.env import Env
from musiva.core.errors import CannotCapture, UnknownModel

if TYPE_CHECKING:
    from musiva.compiler import Captured
    from musiva.compiler.report import Report, SegmentReport

__all__ = ["run"]

INSTEAD = "it would run as a black box, called on whole samples: no packs, no tiles, no gates"


def run(arguments: Namespace, env: Env) -> int:
    from musiva.compiler.report import report
    from musiva.models.captured import captured_from, module_from, signature_of

    directory = Path(arguments.model)
    if (directory / "transformer").is_dir():
        directory /= "transformer"
    if not (directory / "config.json").is_file():
        allowed = "a diffusers directory, or a transformer of one, with a config.json"
        raise UnknownModel("MODEL", arguments.model, allowed)
    module = module_from(directory, weights=False)
    signature = signature_of(module)
    try:
        denoiser = captured_from(module, signature, fresh=arguments.fresh)
    except CannotCapture as error:
        raise CannotCapture(f"{error}; {INSTEAD}") from error
    captured = denoiser.captured
    found = report(captured, denoiser.patch)
    if arguments.text:
        print(captured.text)
        print(captured.artifact.prologue.text)
    elif arguments.json:
        print(json.dumps({**found.as_json(), "from_cache": captured.is_cached}, indent=2))
    else:
        _show(found, captured, explain=arguments.explain)
    return 0


def _show(found: Report, captured: Captured, *, explain: bool) -> None:
    frames, height, width = found.patch
    streams = ", ".join(f"{name} ({', '.join(axes)})" for name, axes in found.streams.items())
    print(found.name)
    print(f"  tokens       {height} x {width} positions" + f" of {frames} frames" * (frames > 1))
    print(f"  streams      {streams}")
    print(f"  captured     {_when(captured)}")
    print(f"  packs        {found.packs}")
    print(f"  tiles        {found.tiles}")
    print(f"  segments     {sum(bool(one.site) for one in found.segments)}")
    for i, one in enumerate(found.segments):
        _show_segment(one, "before" if i == 0 else "after", explain=explain)
    if explain and found.exported_again:
        print("  looked up in the class anew for each size:")
        for name in found.exported_again:
            print(f"    {name}")


def _when(captured: Captured) -> str:
    """When, and where it is kept."""
    if captured.entry is None:
        return "now, and not kept"
    return f"{'before' if captured.is_cached else 'now'}, kept in {captured.entry.folder}"


def _show_segment(one: SegmentReport, otherwise: str, *, explain: bool) -> None:
    work = ", ".join(f"{_count(n)} a {name} row" for name, n in one.flops.items())
    print(f"    {one.site or otherwise:28} {one.linears:3} linears  {work}")
    for site, how in one.mixes.items() if explain else ():
        print(f"      {site}: {how}")
    for name, why in one.dense.items() if explain else ():
        print(f"      sample by sample: {name}: {why}")


def _count(flops: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= size:
            return f"{flops / size:.1f} {unit}FLOP"
    return f"{flops} FLOP"
