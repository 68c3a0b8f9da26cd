"""The cost model: seconds of a step from what it does, fitted by a probe and corrected online."""

from __future__ import annotations

from musiva.cost.drift import Drift
from musiva.cost.fit import fit
from musiva.cost.model import CostModel
from musiva.cost.profile import Machine, Profile, profile_path
from musiva.cost.work import Work

__all__ = ["CostModel", "Drift", "Machine", "Profile", "Work", "fit", "profile_path"]
