"""`musiva serve`: the HTTP server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from musiva.cli.machine import set_threads
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]


def run(arguments: Namespace, env: Env) -> int:
    """Serves until Ctrl-C or SIGTERM, which end it cleanly."""
    file = arguments.api_key_file
    api_key = env.api_key if file is None else read_key(file)
    set_threads(arguments.threads, env)
    from musiva.engine import Engine, Scheduler
    from musiva.server import AppConfig, serve

    config = AppConfig(
        max_waiting=arguments.max_waiting,
        api_key=api_key,
        cors_origins=tuple(arguments.cors_origin),
    )
    scheduler = Scheduler.Config(max_rows=arguments.max_rows)
    serve(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        dtype=arguments.dtype,
        device=arguments.device,
        engine_config=Engine.Config(scheduler=scheduler, max_waiting=arguments.max_waiting),
        app_config=config,
        announce=lambda line: print(line, flush=True),
    )
    return 0


def read_key(path: Path) -> str:
    """The file's only line. Raises InvalidInput, which never shows what is in the file."""
    allowed = "a text file with the key as its only line"
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII"
        raise InvalidInput("api-key-file", str(path), f"{allowed} ({reason})") from error
    if len([line for line in lines if line.strip()]) != 1 or not lines[0].strip():
        raise InvalidInput("api-key-file", str(path), allowed)
    return lines[0].strip()
