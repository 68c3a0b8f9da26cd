"""A server as if it were an engine in this process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import secrets
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

from musiva.client.async_client import AsyncClient
from musiva.client.jobs_told import Standing
from musiva.client.options import EngineOptions, Options
from musiva.client.pictures import Completed, Picture, Preview, Progress
from musiva.client.pictures import Event as ServerEvent
from musiva.client.retry import Timeout
from musiva.client.wire import AsyncStream
from musiva.core.errors import Cancelled, InvalidInput, Unavailable
from musiva.core.types import Event, Report

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from musiva.core.clip import Clip

__all__ = ["RemoteEngine", "RemoteStream"]

T = TypeVar("T")
# Requests of one call. Enough to fill packs; the rest waits here instead of in the server's queue.
AT_A_TIME = 64


class RemoteEngine:
    """`generate` and `stream` of `musiva.Engine`, drawn by a server; without torch. Thread-safe.

        with RemoteEngine("http://127.0.0.1:8400") as engine:
            pictures = engine.generate(["a fox"], size=(96, 96), seed=1)

    The same seed gives the same pixels as an engine with the server's model; clips come without
    loss where a request names its `frames`, else as WebP. Arguments are those of `Client`; raises
    InvalidInput. Calls raise what the engine would, and Unavailable when the server cannot be
    reached or breaks off.

    Closing it cancels whatever still runs, which then raises Cancelled.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8400",
        *,
        api_key: str | None = None,
        timeout: Timeout | float | None = None,
        retries: int = 2,
    ) -> None:
        self._client = AsyncClient(base_url, api_key=api_key, timeout=timeout, retries=retries)
        self._lock = threading.Lock()
        self._closed = False
        # Requests run in a loop of their own, so that callers of any thread can leave theirs, those
        # inside a running event loop included.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="musiva-remote", daemon=True)
        self._thread.start()

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> None:
        """Cancel all requests and give back all connections. May be repeated.

        timeout: seconds after which to return all the same.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(timeout)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        latents: object | None = None,
        quality: int | None = None,
        previews: int = 0,
        **options: Unpack[EngineOptions],
    ) -> list[Image.Image | Clip]:
        """Pictures of all prompts, in order; `num_images` of each. Prompt i uses the same seed as
        prompt 0.

        latents: None, since a server takes none. previews: change nothing here, and are refused as
        by `stream`. Raises InvalidInput, or what the first failed request failed of; the others are
        then cancelled.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        wanted = _checked(latents, quality, previews, options)
        # Progress tells how many previews there can be.
        progress = previews > 0
        streams: list[AsyncStream[ServerEvent]] = []
        for place, prompt in enumerate(prompts):
            try:
                streams.append(
                    self._client.stream(prompt, previews=previews, progress=progress, **wanted)
                )
            except InvalidInput as error:
                raise _placed(error, place) from error
        drawing = self._start(_draw(streams, previews))
        try:
            pictures = _result(drawing)
        finally:
            drawing.cancel()
        return [p.clip if p.moves else p.image.convert("RGB") for p in pictures]

    def stream(
        self,
        prompt: str,
        *,
        latents: object | None = None,
        quality: int | None = None,
        previews: int = 0,
        **options: Unpack[EngineOptions],
    ) -> RemoteStream:
        """Events of one request up to "done", as of an engine; of those that come faster than the
        server can send them, it leaves out "progress" and "preview", and a preview does not tell
        what was computed so far, nor at which quality. Actions are not told. previews: up to one
        per evaluation but the last, and at most 100; more are refused once the server has told how
        many evaluations there are. Raises what the request failed of, also what an engine refuses
        at once; leaving the loop early cancels it.
        """
        wanted = _checked(latents, quality, previews, options)
        events = self._client.stream(prompt, previews=previews, **wanted)
        news: News = queue.SimpleQueue()
        return RemoteStream(self._start(_listen(events, previews, news)), news)

    def standing(self) -> Standing:
        """How busy the server is. Raises Unavailable."""
        asking = self._start(self._client.standing())
        try:
            return _result(asking)
        finally:
            asking.cancel()

    def _start(self, work: Coroutine[None, None, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise Unavailable("the engine is closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _work(self) -> None:
        """The thread."""
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.aclose()
        await self._loop.shutdown_asyncgens()
        self._loop.stop()


News = queue.SimpleQueue[ServerEvent | None]


class RemoteStream(Iterator[Event]):
    """The events of one request, which is sent at once; `close` it to leave early, which cancels
    it on the server.

    news: what the server tells, None once `work` has ended.
    """

    def __init__(self, work: concurrent.futures.Future[None], news: News) -> None:
        self._work, self._news = work, news
        self._request = uuid.uuid4().hex
        self._num_evaluations = 0
        self._ended = False
        work.add_done_callback(lambda _: news.put(None))

    def __next__(self) -> Event:
        while not self._ended:
            try:
                told = self._news.get()
                if told is None:
                    self._ended = True
                    _result(self._work)
                    return Event(self._request, "done")
                event = self._event(told)
            except BaseException:
                self.close()
                raise
            if event is not None:
                return event
        raise StopIteration

    def close(self) -> None:
        self._ended = True
        self._work.cancel()

    def __del__(self) -> None:
        self.close()

    def _event(self, told: ServerEvent) -> Event | None:
        """None for news of the queue, which an engine does not tell."""
        if isinstance(told, Completed):
            total, picture = self._num_evaluations, told.picture
            return Event(
                self._request,
                "picture",
                told.index,
                total,
                total,
                _pixels(picture),
                computed=picture.computed or 0,
                cost=picture.cost or 0.0,
                tiles=picture.tiles,
                tile_counts=picture.tile_counts,
                **_fared(picture),
            )
        self._num_evaluations = told.num_evaluations
        at = (told.index, told.evaluation, told.num_evaluations)
        if isinstance(told, Preview):
            return Event(self._request, "preview", *at, _pixels(told), tiles=told.tiles)
        if not told.evaluation:
            return None
        return Event(
            self._request,
            "progress",
            *at,
            computed=told.computed or 0,
            cost=told.cost or 0.0,
            tiles=told.tiles,
            quality=100 if told.quality is None else told.quality,
        )


async def _draw(streams: Sequence[AsyncStream[ServerEvent]], previews: int) -> list[Picture]:
    """Pictures of all requests, side by side. Raises what the first that fails fails of."""
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(place: int, stream: AsyncStream[ServerEvent]) -> list[Picture]:
        try:
            async with gate, stream as events:
                told = _within(events, previews)
                found = {e.index: e.picture async for e in told if isinstance(e, Completed)}
        except InvalidInput as error:
            raise _placed(error, place) from error
        return [found[index] for index in sorted(found)]

    tasks = [asyncio.ensure_future(one(place, stream)) for place, stream in enumerate(streams)]
    try:
        return [picture for pictures in await asyncio.gather(*tasks) for picture in pictures]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(stream: AsyncStream[ServerEvent], previews: int, news: News) -> None:
    async with stream as events:
        async for event in _within(events, previews):
            news.put(event)


async def _within(events: AsyncStream[ServerEvent], previews: int) -> AsyncIterator[ServerEvent]:
    """Raises InvalidInput for more previews than there can be, as an engine does; to the server, as
    to OpenAI's, their number is only the most that come.
    """
    async for event in events:
        if isinstance(event, Progress) and previews >= event.num_evaluations:
            last = event.num_evaluations - 1
            raise InvalidInput("previews", previews, f"a whole number from 0 to {last}")
        yield event


def _result(work: concurrent.futures.Future[T]) -> T:
    try:
        return work.result()
    except concurrent.futures.CancelledError as error:
        raise Cancelled("closed") from error


def _checked(
    latents: object | None, quality: object, previews: object, options: Mapping[str, object]
) -> Options:
    """Options with a seed. Raises InvalidInput for what only an engine in this process takes, and
    TypeError for an option that an engine does not have.
    """
    unknown = sorted(set(options) - set(EngineOptions.__annotations__))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}")
    if latents is not None:
        # By its type: the text of a tensor has many lines.
        allowed = "None: a server starts from the noise of the seed"
        raise InvalidInput("latents", type(latents).__name__, allowed)
    if quality is not None and (not isinstance(quality, int) or isinstance(quality, bool)):
        # OpenAI's words, which a server takes, have no effect.
        raise InvalidInput("quality", quality, "a whole number from 1 to 100")
    deadline = options.get("deadline")
    if isinstance(deadline, str):
        raise InvalidInput("deadline", deadline, "a number, of seconds")
    if not isinstance(previews, int) or isinstance(previews, bool) or previews < 0:
        raise InvalidInput("previews", previews, "a whole number from 0 to 100")
    seed = options.get("seed")
    drawn = secrets.randbits(32) if seed is None else seed
    asked = {**options, "quality": quality, "seed": drawn}
    if options.get("frames") is not None:
        asked["output_format"] = "png"
    return Options(**asked)  # pyright: ignore[reportArgumentType]


def _placed(error: InvalidInput, place: int) -> InvalidInput:
    """An engine calls the prompt of request `place` "prompts[place]", and that of the first, whose
    other values it checks for all, "prompt".
    """
    if error.field != "prompt" or place == 0:
        return error
    placed = type(error)(f"prompts[{place}]", error.value, error.allowed)
    placed.answer = error.answer
    return placed


class Fared(TypedDict):
    quality: int
    report: Report | None


def _fared(picture: Picture) -> Fared:
    """Nothing is known of an older server's."""
    used, promised, seconds = picture.quality_used, picture.quality_promised, picture.seconds
    if used is None or promised is None or seconds is None:
        return Fared(quality=100, report=None)
    report = Report(
        promised=promised,
        used=used,
        seconds=seconds.total,
        encode=seconds.encode,
        denoise=seconds.denoise,
        decode=seconds.decode,
        deadline_met=picture.deadline_met,
        reused=picture.reused or 0,
    )
    return Fared(quality=used, report=report)


def _pixels(picture: Picture | Preview) -> np.ndarray:
    """uint8 [H, W, 3], or [F, H, W, 3] of a clip."""
    import numpy as np

    if isinstance(picture, Picture) and picture.moves:
        return np.stack([np.asarray(frame) for frame in picture.clip.frames])
    return np.array(picture.image.convert("RGB"))
