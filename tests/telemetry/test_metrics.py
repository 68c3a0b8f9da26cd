from __future__ import annotations

from dataclasses import replace

import torch

from musiva.comm import LinkFigures, Meter
from musiva.core.errors import NonFinite
from musiva.core.types import (
    COMPUTE,
    Action,
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Gate,
    Kind,
    Outcome,
    Path,
    StepPlan,
    StepResult,
)
from musiva.engine import WorkerStanding
from musiva.store import Need, Store
from musiva.telemetry import Metrics

ITEM = DenoiseItem(
    sample="a/0",
    evaluation=0,
    actions=(COMPUTE,),
    path=Path(steps=2),
    seed=0,
    size=(8, 8),
    prompts=("a",),
    guidance=1.0,
    fresh=True,
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_steps_are_counted_by_kind() -> None:
    metrics = Metrics()
    fine, failed = Outcome(), Outcome(error=NonFinite("nan"))
    metrics.observe(StepPlan(1, Kind.ENCODE, (EncodeItem("a"),)), StepResult(1, (fine,), 0.25))
    denoise = StepPlan(2, Kind.DENOISE, (ITEM, ITEM, ITEM))
    metrics.observe(denoise, StepResult(2, (fine, failed, fine), 0.5, rows=96))
    metrics.observe(denoise, StepResult(3, (fine, fine, fine), 1.0, rows=48))
    decode = StepPlan(4, Kind.DECODE, (DecodeItem("a/0"),))
    metrics.observe(decode, StepResult(4, (Outcome(picture=object()),), 0.125))
    metrics.observe(decode, StepResult(5, (failed,), 0.125))

    assert value(metrics, "musiva_step_seconds_count", kind="encode") == 1
    assert value(metrics, "musiva_step_seconds_sum", kind="denoise") == 1.5
    assert value(metrics, "musiva_step_seconds_count", kind="decode") == 2
    assert value(metrics, "musiva_denoise_pack_rows_sum") == 144
    assert value(metrics, "musiva_denoise_pack_rows_bucket", le="64.0") == 1
    assert value(metrics, "musiva_denoise_pack_samples_sum") == 6
    assert value(metrics, "musiva_pictures_total") == 1
    assert value(metrics, "musiva_step_failures_total", kind="denoise") == 1
    assert value(metrics, "musiva_step_failures_total", kind="decode") == 1


def test_a_plan_that_only_frees_slots_is_no_step() -> None:
    metrics = Metrics()
    metrics.observe(StepPlan(1, Kind.DENOISE, (), release=("a/0",)), StepResult(1, (), 0.1))
    assert value(metrics, "musiva_step_seconds_count", kind="denoise") is None


def test_http_and_waiting() -> None:
    metrics = Metrics()
    waiting = [3]
    metrics.watch_waiting(lambda: waiting[0])
    metrics.http_started()
    metrics.http_started()
    metrics.http_ended("/healthz", 200)
    metrics.cancelled()
    assert value(metrics, "musiva_http_requests_in_flight") == 1
    assert value(metrics, "musiva_http_requests_total", route="/healthz", status="200") == 1
    assert value(metrics, "musiva_requests_cancelled_total") == 1
    assert value(metrics, "musiva_requests_waiting") == 3
    waiting[0] = 0
    assert "musiva_requests_waiting 0.0" in metrics.render().decode()


def test_instances_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.cancelled()
    assert value(second, "musiva_requests_cancelled_total") == 0


def test_evaluations_are_counted_by_what_was_done() -> None:
    metrics = Metrics()
    held, forecast = Action(held="rest"), Action(compute=False)
    gated = replace(ITEM, actions=(forecast, forecast, Action(gate=Gate("first_block", 0.1))))
    plan = StepPlan(1, Kind.DENOISE, (ITEM, gated, gated, replace(ITEM, actions=(forecast,))))
    outcomes = (Outcome(), Outcome(action=held), Outcome(action=COMPUTE), Outcome())
    metrics.observe(plan, StepResult(1, outcomes, 0.5, rows=32))
    told = {"computed": 2, "partial": 0, "held": 1, "forecast": 5}
    for action, count in told.items():
        assert value(metrics, "musiva_evaluations_total", action=action) == count
    assert value(metrics, "musiva_denoise_pack_samples_sum") == 2


def test_evaluations_of_some_tiles_are_counted_apart() -> None:
    metrics = Metrics()
    some = replace(ITEM, actions=(Action(compute=False), Action(tiles=(True, False))))
    plan = StepPlan(1, Kind.DENOISE, (some, some, ITEM, replace(ITEM, actions=(Action(),))))
    # Of the second, pages were missing: all its tiles were computed.
    outcomes = (Outcome(), Outcome(action=COMPUTE), Outcome(), Outcome(action=Action(held="all")))
    metrics.observe(plan, StepResult(1, outcomes, 0.5, rows=32))
    told = {"computed": 2, "partial": 1, "held": 1, "forecast": 2}
    for action, count in told.items():
        assert value(metrics, "musiva_evaluations_total", action=action) == count
    assert value(metrics, "musiva_denoise_pack_samples_sum") == 3


def test_a_store_is_asked_at_every_scrape() -> None:
    metrics = Metrics()
    store = Store.Config(budget_bytes=4096).build()
    metrics.watch_store(store.figures)
    assert value(metrics, "musiva_store_used_bytes") == 0
    store.reserve("a", {"rest": Need(64, (2,), torch.float32)}, 1.0)
    assert store.missing("a")
    store.write("a", "rest", torch.ones(64, 2), version=0)
    assert not store.missing("a")
    text = metrics.render().decode()
    for line in (
        "musiva_store_budget_bytes 4096.0",
        "musiva_store_used_bytes 512.0",
        "musiva_store_owners 1.0",
        "musiva_store_hits_total 1.0",
        "musiva_store_misses_total 1.0",
        "musiva_store_evictions_total 0.0",
        "musiva_store_refused_total 0.0",
        "musiva_store_written_bytes_total 512.0",
    ):
        assert f"\n{line}\n" in text


def test_policies_that_skip_nothing_are_counted() -> None:
    metrics = Metrics()
    metrics.without_effect()
    assert value(metrics, "musiva_policies_without_effect_total") == 1


def test_workers_are_told_one_by_one() -> None:
    metrics = Metrics()
    workers: list[WorkerStanding] = []
    metrics.watch_workers(lambda: workers)
    assert b"musiva_worker" not in metrics.render()
    for number, phase in enumerate(("ready", "gone")):
        workers.append(
            WorkerStanding(
                number=number,
                phase=phase,
                pid=number,
                life=3,
                requests=2,
                waiting=1,
                seconds=0.5,
                steps=9,
                store_bytes=64,
                found=5,
                not_found=1,
            )
        )
    assert value(metrics, "musiva_worker_ready", worker="0") == 1
    assert value(metrics, "musiva_worker_ready", worker="1") == 0
    assert value(metrics, "musiva_worker_requests", worker="1") == 2
    assert value(metrics, "musiva_worker_backlog_seconds", worker="0") == 0.5
    assert value(metrics, "musiva_worker_lives_total", worker="0") == 3
    assert value(metrics, "musiva_worker_steps_total", worker="1") == 9
    assert value(metrics, "musiva_worker_found_total", worker="1") == 5


def test_links_are_told_one_by_one() -> None:
    metrics = Metrics()
    own: list[LinkFigures] = []
    workers: list[WorkerStanding] = []
    metrics.watch_links(lambda: own, lambda: workers)
    assert b"musiva_link" not in metrics.render()
    ranks, hosts = Meter(), Meter()
    ranks.saw(sent=8, received=6, seconds=0.5)
    ranks.saw(sent=8, received=6, seconds=0.25)
    hosts.saw(received=100)
    host = replace(hosts.figures("host", "b"), latency=0.5, bytes_per_second=2e8)
    own.append(host)
    told = {"phase": "ready", "pid": None, "life": 1, "requests": 0, "waiting": 0}
    links = [ranks.figures("ranks", "1-3"), ranks.mirrored("server", "a")]
    workers.append(
        WorkerStanding(number=2, seconds=0.0, steps=1, store_bytes=0, links=links, **told)  # type: ignore[arg-type]
    )
    among = {"worker": "2", "kind": "ranks", "other": "1-3"}
    assert value(metrics, "musiva_link_sent_bytes_total", **among) == 16
    assert value(metrics, "musiva_link_received_bytes_total", **among) == 12
    assert value(metrics, "musiva_link_transfers_total", **among) == 2
    assert value(metrics, "musiva_link_wait_seconds_total", **among) == 0.75
    server = {"worker": "2", "kind": "server", "other": "a"}
    assert value(metrics, "musiva_link_sent_bytes_total", **server) == 12
    other = {"worker": "", "kind": "host", "other": "b"}
    assert value(metrics, "musiva_link_received_bytes_total", **other) == 100
    assert value(metrics, "musiva_link_latency_seconds", **other) == 0.5
    assert value(metrics, "musiva_link_bytes_per_second", **other) == 2e8
    # What nobody knows is left out.
    text = metrics.render().decode()
    assert 'musiva_link_latency_seconds{kind="ranks"' not in text
