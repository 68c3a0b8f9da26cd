"""From one device to 512: nodes of eight H200 with NVLink inside and Ethernet between, as numbers.

Nothing of this was measured on such a cluster: rows say "extrapolated".
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from musiva.engine import Scheduler, Workers
from musiva.parallel import Form
from musiva.perf.measure import percentile
from musiva.perf.scale.cluster import Cluster, Link
from musiva.perf.scale.fleet import Course, simulate_fleet
from musiva.perf.scale.outline import Outline, outlines
from musiva.perf.scale.setting import Setting
from musiva.perf.traffic import Asked

__all__ = ["DEADLINES", "PUBLISHED", "Way", "grown", "h200", "published", "ways"]

GIGABIT = 1e9 / 8
# Out of a device over NVLink, and until a collective on eight of them has begun.
NVLINK, NVLINK_LATENCY = 450e9, 20e-6
# Of a collective between nodes, and of a message to a worker and back.
ETHERNET_LATENCY, FRONT_LATENCY = 100e-6, 1e-3
# Times what a sample takes one device: what counts as on time.
DEADLINES = (0.5, 1.5, 4.0)
# Share of what so many devices could do with one sample on each.
LOAD = 0.6
# Requests for each device, and how many there are at least and at most.
EACH, LEAST, MOST = 4, 64, 512
# What sensitivity changes, and by how much.
CHANGES: Mapping[str, Sequence[float]] = {
    "compute": (0.7, 1.3),
    "bandwidth": (0.5, 2.0),
    "latency": (0.5, 2.0),
}


@dataclass(frozen=True, slots=True)
class Way:
    """How devices share samples: so many have one together. gigabits: a second out of a node."""

    degree: int
    form: Form
    gigabits: float = 100.0

    @property
    def name(self) -> str:
        if self.degree == 1:
            return "side by side"
        over = f" over {self.gigabits:g} Gbit/s" if self.degree > 8 else ""
        return f"{self.form} {self.degree}{over}"


SIDE, NODE = Way(1, "ulysses"), Way(8, "ulysses")
TWO_NODES = tuple(Way(16, "ulysses", gigabits) for gigabits in (25.0, 100.0))
# Those of which it is told what changes do.
CHANGED = (SIDE, NODE, TWO_NODES[0])
# How many times as fast several devices were in what others have published: of which outline, how
# they shared a sample, and what it was. Where nobody says how, Ulysses is assumed.
PUBLISHED: Sequence[tuple[str, Way, float, str]] = (
    ("picture", Way(4, "ulysses"), 4.30 / 1.63, "xDiT, FLUX.1-dev, to which it is fitted"),
    ("video", Way(8, "ulysses"), 6.13 / 1.19, "SGLang, Wan 2.1 14B"),
    ("video", Way(8, "ulysses"), 5.18 / 0.75, "LightX2V, Wan 2.1 14B"),
)


def ways(outline: Outline) -> list[Way]:
    """Those that can be had with a model."""
    found = [SIDE]
    if outline.branches > 1:
        found.append(Way(2, "branches"))
    found.append(NODE)
    if outline.branches > 1:
        found.append(Way(8, "branches+ulysses"))
    if outline.sends.switches:
        found.append(Way(8, "dynamic"))
    return [*found, *TWO_NODES]


def h200(devices: int, way: Way, machine: Cluster, changed: Mapping[str, float]) -> Cluster:
    """So many devices, in nodes of eight. machine: of which a front and a worker's host are taken.
    changed: factors by name, out of `CHANGES`.
    """
    bandwidth, latency = changed.get("bandwidth", 1.0), changed.get("latency", 1.0)
    return Cluster(
        nodes=-(-devices // 8),
        devices=8,
        rate=changed.get("compute", 1.0),
        inside=Link(bandwidth=NVLINK * bandwidth, latency=NVLINK_LATENCY * latency),
        between=Link(
            bandwidth=way.gigabits * GIGABIT * bandwidth, latency=ETHERNET_LATENCY * latency
        ),
        front=Link(latency=FRONT_LATENCY * latency),
        placing=machine.placing,
        step=machine.step,
    )


def setting_of(
    outline: Outline, devices: int, way: Way, machine: Cluster, changed: Mapping[str, float]
) -> Setting:
    return Setting(
        workers=Workers(count=devices // way.degree, degree=way.degree, form=way.form),
        cluster=h200(devices, way, machine, changed),
        scheduler=Scheduler.Config(cost=outline.cost),
        sends=outline.sends,
    )


def grown(
    outline: Outline, counts: Sequence[int], machine: Cluster, *, changed_at: int | None = None
) -> Iterator[Mapping[str, object]]:
    """A row for each number of devices and each way to share samples. changed_at: the number at
    which there is one for each of `CHANGES` too.
    """
    for way in ways(outline):
        for devices in counts:
            if devices < way.degree:
                continue
            yield _row(outline, devices, way, machine, {})
            if devices != changed_at or way not in CHANGED:
                continue
            for name, factors in CHANGES.items():
                for factor in factors:
                    yield _row(outline, devices, way, machine, {name: factor})


def published(machine: Cluster) -> Iterator[Mapping[str, object]]:
    """How much faster one sample was for others, beside what is foretold of it."""
    known = outlines()
    for name, way, times, source in PUBLISHED:
        outline = known[name]
        setting = setting_of(outline, max(way.degree, 8), way, machine, {})
        size = max(outline.tokens, key=outline.seconds)
        asked = Asked(at=0.0, prompt="a fox", seed=0, size=size)
        (fate,) = simulate_fleet(setting, [outline.wanted("r0", asked)]).fates
        assert fate.seconds is not None, "it is alone"
        yield {
            "what": "published",
            "work": name,
            "way": way.name,
            "devices": way.degree,
            "published_speedup": times,
            "simulated_speedup": outline.seconds(size) / fate.seconds,
            "source": source,
        }


def _row(
    outline: Outline, devices: int, way: Way, machine: Cluster, changed: Mapping[str, float]
) -> Mapping[str, object]:
    alone = outline.mean_seconds
    count = min(max(EACH * devices, LEAST), MOST)
    trace = outline.trace(rate=LOAD * devices / alone, count=count, seed=devices)
    setting = setting_of(outline, devices, way, machine, changed)
    course = simulate_fleet(setting, trace)
    return {
        "what": "extrapolated",
        "work": outline.name,
        "way": way.name,
        "degree": way.degree,
        "devices": devices,
        "changed": " ".join(f"{name} x{x:g}" for name, x in changed.items()) or "nothing",
        "requests": count,
        **_found(outline, setting, course),
    }


def _found(outline: Outline, setting: Setting, course: Course) -> Mapping[str, object]:
    """throughput: samples a second while all workers are at work. attainment: the share that was
    there within so many times the seconds that it takes one device. front_busy: share of its time
    that the front needs to place requests at that throughput; messages: that it hears, of each
    request.
    """
    fates = course.fates
    shares: list[float] = []
    for fate in fates:
        assert fate.seconds is not None, "nobody is refused who has no deadline"
        assert fate.asked.size is not None
        shares.append(fate.seconds / outline.seconds(fate.asked.size))
    throughput = len(fates) * setting.workers.count / course.busy
    attained = {
        f"attainment_{limit:g}": statistics.fmean(share <= limit for share in shares)
        for limit in DEADLINES
    }
    return {
        "throughput": throughput,
        **attained,
        "latency_p50": percentile(shares, 50),
        "latency_p95": percentile(shares, 95),
        "front_busy": throughput * setting.cluster.placing,
        "messages": course.messages / len(fates),
        "moved": course.moved,
    }
