"""A server that speaks the contract without a model, with faults on demand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import math
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import uvicorn
from PIL import Image, ImageDraw, ImageFilter
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from musiva.studio import routes

__all__ = ["MODEL", "FakeServer", "Fault", "draw", "png", "seeds", "wait_until"]

MODEL: Mapping[str, object] = {
    "id": "default",
    "object": "model",
    "created": 1,
    "owned_by": "musiva",
    "size": "128x128",
    "sizes": ["128x128", "144x112", "112x144", "64x64"],
    "size_multiple": 16,
    "min_side": 64,
    "max_side": 256,
    "max_images": 8,
    "steps": 20,
    "max_steps": 1000,
    "guidance_scale": 4.0,
    "max_guidance_scale": 100.0,
    "max_partial_images": 100,
    "shift": 3.0,
    "policies": ["never", "interval"],
    "calibrated": False,
    "sampler": "euler",
    "samplers": ["euler", "heun", "dpm++2m"],
    "spacings": {"euler": ["uniform", "karras"], "heun": ["uniform"], "dpm++2m": ["uniform"]},
}
IDLE: Mapping[str, object] = {
    "waiting": 0,
    "running": 0,
    "backlog_seconds": 0.0,
    "backlog_floor_seconds": 0.0,
    "goodput": 0.0,
    "attainment": None,
    "refused": 0,
    "quality": None,
}
# Seconds that a request takes at each quality.
FLOORS: Mapping[int, float] = {100: 2.0, 90: 1.2, 80: 0.9, 70: 0.7, 60: 0.6, 50: 0.5}
SHAPES = ((0.5, 0.45, 0.3), (0.35, 0.6, 0.2), (0.68, 0.65, 0.16))


@dataclass(frozen=True, slots=True)
class Fault:
    """What the next request meets: an error answer, or after some evaluations an error event
    (`status` None and `error` given) or a broken connection (neither).
    """

    status: int | None = None
    error: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 2


class Breakable(StreamingResponse):
    """Its content may raise BrokenPipeError: then the connection breaks off there."""

    async def stream_response(self, send: Send) -> None:
        # An answer without its end makes uvicorn close the connection.
        with contextlib.suppress(BrokenPipeError):
            await super().stream_response(send)


class FakeServer:
    """Serves the studio on a loopback port, in a thread. Attributes may be changed at any time.

    bodies: of all requests for pictures. ended: how their answers ended, in that order.
    let_go: while cleared, requests stop after the third evaluation of picture `held`.
    active: of each evaluation, which of `tiles` (rows, columns) it computes; () for all evaluations
    in full, without tiles. standing: what it tells of its load; None, and it has no such route.
    workers: what it tells of them; None, and it has no such route.
    floors: seconds that a request takes at each quality; {} and it has no estimates. took: what a
    picture is said to have taken, if not that. used: its quality, if not the lowest allowed. retry:
    seconds after which it says that a refused request would not be.
    questions: bodies of all questions for estimates; while `answering` is cleared they wait, and
    `given_up` counts those that nobody waits for any more.
    """

    def __init__(self) -> None:
        self.model = dict(MODEL)
        self.evaluations = 6
        self.seconds = 0.01
        self.held = 0
        self.tiles: tuple[int, int] | None = None
        self.active: Sequence[Sequence[int]] = ()
        self.standing: dict[str, object] | None = dict(IDLE)
        self.workers: list[dict[str, object]] | None = []
        self.floors = dict(FLOORS)
        self.took: float | None = None
        self.used: int | None = None
        self.retry = 1.5
        self.questions: list[dict[str, object]] = []
        self.answering = threading.Event()
        self.answering.set()
        self.given_up = 0
        self.polls = 0
        self.key: str | None = None
        self.faults: list[Fault] = []
        self.bodies: list[dict[str, object]] = []
        self.ended: list[str] = []
        self.running = 0
        self.let_go = threading.Event()
        self.let_go.set()
        self._dying = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address: tuple[str, int] = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}"

    def reset(self) -> None:
        """As at the beginning, but for the address."""
        self.let_go.set()
        self.answering.set()
        self.standing, self.floors, self.workers = dict(IDLE), dict(FLOORS), []
        self.took, self.used, self.retry = None, None, 1.5
        self.given_up = self.polls = 0
        self.model, self.key, self.held = dict(MODEL), None, 0
        self.tiles, self.active = None, ()
        self.evaluations, self.seconds = 6, 0.01
        for kept in (self.faults, self.bodies, self.ended, self.questions):
            kept.clear()

    def start(self) -> None:
        """Come up, as another instance than before."""
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(self._address)
        self.instance = uuid.uuid4().hex
        self._dying.clear()
        app = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/v1/models", self._models),
                Route("/v1/images/generations", self._generate, methods=["POST"]),
                Route("/v1/standing", self._standing),
                Route("/v1/cluster", self._cluster),
                Route("/v1/estimates", self._estimates, methods=["POST"]),
                *routes(),
            ]
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        """Go away; answers under way break off."""
        self._dying.set()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _health(self, request: Request) -> Response:
        state = {"status": "ok", "model": self.model["id"], "waiting": 0, "running": self.running}
        return JSONResponse({**state, "instance": self.instance, "version": "0.1.0"})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.model]})

    def _refused(self, request: Request) -> Response | None:
        """Of one without the key."""
        if not self.key or request.headers.get("Authorization") == f"Bearer {self.key}":
            return None
        error = {"message": "this server wants an API key", "type": "invalid_request_error"}
        return JSONResponse({"error": {**error, "code": "invalid_api_key"}}, 401)

    async def _standing(self, request: Request) -> Response:
        self.polls += 1
        if self.standing is None:
            return JSONResponse({"error": {"message": "no such route", "code": "not_found"}}, 404)
        return self._refused(request) or JSONResponse(self.standing)

    async def _cluster(self, request: Request) -> Response:
        if self.workers is None:
            return JSONResponse({"error": {"message": "no such route", "code": "not_found"}}, 404)
        return self._refused(request) or JSONResponse({"workers": self.workers})

    async def _estimates(self, request: Request) -> Response:
        body = await request.json()
        self.questions.append(body)
        while not self.answering.is_set():
            await asyncio.sleep(0.005)
            if await request.is_disconnected():
                self.given_up += 1
                return Response(status_code=499)
        if not self.floors:
            return JSONResponse({"error": {"message": "no such route", "code": "not_found"}}, 404)
        low, high = qualities(body)
        found = [quality for quality in self.floors if low < quality <= high]
        deadline = body.get("deadline")
        estimates = [
            {
                "quality": quality,
                "finish_seconds": self._finish(quality),
                "work_seconds": self._finish(quality),
                "refusal": self._refusal(quality, deadline),
            }
            for quality in [*found, low]
        ]
        answer = {"deadline": deadline, "estimates": estimates}
        return self._refused(request) or JSONResponse(answer)

    def _finish(self, quality: int) -> float:
        """Seconds that a request takes at a quality: those of the cheapest way to keep it."""
        return min(seconds for known, seconds in self.floors.items() if known >= quality)

    def _refusal(self, quality: int, deadline: object) -> str | None:
        finish = self._finish(quality)
        if deadline is None or finish <= float(str(deadline)):
            return None
        return f"it may take {finish:.2f} s, and its deadline is {deadline} s"

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if refused := self._refused(request):
            return refused
        fault = self.faults.pop(0) if self.faults else None
        if fault and fault.status:
            return JSONResponse({"error": fault.error}, fault.status, dict(fault.headers))
        low, _ = qualities(body)
        if self.floors and (reason := self._refusal(low, body.get("deadline"))):
            error = {"message": reason, "type": "rate_limit_error", "code": "deadline_unreachable"}
            told = {"predicted_seconds": self._finish(low), "retry_seconds": self.retry}
            headers = {"Retry-After": str(math.ceil(self.retry))}
            return JSONResponse({"error": {**error, **told}}, 429, headers)
        if not body.get("stream"):
            seed = int(body.get("seed") or 0)
            data = [
                {"b64_json": encoded(png(body, index)), "seed": seed + index}
                for index in range(body.get("n") or 1)
            ]
            known = {"output_format": "png", "size": body["size"], "model": "default"}
            return JSONResponse({"created": 1, "data": data, **known, "warnings": []})
        return Breakable(self._stream(body, fault), media_type="text/event-stream")

    async def _stream(self, body: Mapping[str, object], fault: Fault | None) -> AsyncIterator[str]:
        self.running += 1
        end = "left"
        try:
            predicted = self._finish(qualities(body)[0]) if self.floors else None
            known = {"waiting": 1, "predicted_seconds": predicted, "quality": None}
            yield event("image_generation.progress", evaluation=0, **known)
            for index in range(int(str(body.get("n") or 1))):
                async for one in self._picture(body, index, fault):
                    yield one
            end = "done"
        except BrokenPipeError:
            end = "broken"
            raise
        finally:
            self.running -= 1
            self.ended.append(end)

    async def _picture(
        self, body: Mapping[str, object], index: int, fault: Fault | None
    ) -> AsyncIterator[str]:
        for evaluation in range(self.evaluations):
            until = time.monotonic() + self.seconds
            here = (index, evaluation) == (self.held, 3)
            while time.monotonic() < until or (here and not self.let_go.is_set()):
                await asyncio.sleep(0.005)
                if self._dying.is_set():
                    raise BrokenPipeError("the server goes away")
            if fault and evaluation == fault.after:
                if fault.error is None:
                    raise BrokenPipeError("a fault was asked for")
                yield event("error", error=fault.error)
                return
            known = {"index": index, "evaluation": evaluation + 1}
            known["num_evaluations"] = self.evaluations
            spent = self._spent(evaluation + 1)
            active = self.active[evaluation] if self.tiles else None
            shown = {"tiles": self.tiles, "active_tiles": active}
            now = {"waiting": None, "predicted_seconds": None, "quality": self._used(body)}
            yield event("image_generation.progress", **known, **spent, **shown, **now)
            if evaluation + 1 < self.evaluations:
                preview = encoded(png(body, index, blur=6 - evaluation))
                yield event(
                    "image_generation.partial_image",
                    **known,
                    **shown,
                    computed=any(active or [1]),
                    quality="high",
                    b64_json=preview,
                    output_format="png",
                )
        yield event(
            "image_generation.completed",
            index=index,
            b64_json=encoded(png(body, index)),
            output_format="png",
            num_evaluations=self.evaluations,
            **self._spent(self.evaluations),
            **self._report(body),
            quality="high",
            warnings=[],
        )

    def _used(self, body: Mapping[str, object]) -> int:
        return self.used or qualities(body)[0]

    def _report(self, body: Mapping[str, object]) -> dict[str, object]:
        """How its picture fared."""
        low, _ = qualities(body)
        total = self.took or (self._finish(low) if self.floors else 0.1)
        parts = {"queue": 0.2, "encode": 0.04, "denoise": 0.7, "decode": 0.06}
        seconds = {name: round(share * total, 4) for name, share in parts.items()}
        deadline = body.get("deadline")
        return {
            "quality_promised": low,
            "quality_used": self._used(body),
            "deadline_met": None if deadline is None else total <= float(str(deadline)),
            "seconds": {**seconds, "total": total},
        }

    def _spent(self, evaluations: int) -> dict[str, object]:
        """Of a picture after so many."""
        shares = [sum(tiles) / len(tiles) for tiles in self.active] or [1.0] * self.evaluations
        done = shares[:evaluations]
        cost = sum(done)
        share = round(cost / self.evaluations, 4)
        return {"computed": done.count(1.0), "cost": cost, "share": share}


def event(kind: str, **data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"


def qualities(body: Mapping[str, object]) -> tuple[int, int]:
    """Floor and ceiling of a request."""
    low = int(str(body.get("min_quality") or body.get("quality") or 100))
    return low, int(str(body.get("max_quality") or low))


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(body: Mapping[str, object], index: int = 0, blur: int = 0) -> bytes:
    """A picture as the server writes it, parameters included."""
    seed = int(str(body.get("seed") or 0)) + index
    known = {
        "model": "default",
        "negative_prompt": "",
        "size": "128x128",
        "steps": 20,
        "guidance_scale": 4.0,
        "sampler": "euler",
        "spacing": "uniform",
        "shift": 3.0,
    }
    ours = {key: body[key] for key in ("prompt", *known) if body.get(key) is not None}
    info = PngInfo()
    if not blur:
        given = {"seed": seed, "quality": qualities(body)[1]}
        info.add_text("musiva", json.dumps({**known, **ours, **given}))
    buffer = io.BytesIO()
    draw(str(body.get("size", "128x128")), seed, blur).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def draw(size: str, seed: int, blur: int = 0) -> Image.Image:
    """Three coloured balls on a gradient, other ones for each seed."""
    natural = tuple(int(side) for side in size.split("x"))
    scale = 1 if blur else 3
    width, height = (scale * side for side in natural)
    hues = [(seed * 47 + 90 * i) % 360 for i in range(4)]
    picture = Image.linear_gradient("L").resize((width, height))
    ground = Image.new("RGB", (width, height), f"hsl({hues[3]}, 55%, 88%)")
    ground.paste(Image.new("RGB", (width, height), f"hsl({hues[3]}, 45%, 70%)"), mask=picture)
    pen = ImageDraw.Draw(ground)
    for hue, (x, y, radius) in zip(hues, SHAPES, strict=False):
        r = radius * min(width, height)
        box = (x * width - r, y * height - r, x * width + r, y * height + r)
        pen.ellipse(box, fill=f"hsl({hue}, 70%, 58%)")
        shine = (x * width - r * 0.6, y * height - r * 0.7, x * width, y * height - r * 0.2)
        pen.ellipse(shine, fill=f"hsl({hue}, 80%, 78%)")
    if blur:
        return ground.filter(ImageFilter.BoxBlur(2 * blur))
    return ground.reduce(scale)


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.005)


def seeds(bodies: Sequence[Mapping[str, object]]) -> dict[object, set[object]]:
    """The seeds that each prompt was asked for with."""
    found: dict[object, set[object]] = {}
    for body in bodies:
        found.setdefault(body["prompt"], set()).add(body["seed"])
    return found
