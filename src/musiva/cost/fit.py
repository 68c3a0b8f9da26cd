"""A cost model from measured steps."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

import numpy as np

from musiva.core.types import Kind
from musiva.cost.model import CostModel
from musiva.cost.work import FEATURES, Work

__all__ = ["fit", "fitted_weights"]

SWEEPS = 3000
# Residuals beyond that many times the median one weigh less (Huber 1964).
HUBER = 2.0
REWEIGHTED = 6


def fit(measured: Iterable[tuple[Work, float]]) -> CostModel:
    """Of (work, seconds). Errors count relative to what was measured, and steps that something else
    held up count less; steps of the same work count by their median. A kind of which nothing was
    measured costs nothing.
    """
    by_work: dict[Work, list[float]] = {}
    for work, seconds in measured:
        by_work.setdefault(work, []).append(seconds)
    weights: dict[Kind, tuple[float, ...]] = {}
    for kind in Kind:
        found = {w: statistics.median(s) for w, s in by_work.items() if w.kind is kind}
        weights[kind] = _weights(found) if found else (0.0,) * len(FEATURES[kind])
    return CostModel(weights)


def _weights(found: Mapping[Work, float]) -> tuple[float, ...]:
    seconds_N = np.array(list(found.values()))
    features_NF = np.array([work.features() for work in found])
    return fitted_weights(features_NF / seconds_N[:, None])


def fitted_weights(features_NF: np.ndarray) -> tuple[float, ...]:
    """Non-negative w with features @ w near 1 everywhere: least squares by coordinate descent
    (the problem is convex), reweighted for outliers.
    """
    scale_F = np.maximum(np.abs(features_NF).max(axis=0), 1e-30)
    x_NF, trust_N = features_NF / scale_F, np.ones(len(features_NF))
    w_F = np.zeros(x_NF.shape[1])
    for _ in range(REWEIGHTED):
        gram_FF = (x_NF * trust_N[:, None]).T @ x_NF
        target_F = (x_NF * trust_N[:, None]).T @ np.ones(len(x_NF))
        w_F = _descended(gram_FF, target_F, w_F)
        residual_N = np.abs(x_NF @ w_F - 1.0)
        usual = max(float(np.median(residual_N)), 1e-9)
        trust_N = np.minimum(1.0, HUBER * usual / np.maximum(residual_N, 1e-12))
    return tuple(float(w) for w in w_F / scale_F)


def _descended(gram_FF: np.ndarray, target_F: np.ndarray, w_F: np.ndarray) -> np.ndarray:
    w_F = w_F.copy()
    for _ in range(SWEEPS):
        before = w_F.copy()
        for f in range(len(w_F)):
            if gram_FF[f, f] > 0.0:
                step = (target_F[f] - gram_FF[f] @ w_F) / gram_FF[f, f]
                w_F[f] = max(w_F[f] + step, 0.0)
        if np.abs(w_F - before).max() < 1e-9:
            break
    return w_F
