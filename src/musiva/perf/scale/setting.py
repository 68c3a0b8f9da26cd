"""What is simulated: workers, what they are on, what steps and messages take."""

from __future__ import annotations

from dataclasses import dataclass, field

from musiva.core.errors import InvalidInput
from musiva.cost import CostModel
from musiva.engine import Scheduler, Workers
from musiva.perf.scale.cluster import Cluster

__all__ = ["Sends", "Setting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sends:
    """What ranks send of a model. row: bytes of a row of its activations. attentions: of a forward,
    around which rows change ranks where these have some tokens each. switches: those of them that
    attend in columns, where ranks may have whole frames. prediction: bytes of a row of what it
    predicts.
    """

    row: float = 0.0
    attentions: int = 0
    switches: int = 0
    prediction: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """scheduler: of each worker, with the cost model of one rank alone.

    Raises InvalidInput for workers that do not fit into the cluster, and for a form that cannot be
    simulated of the model: "dynamic" where it never attends in columns, and stale ones.
    """

    workers: Workers
    cluster: Cluster
    scheduler: Scheduler.Config
    sends: Sends = field(default_factory=Sends)

    def __post_init__(self) -> None:
        workers = self.workers
        self.cluster.check(workers.count, workers.degree)
        forms = ["ulysses", "branches", "branches+ulysses"]
        if self.sends.switches:
            forms.append("dynamic")
        if workers.degree > 1 and workers.form not in forms:
            raise InvalidInput("form", workers.form, ", ".join(forms))

    @property
    def cost(self) -> CostModel:
        """Of one rank alone."""
        cost = self.scheduler.cost
        assert cost is not None, "a simulation knows what steps take"
        return cost
