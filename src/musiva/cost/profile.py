"""A cost model on disk: what was measured, on which machine, and how well it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from musiva.core.errors import BadCheckpoint
from musiva.core.types import Kind
from musiva.cost.model import CostModel
from musiva.cost.work import FEATURES

__all__ = ["Machine", "Profile", "profile_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a cost model was measured with; another one needs another. parameters: of the denoiser,
    in number. compiled: see `Pipeline`.
    """

    model: str
    parameters: int
    device: str
    dtype: str
    threads: int
    torch: str
    compiled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """errors: of steps that were not fitted, by name: "median" and "p95" of the relative error, and
    "repeatability", that of one run against the median of several, in the median.
    """

    machine: Machine
    cost: CostModel
    steps: int
    seconds: float
    errors: dict[str, float]

    def record(self) -> dict[str, object]:
        """As it is written."""
        weights = {
            str(kind): dict(zip(FEATURES[kind], values, strict=True))
            for kind, values in self.cost.weights.items()
        }
        return {
            "machine": asdict(self.machine),
            "cost": weights,
            "steps": self.steps,
            "seconds": self.seconds,
            "errors": self.errors,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Profile | None:
        """None if there is none. Raises BadCheckpoint for a file that is none."""
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            weights = {
                kind: tuple(float(record["cost"][str(kind)][name]) for name in FEATURES[kind])
                for kind in Kind
            }
            if any(not 0.0 <= w < float("inf") for values in weights.values() for w in values):
                raise ValueError("a weight is negative, or no number")
            return cls(
                machine=Machine(**record["machine"]),
                cost=CostModel(weights),
                steps=int(record["steps"]),
                seconds=float(record["seconds"]),
                errors={str(k): float(v) for k, v in record["errors"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadCheckpoint(f"{path}: {error!r}; `musiva profile` makes it anew") from error


def profile_path(cache_dir: Path, machine: Machine) -> Path:
    """Where the profile of a machine lies."""
    text = json.dumps(asdict(machine), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_dir / "profiles" / f"{digest}.json"
