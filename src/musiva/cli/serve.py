"""`musiva serve`: the HTTP server."""

from __future__ import annotations

from argparse import Namespace

from musiva.cli.cache import chosen_cache
from musiva.cli.key import chosen_key
from musiva.cli.machine import as_loaded, set_threads
from musiva.core.env import Env

__all__ = ["run"]


def run(arguments: Namespace, env: Env) -> int:
    """Serves until Ctrl-C or SIGTERM, which end it cleanly."""
    api_key = chosen_key(arguments.api_key_file, env)
    set_threads(arguments.threads, env)
    from musiva.engine import Engine, Scheduler, Workers
    from musiva.policy import POLICIES, load_policy_class
    from musiva.server import AppConfig, read_tenants, serve

    workers = None
    if arguments.workers is not None or arguments.degree > 1 or arguments.cluster:
        workers = Workers(
            count=arguments.workers or 1,
            degree=arguments.degree,
            form=arguments.form,
            threads=arguments.threads or env.threads,
        )
    config = AppConfig(
        max_waiting=arguments.max_waiting,
        api_key=api_key,
        tenants=() if arguments.tenants is None else read_tenants(arguments.tenants),
        cors_origins=tuple(arguments.cors_origin),
        job_seconds=arguments.job_seconds,
        max_job_bytes=arguments.job_mib << 20,
    )
    engine_config = Engine.Config(
        scheduler=Scheduler.Config(
            discipline=arguments.scheduler,
            max_rows=arguments.max_rows,
            patience=arguments.patience,
        ),
        max_waiting=arguments.max_waiting,
        policies={**POLICIES, **dict(map(load_policy_class, arguments.policy))},
        store_bytes=arguments.store_mib << 20,
        cache=chosen_cache(arguments),
    )
    serve(
        arguments.model,
        workers=workers,
        cluster=arguments.cluster,
        host=arguments.host,
        port=arguments.port,
        **as_loaded(arguments),
        engine_config=engine_config,
        app_config=config,
        env=env,
        announce=lambda line: print(line, flush=True),
    )
    return 0
