"""`musiva replay`: send a trace to a server, and tell how it fared."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from musiva.cli.key import chosen_key
from musiva.cli.pictures import check_writable, write_atomically
from musiva.cli.progress import Progress
from musiva.core.env import Env
from musiva.core.errors import MusivaError, Overloaded

if TYPE_CHECKING:
    from musiva.client import AsyncClient
    from musiva.perf.traffic import Asked, Fate

__all__ = ["run"]

# A picture that takes so much longer than its deadline is not waited for.
PATIENCE = 20.0


def run(arguments: Namespace, env: Env) -> int:
    """Exit code 1 if a request failed of something else than being refused."""
    if arguments.json is not None:
        check_writable("json", arguments.json.parent)
    from musiva.client import AsyncClient
    from musiva.perf.traffic import read_trace, scaled, score

    trace = scaled(read_trace(arguments.trace), faster=arguments.speed)
    key = chosen_key(arguments.api_key_file, env)

    async def replayed() -> tuple[list[Fate], list[str]]:
        async with AsyncClient(arguments.server, api_key=key, retries=0) as client:
            with Progress(sys.stderr, "requests") as progress:
                return await _replayed(client, trace, progress)

    fates, failures = asyncio.run(replayed())
    # A server is taken at its word that floors are kept.
    found = score(fates, [1.0] * len(fates))
    print(f"{found.requests} requests in {trace[-1].at:.1f} s, {found.refused:.1%} refused")
    print(f"on time: {found.on_time:.1%}, goodput {found.goodput:.3f} pictures a second")
    if found.latency_p50 is not None and found.latency_p95 is not None:
        print(f"latency: {found.latency_p50:.2f} s, 95 % within {found.latency_p95:.2f} s")
    for failure in sorted(set(failures)):
        print(f"failed: {failures.count(failure)} x {failure}", file=sys.stderr)
    if arguments.json is not None:
        rows = [
            {"at": f.asked.at, "refused": f.refused, "seconds": f.seconds, "on_time": f.on_time}
            for f in fates
        ]
        content = {**found.row(), "failed": len(failures), "requests": rows}
        write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")
    return 1 if failures else 0


async def _replayed(
    client: AsyncClient, trace: Sequence[Asked], progress: Progress
) -> tuple[list[Fate], list[str]]:
    """Fates in order of the trace, and why requests failed."""
    from musiva.perf.traffic import Fate

    start, failures = time.monotonic(), []

    async def one(asked: Asked) -> Fate:
        fate, options = Fate(asked), asked.options()
        if asked.size is not None:
            options["size"] = asked.size
        given = {name: value for name, value in options.items() if value is not None}
        await asyncio.sleep(max(start + asked.at - time.monotonic(), 0.0))
        begun = time.monotonic()
        longest = None if asked.deadline is None else asked.deadline * PATIENCE
        try:
            async with asyncio.timeout(longest):
                await client.generate(asked.prompt, **given)
            fate.seconds = time.monotonic() - begun
        except Overloaded:
            fate.refused = True
        except TimeoutError:
            pass
        except MusivaError as error:
            failures.append(f"{type(error).__name__}: {error}")
        progress.advance(len(trace))
        return fate

    return list(await asyncio.gather(*map(one, trace))), failures
