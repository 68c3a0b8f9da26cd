"""A server that speaks the contract without a model, with faults on demand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
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
    in full, without tiles.
    """

    def __init__(self) -> None:
        self.model = dict(MODEL)
        self.evaluations = 6
        self.seconds = 0.01
        self.held = 0
        self.tiles: tuple[int, int] | None = None
        self.active: Sequence[Sequence[int]] = ()
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
        self.model, self.key, self.held = dict(MODEL), None, 0
        self.tiles, self.active = None, ()
        self.evaluations, self.seconds = 6, 0.01
        for kept in (self.faults, self.bodies, self.ended):
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

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            error = {"message": "this server wants an API key", "type": "invalid_request_error"}
            return JSONResponse({"error": {**error, "code": "invalid_api_key"}}, 401)
        fault = self.faults.pop(0) if self.faults else None
        if fault and fault.status:
            return JSONResponse({"error": fault.error}, fault.status, dict(fault.headers))
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
            yield event("image_generation.progress", evaluation=0, waiting=1)
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
            yield event("image_generation.progress", **known, **spent, **shown, waiting=None)
            if evaluation + 1 < self.evaluations:
                preview = encoded(png(body, index, blur=6 - evaluation))
                yield event(
                    "image_generation.partial_image",
                    **known,
                    **shown,
                    computed=any(active or [1]),
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
            warnings=[],
        )

    def _spent(self, evaluations: int) -> dict[str, object]:
        """Of a picture after so many."""
        shares = [sum(tiles) / len(tiles) for tiles in self.active] or [1.0] * self.evaluations
        done = shares[:evaluations]
        cost = sum(done)
        share = round(cost / self.evaluations, 4)
        return {"computed": done.count(1.0), "cost": cost, "share": share}


def event(kind: str, **data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"


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
        quality = body.get("quality", 100)
        info.add_text("musiva", json.dumps({**known, **ours, "seed": seed, "quality": quality}))
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
