"""The engine: the step loop, its record, its scheduler and executor, and the front door for
callers.
"""

from __future__ import annotations

from musiva.engine.engine import Engine
from musiva.engine.executor import InlineExecutor
from musiva.engine.fleet import Fleet, RayCluster, Workers
from musiva.engine.front import Front
from musiva.engine.intake import LATENCIES, Intake
from musiva.engine.load import load_pipeline, shipped_models
from musiva.engine.loop import Executor, Observer, StepLoop
from musiva.engine.pipeline import Defaults, Pipeline
from musiva.engine.predict import Predictor, load_denoiser
from musiva.engine.preview import LatentPreview
from musiva.engine.runner import PlainRun, forward
from musiva.engine.scheduler import Scheduler
from musiva.engine.standing import Estimate, Standing, WorkerStanding
from musiva.engine.state import EngineState

__all__ = [
    "LATENCIES",
    "Defaults",
    "Engine",
    "EngineState",
    "Estimate",
    "Executor",
    "Fleet",
    "Front",
    "InlineExecutor",
    "Intake",
    "LatentPreview",
    "Observer",
    "Pipeline",
    "PlainRun",
    "Predictor",
    "RayCluster",
    "Scheduler",
    "Standing",
    "StepLoop",
    "WorkerStanding",
    "Workers",
    "forward",
    "load_denoiser",
    "load_pipeline",
    "shipped_models",
]
