"""The host records that everything speaks in: requests, plans, results, news. No torch here.

A step is a plan: `schedule(state, clock) -> StepPlan` decides on the host, `execute(plan) ->
StepResult` touches the device, `update(state, plan, result)` changes the record. Tensors are named
by the handle of their slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

__all__ = [
    "COMPUTE",
    "GATES",
    "Action",
    "DecodeItem",
    "DenoiseItem",
    "EncodeItem",
    "Event",
    "Gate",
    "Kind",
    "Level",
    "Outcome",
    "Path",
    "Prompt",
    "Report",
    "Request",
    "StepPlan",
    "StepResult",
    "TileValues",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """How samples go from noise to picture; None is the model's own choice."""

    steps: int
    sampler: str | None = None
    spacing: str | None = None
    shift: float | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the words of a branch are made of. negative: what a picture keeps away from, which some
    pipelines encode in another way.
    """

    text: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A way to make pictures. policy: decides what of them is computed, by name and fields
    (`musiva.policy.build_policy`). quality: 1 to 100 that it keeps, 100 is the dense run.
    """

    policy: str
    quality: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asked for. Picture i of `num_images` uses seed + i.

    size: (width, height) in pixels. guidance: scale of classifier-free guidance; at 1 or below only
    the conditional branch runs. levels: the most exact first, of which the schedule may choose
    another one at every evaluation; nothing of a request with one level depends on others.
    previews: of each picture, spread evenly over its evaluations, none at the last. deadline:
    seconds after its arrival, by which all pictures should be done; None if there is no hurry.
    priority: of a higher one all goes first. tenant: whom fairness is between. distilled: guidance
    is an input of the model, and one branch is all that there is. frames: of a clip; 1 is a
    picture. fps: frames a second at which a clip is shown, which changes none of them.
    """

    id: str
    prompt: str
    negative_prompt: str = ""
    size: tuple[int, int]
    path: Path
    seed: int
    guidance: float
    num_images: int = 1
    levels: tuple[Level, ...] = (Level("never"),)
    previews: int = 0
    deadline: float | None = None
    priority: int = 0
    tenant: str = "default"
    distilled: bool = False
    frames: int = 1
    fps: float = 1.0

    @property
    def max_quality(self) -> int:
        return self.levels[0].quality

    @property
    def min_quality(self) -> int:
        """What is promised."""
        return self.levels[-1].quality

    @property
    def policy(self) -> str:
        """What decides; of several levels the most exact one and the last."""
        return " to ".join(dict.fromkeys((self.levels[0].policy, self.levels[-1].policy)))

    @property
    def guided(self) -> bool:
        """Whether there is a second branch, of the negative prompt."""
        return self.guidance > 1.0 and not self.distilled

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One for each branch, the conditional one first."""
        prompt = Prompt(self.prompt)
        return (prompt, Prompt(self.negative_prompt, negative=True)) if self.guided else (prompt,)

    @property
    def without_effect(self) -> tuple[str, ...]:
        """What was asked for and changes nothing, as "FIELD: why"; users are told."""
        if self.negative_prompt and self.distilled:
            return ("negative_prompt: has no effect on a model that takes guidance as an input",)
        if self.negative_prompt and not self.guided:
            return ("negative_prompt: has no effect without guidance, which is off at 1 and below",)
        return ()


class Kind(StrEnum):
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class EncodeItem:
    """Encode a prompt into a slot of its own."""

    prompt: Prompt


# What a gate can measure in the middle of a forward -> the residual that is held where it stays
# below its threshold: "rest", of all segments but the first; "all", of all segments.
GATES: Mapping[str, str] = MappingProxyType({"first_block": "rest", "modulated_input": "all"})


@dataclass(frozen=True, slots=True)
class Gate:
    """A decision of the executor in the middle of a forward: the model is computed in full where
    `probe`, out of `GATES`, is at least `threshold`, and wherever nothing is kept to hold.

    rescale: coefficients, the highest power first, of a polynomial that is taken of the probe
    before it is compared; () leaves it as it is.
    """

    probe: str
    threshold: float
    rescale: tuple[float, ...] = ()

    def rescaled(self, value: float) -> float:
        result = value if not self.rescale else 0.0
        for coefficient in self.rescale:
            result = result * value + coefficient
        return result


@dataclass(frozen=True, slots=True)
class Action:
    """What is done about one sample at one evaluation.

    compute: the model runs; else its data prediction is forecast from those that were computed, by
    a polynomial of `order` in the place on the path: 0 holds the last one.
    calibrated: by the weights that the model's calibration gives to the last `order` + 1 instead.
    borrow: where the model runs, it runs on the conditional branch alone; the difference to the
    unconditional one is forecast in the same way. coarse: the unconditional branch runs on a grid
    halved once, which only evaluation 0 may do, where the latent is noise alone.
    gate: decides whether the model runs in full. held: it runs in part, and of the segments that
    this names, "rest" or "all" as in `GATES`, the residual of the last full run is added instead;
    where that is gone, it runs in full. A journal has `held` or neither: what the gate decided.
    tiles: where the model runs, which tiles of the sample it computes, in row-major order; the data
    prediction of the others is forecast, as it would have been if nothing were computed. Where what
    others attend to is gone, all are computed. None: all, and a journal has that for all too.
    patches: parts into which the tokens that are computed are cut. Each attends to its own features
    and to what the other parts wrote when they were computed last, as if these were absent. 1 is
    exact; a journal has that too where it could not be otherwise.
    alone: of several ranks that share samples, one computes this one by itself, as a worker of one
    rank would. It differs from sharing by rounding.
    """

    compute: bool = True
    order: int = 1
    borrow: bool = False
    coarse: bool = False
    calibrated: bool = False
    gate: Gate | None = None
    held: str | None = None
    tiles: tuple[bool, ...] | None = None
    patches: int = 1
    alone: bool = False

    @property
    def full(self) -> bool:
        """Whether all segments of the model run, on all tiles, unless a gate decides against it."""
        return self.compute and self.held is None and self.tiles is None


COMPUTE = Action()


@dataclass(frozen=True, slots=True)
class DenoiseItem:
    """Advance one sample by the evaluations of `actions`, of which at most the last computes, with
    all branches in the same pack.

    evaluation: that of the first action. size: of the picture in pixels. prompts: one per branch,
    the conditional one first. fresh: the sample has no latent yet; it starts from the noise of
    `seed`. preview: the outcome shows what the solver takes the picture for after the last action.
    probes: names of what is measured at an evaluation that computes. keep: how many data
    predictions are kept to forecast from. tile: (height, width) in tokens of the tiles that actions
    choose among; None where they never do, and nothing is kept for it then. level: of the sample,
    that chose the actions. frames: of the clip; 1 is a picture. branches: those that are computed
    here, by their places among the prompts; None for all. tenant: whose it is, which only names
    what is kept of it. patches: the most that its actions cut it into; above 1 what absent rows are
    needed for is kept.
    """

    sample: str
    evaluation: int
    actions: tuple[Action, ...]
    path: Path
    seed: int
    size: tuple[int, int]
    prompts: tuple[Prompt, ...]
    guidance: float
    fresh: bool
    preview: bool = False
    probes: tuple[str, ...] = ()
    keep: int = 0
    tile: tuple[int, int] | None = None
    level: int = 0
    frames: int = 1
    branches: tuple[int, ...] | None = None
    tenant: str = "default"
    patches: int = 1

    @property
    def computes(self) -> bool:
        return self.actions[-1].compute

    @property
    def computed(self) -> tuple[int, ...]:
        """The branches that the model runs on, here."""
        if not self.computes:
            return ()
        every = range(1 if self.actions[-1].borrow else len(self.prompts))
        return tuple(b for b in every if self.branches is None or b in self.branches)

    @property
    def computed_prompts(self) -> tuple[Prompt, ...]:
        """Theirs."""
        return tuple(self.prompts[branch] for branch in self.computed)

    def coarse(self, branch: int) -> bool:
        """Whether a branch runs on a grid halved once."""
        return branch > 0 and self.actions[-1].coarse

    @property
    def last(self) -> int:
        """The evaluation of the last action."""
        return self.evaluation + len(self.actions) - 1


@dataclass(frozen=True, slots=True)
class DecodeItem:
    """Turn the latent of a sample into its picture; the sample's slots are free afterwards. Where
    that takes too long for one step, only the parts from `first` to before `last`; None: to the
    end. frames: of the clip; 1 is a picture.
    """

    sample: str
    first: int = 0
    last: int | None = None
    frames: int = 1


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: items of one kind that run together, after the slots in `release` are freed.

    release: samples that ended early (cancelled, failed); drop_texts: prompts no one needs any
    more.
    """

    number: int
    kind: Kind
    items: tuple[EncodeItem, ...] | tuple[DenoiseItem, ...] | tuple[DecodeItem, ...]
    release: tuple[str, ...] = ()
    drop_texts: tuple[Prompt, ...] = ()


# One for each tile, in row-major order.
TileValues: TypeAlias = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. error: why it failed, or None; the others of the plan are not
    affected. picture: [H, W, 3] uint8 numpy array, of a decode item that goes to the end, and of a
    denoise item that asked for a preview. measured: by name of the probe, those that could be
    measured; of a probe of tiles, a number for each, or None where a tile was not computed. action:
    the item's last one as it was done, where the executor had to decide; None: as planned. Of a
    clip that is decoded, the picture is [F, H, W, 3]. found: what the model says was not computed,
    since it had been before.
    """

    error: Exception | None = None
    picture: object | None = None
    measured: Mapping[str, float | TileValues] = field(default_factory=dict)
    action: Action | None = None
    found: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """outcomes: one per item of the plan, in order. rows: that went through all segments of the
    forward, padding included; 0 where every gate held. strayed: more or less was computed than the
    plan says, since something was found, or had been found before and was needed after all.
    """

    number: int
    outcomes: tuple[Outcome, ...]
    seconds: float
    rows: int = 0
    strayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a picture fared. promised: the quality that it keeps at least. used: the lowest quality
    of its levels. seconds: from its arrival. encode, denoise, decode: of the steps in which it took
    part; all else it waited. deadline_met: None without one. reused: evaluations of the model that
    had been computed before, here or elsewhere, and were not again.
    """

    promised: int
    used: int
    seconds: float
    encode: float
    denoise: float
    decode: float
    deadline_met: bool | None
    reused: int = 0

    @property
    def waited(self) -> float:
        return max(self.seconds - self.encode - self.denoise - self.decode, 0.0)


@dataclass(frozen=True, slots=True)
class Event:
    """News of a request: "admitted", "progress" (of picture `index`), "preview", "picture", and at
    the end "done" or "failed".

    evaluation: evaluations done of num_evaluations; of them the model computed `computed` in full,
    and `cost` is how many full ones all that it computed is worth: of an evaluation, the share of
    tokens that went through all of the model, over all branches of guidance. picture: [H, W, 3]
    uint8 numpy array, of a preview too. warning: what was asked for and had no effect, of a
    picture. actions: what was done at each evaluation, of a picture; of progress and a preview, at
    those since the last progress. tiles: (rows, columns) of them, where the policy has tiles, and
    then of a picture tile_counts: evaluations that computed each tile, row-major. quality: of the
    level of the last evaluation. report: of a picture. finish: of what is admitted, seconds until
    its pictures should be there. Of a clip that is done, the picture is [F, H, W, 3].
    """

    request: str
    kind: str
    index: int = 0
    evaluation: int = 0
    num_evaluations: int = 0
    picture: object | None = None
    error: Exception | None = None
    computed: int = 0
    cost: float = 0.0
    warning: str | None = None
    actions: tuple[Action, ...] = ()
    tiles: tuple[int, int] | None = None
    tile_counts: tuple[int, ...] = ()
    quality: int = 100
    report: Report | None = None
    finish: float = 0.0
