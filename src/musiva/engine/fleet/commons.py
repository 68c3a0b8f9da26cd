"""What the workers of a fleet have in common: a cache each, which find each other's pages."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from musiva.comm import Service
from musiva.core.errors import Unavailable
from musiva.core.types import Request
from musiva.engine.intake import Intake
from musiva.engine.lineage import Lineage, told_of
from musiva.engine.pipeline import Pipeline
from musiva.engine.sample import SampleState, observe
from musiva.engine.scheduler.former import item_of
from musiva.samplers import initial_scale
from musiva.store import (
    Cache,
    Directory,
    Embedded,
    Folder,
    Found,
    Holder,
    answering,
    directory_of,
)

__all__ = ["Commons", "first_name"]

# Evaluations of a picture that are looked for, to place it.
DEPTH = 16
# Seconds that a request waits for the directory before it is placed without; and until that is
# asked again then.
PATIENCE, PAUSE = 0.1, 30.0


class Commons:
    """config: of the cache of each worker. A directory of its own is served where none is named."""

    def __init__(self, config: Cache.Config, host: str, ranks: int) -> None:
        """host: an address of this machine that the workers reach. ranks: of each. Raises
        Unavailable, and InvalidInput for the address of a directory.
        """
        self._ranks = ranks
        name = f"musiva-{secrets.token_hex(8)}"
        secret = config.secret or secrets.token_bytes(32)
        self._service: Service | None = None
        self._directory: Directory
        # As long as it is open the pages of this host stay, whoever of the workers ends.
        self._folder = Folder.shared(name, config.shared_bytes)
        try:
            if config.directory is None:
                self._directory = Embedded()
                self._service = Service(answering(self._directory), secret, host)
            else:
                self._directory = directory_of(config.directory, secret)
                self._directory.find("", 1)
        except BaseException:
            self._folder.close()
            raise
        where = config.directory if self._service is None else self._service.address
        self._clock, self._again = time.monotonic, 0.0
        self._asks = ThreadPoolExecutor(1, thread_name_prefix="musiva-fleet-asks")
        self.config = replace(config, shared=name, secret=secret, directory=where)

    def close(self) -> None:
        self._asks.shutdown(cancel_futures=True)
        if self._service is not None:
            self._service.close()
        self._directory.close()
        self._folder.close()

    def saved(
        self,
        intake: Intake,
        request: Request,
        holders: Mapping[int, Holder],
        root: str,
    ) -> dict[int, float]:
        """Seconds that workers would save with the pages of their hosts, as far as these differ.
        holders: of workers; root: as of `root_of`, on them.
        """
        if len({holder.place for holder in holders.values()}) < 2:
            return {}
        name = first_name(intake, request, root, self._ranks)
        if name is None:
            return {}
        if self._clock() < self._again:
            return {}
        try:
            found = self._find(name)
        except (Unavailable, TimeoutError):
            self._again = self._clock() + PAUSE
            return {}
        places: dict[str, float] = {}
        for one in found:
            for place in {holder.place for holder in one.holders}:
                places[place] = places.get(place, 0.0) + one.saves
        return {number: places.get(holder.place, 0.0) for number, holder in holders.items()}

    def _find(self, name: str) -> list[Found]:
        """Raises Unavailable, and TimeoutError where there is no answer soon."""
        if self._service is not None:
            # It is in this process.
            return self._directory.find(name, DEPTH)
        try:
            answer = self._asks.submit(self._directory.find, name, DEPTH)
        except RuntimeError as error:
            raise Unavailable("the fleet is closed") from error
        return answer.result(PATIENCE)


def first_name(intake: Intake, request: Request, root: str, ranks: int) -> str | None:
    """Of the first evaluation of its first picture, from the noise of its seed; None where a gate
    decides about it.
    """
    pipeline: Pipeline = intake.pipeline
    policies, trip = intake.policies_of(request), intake.trip_of(request)
    sample = SampleState(
        f"{request.id}/0", request, 0, intake.rows_of(request), True, tuple(policies), trip
    )
    if observe(sample) is not None or sample.asks.gates:
        return None
    item, schedule = item_of(sample, sample.next, 0), pipeline.schedule(request.path)
    grid = pipeline.grid(request.size, request.frames)
    lineage = Lineage.of_noise(root, item, grid, initial_scale(schedule))
    told = told_of(pipeline, item, ranks)
    return lineage.evaluation(item, item.actions[-1], schedule, told)
