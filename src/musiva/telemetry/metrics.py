"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from musiva.core.types import DecodeItem, DenoiseItem, Kind, StepPlan, StepResult
from musiva.telemetry.collectors import (
    CacheCollector,
    LinkCollector,
    LinkCounts,
    StandingCollector,
    StandingFigures,
    StoreCollector,
    StoreFigures,
    WorkerCollector,
    WorkerFigures,
)

__all__ = ["Metrics"]

STEP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
PACK_ROWS = tuple(float(16 << k) for k in range(13))
QUALITIES = tuple(float(quality) for quality in range(10, 101, 10))


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

    def watch_links(
        self,
        own: Callable[[], Sequence[LinkCounts]],
        workers: Callable[[], Sequence[WorkerFigures]],
    ) -> None:
        """Report the links of an engine and of its workers, which any thread may ask for, at every
        scrape. Once per instance.
        """
        self.registry.register(LinkCollector(own, workers))

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
