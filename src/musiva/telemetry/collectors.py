"""What is asked for at every scrape: stores, caches, workers, links, and how an engine stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = [
    "CacheCollector",
    "LinkCollector",
    "LinkCounts",
    "StandingCollector",
    "StandingFigures",
    "StoreCollector",
    "StoreFigures",
    "WorkerCollector",
    "WorkerFigures",
]

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
    "musiva_worker_steps": ("steps", "Steps that it has made"),
    "musiva_worker_found": ("found", "Pages of the cluster that it asked for and found"),
    "musiva_worker_not_found": ("not_found", "Those that it did not, or not soon enough"),
}
# Of each link of a worker, or of an engine that has none.
LINK_COUNTERS = {
    "musiva_link_sent_bytes": ("sent_bytes", "Bytes that went over a link"),
    "musiva_link_received_bytes": ("received_bytes", "Bytes that came over a link"),
    "musiva_link_transfers": ("transfers", "Messages, exchanges or pages that went or came"),
    "musiva_link_wait_seconds": ("seconds", "Seconds that were waited for them"),
}
LINK_GAUGES = {
    "musiva_link_latency_seconds": ("latency", "Seconds that something small takes"),
    "musiva_link_bytes_per_second": ("bytes_per_second", "Of what is large"),
}


class LinkCounts(Protocol):
    """What `musiva.comm.LinkFigures` tells."""

    @property
    def kind(self) -> str: ...
    @property
    def other(self) -> str: ...


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
    @property
    def links(self) -> Sequence[LinkCounts]: ...


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


class LinkCollector(Collector):
    """Asks for the links of an engine, and of its workers, at every scrape."""

    def __init__(
        self,
        own: Callable[[], Sequence[LinkCounts]],
        workers: Callable[[], Sequence[WorkerFigures]],
    ) -> None:
        self._own, self._workers = own, workers

    def collect(self) -> Iterator[Metric]:
        found = [("", link) for link in self._own()]
        found += [(str(one.number), link) for one in self._workers() for link in one.links]
        for name, (field, text) in (LINK_COUNTERS | LINK_GAUGES).items():
            kind = GaugeMetricFamily if name in LINK_GAUGES else CounterMetricFamily
            family = kind(name, text, labels=["worker", "kind", "other"])
            for worker, link in found:
                value = getattr(link, field)
                if value is not None:
                    family.add_metric([worker, link.kind, link.other], value)
            if family.samples:
                yield family
