"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from musiva.core.types import DecodeItem, DenoiseItem, Kind, StepPlan, StepResult

__all__ = ["Metrics"]

STEP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
PACK_ROWS = tuple(float(16 << k) for k in range(13))
QUALITIES = tuple(float(quality) for quality in range(10, 101, 10))

# Of a store, by the name of the metric: the name of the figure, and what it says.
STORE_GAUGES = {
    "musiva_store_budget_bytes": ("budget_bytes", "Bytes that the store may have"),
    "musiva_store_used_bytes": ("used_bytes", "Bytes of the pages in use"),
    "musiva_store_owners": ("owners", "Sample branches that have pages"),
}
STORE_COUNTERS = {
    "musiva_store_hits": ("hits", "Times that a sample branch found what it had kept"),
    "musiva_store_misses": ("misses", "Times that a sample branch found nothing to hold"),
    "musiva_store_evictions": ("evictions", "Sample branches whose pages went to others"),
    "musiva_store_refused": ("refused", "Times that there was no room for a sample branch"),
    "musiva_store_written_bytes": ("written_bytes", "Bytes written into pages"),
}


# Of a cache, by the name of the metric: the name of the figure, and what it says.
CACHE_GAUGES = {
    "musiva_cache_budget_bytes": ("budget_bytes", "Bytes that published pages may have"),
    "musiva_cache_used_bytes": ("used_bytes", "Bytes of the published pages that are kept"),
}
CACHE_COUNTERS = {
    "musiva_cache_misses": ("misses", "Pages asked for that nobody had, or not soon enough"),
    "musiva_cache_late": ("late", "Those of them that came too late"),
    "musiva_cache_declined": ("declined", "Pages that were known and not worth the way"),
    "musiva_cache_published": ("published", "Pages published"),
    "musiva_cache_dropped": ("dropped", "Pages not published, since too many waited"),
    "musiva_cache_evictions": ("evictions", "Pages that went so that others found room"),
    "musiva_cache_failures": ("failures", "Pages that a folder refused"),
    "musiva_cache_damaged": ("damaged", "Pages that were found damaged, and computed"),
    "musiva_cache_outages": ("outages", "Questions that the directory did not answer"),
    "musiva_cache_fetched_bytes": ("fetched_bytes", "Bytes of pages from other hosts"),
    "musiva_cache_served_bytes": ("served_bytes", "Bytes of pages to other hosts"),
    "musiva_cache_saved_seconds": ("saved", "Seconds of computing that found pages saved"),
}
TIERS = ("memory", "shared", "disk", "remote")


# Of how an engine stands, by the name of the metric: the name of the figure, and what it says.
STANDING_GAUGES = {
    "musiva_goodput": ("goodput", "Pictures a second that were on time, of the last minute"),
    "musiva_attainment": ("attainment", "Their share of all that ended or was refused then"),
    "musiva_backlog_seconds": ("backlog", "Seconds of work, as exactly as it is done now"),
    "musiva_backlog_floor_seconds": ("backlog_floor", "The same with all at their floors"),
}


# Of each worker of a fleet, by the name of the metric: the name of the figure, and what it says.
WORKER_GAUGES = {
    "musiva_worker_requests": ("requests", "Requests that a worker has"),
    "musiva_worker_waiting": ("waiting", "Those of them that have not begun"),
    "musiva_worker_backlog_seconds": ("seconds", "Seconds of work that it has left, as dense runs"),
    "musiva_worker_store_bytes": ("store_bytes", "Bytes of the pages that it keeps"),
}
WORKER_COUNTERS = {
    "musiva_worker_lives": ("life", "Workers that have had this place"),
}


class WorkerFigures(Protocol):
    """Those of `musiva.engine.Front.members` that are told."""

    @property
    def number(self) -> int: ...
    @property
    def phase(self) -> str: ...
    @property
    def life(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def store_bytes(self) -> int: ...


class StandingFigures(Protocol):
    """Those of `musiva.engine.Engine.standing` that are told."""

    @property
    def goodput(self) -> float: ...
    @property
    def attainment(self) -> float | None: ...
    @property
    def backlog(self) -> float: ...
    @property
    def backlog_floor(self) -> float: ...


class StoreFigures(Protocol):
    """Those of `musiva.store.Figures` that are told."""

    @property
    def budget_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def owners(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def evictions(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...


class StoreCollector(Collector):
    """Asks for a store's figures at every scrape."""

    def __init__(self, figures: Callable[[], StoreFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        for name, (field, text) in STORE_GAUGES.items():
            yield GaugeMetricFamily(name, text, getattr(figures, field))
        for name, (field, text) in STORE_COUNTERS.items():
            yield CounterMetricFamily(name, text, getattr(figures, field))


class CacheCollector(Collector):
    """Asks for a cache's figures at every scrape; nothing where there is none."""

    def __init__(self, figures: Callable[[], object | None]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        if figures is None:
            return
        hits = CounterMetricFamily("musiva_cache_hits", "Pages found, by tier", labels=["tier"])
        for tier in TIERS:
            hits.add_metric([tier], getattr(figures, f"{tier}_hits"))
        yield hits
        for name, (field, text) in CACHE_GAUGES.items():
            yield GaugeMetricFamily(name, text, getattr(figures, field))
        for name, (field, text) in CACHE_COUNTERS.items():
            yield CounterMetricFamily(name, text, getattr(figures, field))


class StandingCollector(Collector):
    """Asks how an engine stands at every scrape; what nobody knows is left out."""

    def __init__(self, standing: Callable[[], StandingFigures | None]) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        standing = self._standing()
        for name, (field, text) in STANDING_GAUGES.items():
            value = getattr(standing, field, None)
            if value is not None:
                yield GaugeMetricFamily(name, text, value)


class WorkerCollector(Collector):
    """Asks how the workers stand at every scrape."""

    def __init__(self, workers: Callable[[], Sequence[WorkerFigures]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        workers = self._workers()
        if not workers:
            return
        ready = GaugeMetricFamily(
            "musiva_worker_ready", "Whether it takes requests", labels=["worker"]
        )
        for one in workers:
            ready.add_metric([str(one.number)], float(one.phase == "ready"))
        yield ready
        for name, (field, text) in (WORKER_GAUGES | WORKER_COUNTERS).items():
            kind = GaugeMetricFamily if name in WORKER_GAUGES else CounterMetricFamily
            family = kind(name, text, labels=["worker"])
            for one in workers:
                family.add_metric([str(one.number)], getattr(one, field))
            yield family


class Metrics:
    """The figures of one process's engine and server, in a registry of their own. Thread-safe.

    `Engine(pipeline, observe=metrics.observe)` feeds the step figures; a server counts its requests
    with `http_started`, `http_ended` and `cancelled`, and what became of them with `refused`,
    `fared` and `without_effect`.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._step_seconds = Histogram(
            "musiva_step_seconds",
            "Seconds that a step took",
            ["kind"],
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self._pack_rows = Histogram(
            "musiva_denoise_pack_rows",
            "Rows of a denoise pack, padding included",
            buckets=PACK_ROWS,
            registry=self.registry,
        )
        self._pack_samples = Histogram(
            "musiva_denoise_pack_samples",
            "Pictures that a denoise pack computed in full, or some tiles of",
            buckets=tuple(float(1 << k) for k in range(10)),
            registry=self.registry,
        )
        self._evaluations = self._counter(
            "musiva_evaluations", "Evaluations of pictures, by what was done", "action"
        )
        self._pictures = self._counter("musiva_pictures", "Pictures finished")
        self._by_deadline = self._counter(
            "musiva_pictures_by_deadline", "Pictures told to clients: met, late, none", "deadline"
        )
        self._quality = Histogram(
            "musiva_quality_used",
            "The lowest quality that a picture was made with",
            buckets=QUALITIES,
            registry=self.registry,
        )
        self._refused = self._counter(
            "musiva_refused", "Requests refused: deadline, full, share", "reason"
        )
        self._failures = self._counter("musiva_step_failures", "Items of steps that failed", "kind")
        self._requests = self._counter(
            "musiva_http_requests", "HTTP requests answered", "route", "status"
        )
        self._cancelled = self._counter(
            "musiva_requests_cancelled", "Requests stopped because their client went away"
        )
        self._without_effect = self._counter(
            "musiva_policies_without_effect", "Pictures whose policy found nothing to skip"
        )
        self._in_flight = Gauge(
            "musiva_http_requests_in_flight", "HTTP requests being answered", registry=self.registry
        )

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Report `count()` at every scrape as the requests not ended. Once per instance."""
        gauge = Gauge("musiva_requests_waiting", "Requests not ended", registry=self.registry)
        gauge.set_function(count)

    def watch_store(self, figures: Callable[[], StoreFigures]) -> None:
        """Report `figures()`, which any thread may call, at every scrape. Once per instance."""
        self.registry.register(StoreCollector(figures))

    def watch_cache(self, figures: Callable[[], object | None]) -> None:
        """Report `figures()`, of `musiva.store.CacheFigures` or None, which any thread may call, at
        every scrape. Once per instance.
        """
        self.registry.register(CacheCollector(figures))

    def watch_workers(self, workers: Callable[[], Sequence[WorkerFigures]]) -> None:
        """Report `workers()`, which any thread may call, at every scrape. Once per instance."""
        self.registry.register(WorkerCollector(workers))

    def watch_standing(self, standing: Callable[[], StandingFigures | None]) -> None:
        """Report `standing()`, which any thread may call, at every scrape; None where nobody knows.
        Once per instance.
        """
        self.registry.register(StandingCollector(standing))

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        """Enter one step; fits the engine's `observe`."""
        if not plan.items:
            return
        self._step_seconds.labels(plan.kind.value).observe(result.seconds)
        for item, outcome in zip(plan.items, result.outcomes, strict=True):
            if outcome.error is not None:
                self._failures.labels(plan.kind.value).inc()
            elif isinstance(item, DecodeItem) and item.last is None:
                self._pictures.inc()
        if plan.kind is not Kind.DENOISE:
            return
        items = [item for item in plan.items if isinstance(item, DenoiseItem)]
        # The last action of an item is the only one that may compute, and that a gate may change.
        last = [
            outcome.action or item.actions[-1]
            for item, outcome in zip(items, result.outcomes, strict=True)
        ]
        found = [outcome.found for outcome in result.outcomes]
        ran = sum(a.compute for a in last)
        computed = sum(a.full and not f for a, f in zip(last, found, strict=True))
        partial = sum(a.tiles is not None and not f for a, f in zip(last, found, strict=True))
        self._evaluations.labels("computed").inc(computed)
        self._evaluations.labels("found").inc(sum(found))
        self._evaluations.labels("partial").inc(partial)
        self._evaluations.labels("held").inc(ran - computed - partial - sum(found))
        self._evaluations.labels("forecast").inc(sum(len(item.actions) for item in items) - ran)
        if result.rows:
            self._pack_rows.observe(result.rows)
            self._pack_samples.observe(computed + partial)

    def without_effect(self) -> None:
        """A picture whose policy skipped nothing."""
        self._without_effect.inc()

    def fared(self, deadline_met: bool | None, quality: int) -> None:
        """A picture. deadline_met: None without a deadline. quality: the lowest that was used."""
        kind = "none" if deadline_met is None else "met" if deadline_met else "late"
        self._by_deadline.labels(kind).inc()
        self._quality.observe(quality)

    def refused(self, reason: str) -> None:
        """A request that is answered 429. reason: "deadline", "full" or "share"."""
        self._refused.labels(reason).inc()

    def http_started(self) -> None:
        self._in_flight.inc()

    def http_ended(self, route: str, status: int) -> None:
        """route: the path as declared, not as asked for, so that there are few of them."""
        self._in_flight.dec()
        self._requests.labels(route, str(status)).inc()

    def cancelled(self) -> None:
        self._cancelled.inc()

    def render(self) -> bytes:
        """All figures in the text format; its media type is `content_type`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
