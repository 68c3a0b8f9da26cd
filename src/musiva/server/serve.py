"""The server as a process: bind, load, serve, and end cleanly on a signal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import uvicorn

from musiva.core.env import Env
from musiva.core.errors import InvalidInput, Unavailable
from musiva.engine import Engine, Fleet, Front, Pipeline, RayCluster, Workers, load_pipeline
from musiva.perf.profile import profile_of
from musiva.server.app import create_app
from musiva.server.config import AppConfig
from musiva.telemetry import Metrics

__all__ = ["bind", "serve"]

BACKLOG = 2048
# Together under the 5 seconds within which a server has to be gone.
DRAIN_SECONDS = 2
ENGINE_SECONDS = 2.0


def serve(
    model: str | os.PathLike[str] = "default",
    *,
    host: str = "127.0.0.1",
    port: int = 8400,
    dtype: str = "float32",
    device: str = "auto",
    compiled: bool = False,
    workers: Workers | None = None,
    cluster: str | None = None,
    engine_config: Front.Config | None = None,
    app_config: AppConfig | None = None,
    env: Env | None = None,
    announce: Callable[[str], None] = print,
    remark: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Serve a model until SIGINT or SIGTERM; running requests then end with 503, within 5 seconds.

    workers: processes that make the pictures; None for this one. cluster: of Ray, where they are to
    be; None for this machine.
    engine_config: its tenants are those of app_config, and without a cost model it gets the profile
    of this machine, which is measured for a few seconds if there is none. env: where profiles are;
    None reads it. announce gets one line with the address when the server accepts requests, remark
    one when it measures. port 0 takes a free one. Raises Unavailable or InvalidInput when the
    address cannot be had, before the model is loaded, and what `load_pipeline` raises.
    """
    if cluster is not None and workers is None:
        raise InvalidInput("workers", None, "a number of them beside a cluster")
    app_config = app_config or AppConfig()
    with bind(host, port) as listener:
        metrics = Metrics()
        loaded: dict[str, Any] = {"dtype": dtype, "device": device, "compiled": compiled}
        machines = None if cluster is None else RayCluster(cluster)
        with contextlib.ExitStack() as stack:
            if machines is not None:
                stack.callback(machines.close)
            if workers is not None:
                # What is measured here is what a worker takes.
                torch.set_num_threads(workers.threads_each)
            pipeline = load_pipeline(model, **loaded)
            config = _with_tenants(engine_config or Front.Config(), app_config)
            config = _with_costs(config, pipeline, env, remark)
            named = {"model": model, **loaded, "launcher": machines}
            engine = _engine(pipeline, workers, config, metrics, named)
            stack.callback(engine.close, ENGINE_SECONDS)
            app = create_app(engine, metrics=metrics, config=app_config)
            name = engine.pipeline.name
            address = _url(host, listener.getsockname()[1])

            def started() -> None:
                announce(f"Serving {name} at {address} (Ctrl-C ends it)")

            settings = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                backlog=BACKLOG,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
            Server(settings, started=started, stop=app.state.stopping.set).run([listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Unavailable for a port in use, InvalidInput for what can never be
    had.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise InvalidInput("port", port, "a whole number from 0 to 65535; 0 takes a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidInput("host", host, "a name or address of this machine") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # Without it a server cannot come back while connections of the last one linger.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput("host", host, "a name or address of this machine") from error
        reasons = {
            errno.EADDRINUSE: "the port is in use; choose another one or end what uses it",
            errno.EACCES: "this user may not use the port; choose one from 1024 up",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise Unavailable(f"{_address(host, port)}: {reason}") from error
    return listener


def _engine(
    pipeline: Pipeline,
    workers: Workers | None,
    config: Front.Config,
    metrics: Metrics,
    named: Mapping[str, Any],
) -> Front:
    if workers is None:
        return Engine(pipeline, config, observe=metrics.observe)
    return Fleet(pipeline, workers, config, **named, observe=metrics.observe)


def _with_tenants(config: Front.Config, app_config: AppConfig) -> Front.Config:
    access = app_config.access
    scheduler = replace(config.scheduler, shares=access.shares)
    return replace(config, scheduler=scheduler, tenants=access.names)


def _with_costs(
    config: Front.Config, pipeline: Pipeline, env: Env | None, remark: Callable[[str], None]
) -> Front.Config:
    if config.scheduler.cost is not None:
        return config
    told = False

    def tell(_: float) -> None:
        nonlocal told
        if not told:
            remark(f"Measuring what steps of {pipeline.name} take here, for a few seconds")
        told = True

    profile = profile_of(pipeline, env, tell)
    return replace(config, scheduler=replace(config.scheduler, cost=profile.cost))


class Server(uvicorn.Server):
    """Tells when it accepts, and ends running requests before it waits for their answers."""

    def __init__(
        self, config: uvicorn.Config, *, started: Callable[[], None], stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._tell_started = started
        self._stop_requests = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop_requests()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like the base class's, but a signal that was obeyed is not raised again afterwards:
        ending on request is no failure, and the engine still has to be closed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(host: str, port: int) -> str:
    return f"http://{_address(host, port)}"
