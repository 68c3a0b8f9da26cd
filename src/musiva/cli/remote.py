"""Pictures from a server, which needs no torch here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from musiva.cli.results import Results
from musiva.client import AsyncClient, Completed, Event, Options, Progress
from musiva.core.errors import MusivaError

__all__ = ["generate_remotely"]

# Enough to fill packs; the rest waits here instead of in the server's queue.
AT_A_TIME = 64
RETRIES = 5
# Of the prompt at a place; None when it has no more.
News = tuple[int, Event | MusivaError | None]


def generate_remotely(
    url: str,
    prompts: Sequence[str],
    options: Options,
    results: Results,
    *,
    api_key: str | None = None,
) -> None:
    """One streamed request per prompt, side by side. What the server says of a prompt goes to
    `results`; raises InvalidInput for the url or the key, Unavailable for a picture that cannot be
    written.
    """
    client = AsyncClient(url, api_key=api_key, retries=RETRIES)
    asyncio.run(_generate(client, prompts, options, results))


async def _generate(
    client: AsyncClient, prompts: Sequence[str], options: Options, results: Results
) -> None:
    news: asyncio.Queue[News] = asyncio.Queue()
    gate = asyncio.Semaphore(AT_A_TIME)
    async with client:
        tasks = [
            asyncio.create_task(_listen(client, gate, place, prompt, options, news))
            for place, prompt in enumerate(prompts)
        ]
        try:
            left = len(tasks)
            while left:
                place, event = await news.get()
                match event:
                    case Progress():
                        index, total = event.index, event.num_evaluations
                        results.advance(place, index, event.evaluation, total)
                    case Completed(picture=picture):
                        seed, content = picture.seed, picture.content
                        file = content, f".{picture.format}"
                        results.add(place, event.index, seed, picture.image, *file, picture.share)
                        results.warn(picture.warnings)
                    case MusivaError():
                        results.fail(place, event)
                    case None:
                        left -= 1
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(
    client: AsyncClient,
    gate: asyncio.Semaphore,
    place: int,
    prompt: str,
    options: Options,
    news: asyncio.Queue[News],
) -> None:
    try:
        async with gate, client.stream(prompt, **options) as events:
            async for event in events:
                news.put_nowait((place, event))
    except MusivaError as error:
        news.put_nowait((place, error))
    finally:
        news.put_nowait((place, None))
