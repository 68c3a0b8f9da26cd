"""Which step comes next: host only, pure and deterministic.

| scheduler       | order              | level                   | admits |
|-----------------|--------------------|-------------------------|--------|
| `goodput`       | earliest due first | as exact as time allows | what can be on time at its floor
|
| `fifo`          | as they came       | the most exact          | all |
| `shortest`      | least work first   | the most exact          | all |
| `edf`           | earliest due first | the most exact          | all |
| `edf_admission` | earliest due first | the most exact          | what can be on time so |
| `static`        | batches of a shape | the most exact          | all |
"""

from __future__ import annotations

from musiva.engine.scheduler.base import Discipline, Turn, Verdict
from musiva.engine.scheduler.catalog import DISCIPLINES
from musiva.engine.scheduler.scheduler import Scheduler

__all__ = ["DISCIPLINES", "Discipline", "Scheduler", "Turn", "Verdict"]
