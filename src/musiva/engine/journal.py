"""What is told of samples while they are on their way, so that others can go on where they were.

A sample is a checkpoint and a journal: whoever takes it over puts it back to where all of it was
computed last, does what was recorded since again, as it was done, and goes on. Pages come into
being again on the way as they did before, and so do the bytes of the picture.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from musiva.engine.sample import Record, SampleState
from musiva.engine.slot import Checkpoint

__all__ = ["Entry", "Journal", "Resumption"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a sample is to go on. checkpoint: None for one that begins from its noise, or from the
    latent that was given, and does all of the record again.
    """

    record: Record
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """News of a sample. evaluations: that are done. record, checkpoint: as bytes, for whoever
    resumes it; of the latter the last that was told holds where this one has None.
    """

    request: str
    index: int
    evaluations: int
    record: bytes
    checkpoint: bytes | None = None

    @staticmethod
    def resumption(record: bytes, checkpoint: bytes | None) -> Resumption:
        """What was packed. The bytes have to come from a process of ours: they are pickled."""
        known = None if checkpoint is None else pickle.loads(checkpoint)
        return Resumption(pickle.loads(record), known)


class Keeper(Protocol):
    """What has the checkpoints of samples."""

    def checkpoint(self, sample: str) -> Checkpoint | None: ...


@dataclass(slots=True)
class Journal:
    """Tells of samples after each of their steps. every: seconds at least between two checkpoints
    of a sample; what was done since the last is done again where it is resumed.
    """

    tell: Callable[[Entry], None]
    clock: Callable[[], float]
    every: float = 0.5
    _told: dict[str, tuple[int, float]] = field(default_factory=dict)
    _mute: set[str] = field(default_factory=set)

    def enter(self, sample: SampleState, keeper: Keeper) -> None:
        """Of a sample that a step has advanced."""
        if sample.is_bound or sample.id in self._mute:
            return
        checkpoint = self._due(sample.id, keeper.checkpoint(sample.id))
        try:
            record = pickle.dumps(sample.record())
        except Exception as error:
            # What a policy remembers is anybody's class; its pictures begin anew elsewhere.
            log.warning("request %s cannot be resumed: %r", sample.request.id, error)
            self._mute.add(sample.id)
            return
        packed = None if checkpoint is None else pickle.dumps(checkpoint.to("cpu"))
        self.tell(Entry(sample.request.id, sample.index, len(sample.actions), record, packed))

    def forget(self, sample: str) -> None:
        """Of a sample that ended."""
        self._told.pop(sample, None)
        self._mute.discard(sample)

    def _due(self, sample: str, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """The checkpoint, if it is new and the last one was long ago."""
        if checkpoint is None:
            return None
        now, told = self.clock(), self._told.get(sample)
        if told is not None and (told[0] == checkpoint.evaluation or now - told[1] < self.every):
            return None
        self._told[sample] = checkpoint.evaluation, now
        return checkpoint
