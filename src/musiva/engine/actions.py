"""What a policy may want done: anybody's code says it, and a whole pack would fail of what no
executor can do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from musiva.core.errors import InvalidInput
from musiva.core.types import GATES, Action, Gate
from musiva.policy import Asks, Trip

__all__ = ["checked", "cut"]

# Evaluations at the beginning of a sample that compute its tokens together: what parts see of each
# other changes most then.
TOGETHER = 4
# The highest quality that parts keep too, by measure (bench `parallel`).
MOST_CUT = 60


def checked(action: object, evaluation: int, asks: Asks, trip: Trip) -> Action:
    """The action, as a journal has it. Raises InvalidInput for what no executor could do."""
    if not isinstance(action, Action):
        raise InvalidInput("action", action, "an Action")
    _check_kinds(action)
    if action.patches != 1:
        raise InvalidInput("patches", action.patches, "1: it is not for policies to say")
    if action.alone is not False:
        raise InvalidInput("alone", action.alone, "False: it is not for policies to say")
    if action.borrow and not (action.compute and trip.guided):
        raise InvalidInput("borrow", True, "False where nothing is computed, or without guidance")
    _check_coarse(action, evaluation, asks, trip)
    if action.tiles is not None:
        _check_tiles(action, trip)
        if all(action.tiles):
            action = replace(action, tiles=None)
    _check_gate(action, asks)
    # Where all is computed this says which forecast a probe compares it with.
    if action.calibrated and not trip.calibrated:
        raise InvalidInput("calibrated", True, "False: the model has no calibration")
    if action.full and not action.borrow:
        return action
    if evaluation == 0:
        allowed = "to compute all at evaluation 0: nothing is known before it"
        raise InvalidInput("action", action, allowed)
    if action.compute and not action.borrow and action.tiles is None:
        return action
    if action.order >= asks.keep:
        allowed = f"below {asks.keep}, the number of values it keeps"
        raise InvalidInput("order", action.order, allowed)
    if action.calibrated and action.order > 1:
        raise InvalidInput("order", action.order, "0 or 1 where it is calibrated")
    if action.tiles is not None and asks.gates:
        # A gate compares all tokens of a sample with all that it had.
        allowed = f"None where the probes of a policy are those of gates: {', '.join(asks.gates)}"
        raise InvalidInput("tiles", action.tiles, allowed)
    return action


def cut(action: Action, before: Sequence[Action], asks: Asks, trip: Trip, quality: int) -> Action:
    """A checked action of a sample, in parts where it may be: directly behind an evaluation that
    was computed, since what parts see of each other is the older, the more are skipped. before: of
    the evaluations before it. quality: of its level.
    """
    if len(before) < TOGETHER or asks.gates or quality > MOST_CUT:
        return action
    if not (action.compute and before[-1].compute):
        return action
    return replace(action, patches=trip.patches)


def _check_kinds(action: Action) -> None:
    """Raises InvalidInput for a field that holds something else than it is for."""
    for name in ("compute", "borrow", "coarse", "calibrated"):
        if not isinstance(getattr(action, name), bool):
            raise InvalidInput(name, getattr(action, name), "True or False")
    if type(action.order) is not int or action.order < 0:
        raise InvalidInput("order", action.order, "a whole number from 0")
    if action.gate is not None and not isinstance(action.gate, Gate):
        raise InvalidInput("gate", action.gate, "a Gate, or None")


def _check_coarse(action: Action, evaluation: int, asks: Asks, trip: Trip) -> None:
    """Raises InvalidInput. What a gate keeps of a coarser grid fits no later evaluation."""
    if not action.coarse:
        return
    whole = action.full and action.gate is None and not action.borrow
    if evaluation or not whole or not trip.guided or asks.gates:
        allowed = "False except at evaluation 0, computed in full, with guidance, without gates"
        raise InvalidInput("coarse", True, allowed)


def _check_tiles(action: Action, trip: Trip) -> None:
    """Raises InvalidInput for tiles that cannot be computed."""
    tiles: object = action.tiles
    if not action.compute or action.gate is not None or action.held is not None:
        allowed = "None where the model does not run, or where a gate decides or something is held"
        raise InvalidInput("tiles", tiles, allowed)
    if not isinstance(tiles, tuple) or not all(isinstance(chosen, bool) for chosen in tiles):
        raise InvalidInput("tiles", tiles, "a tuple of bools")
    if trip.tiles is None:
        raise InvalidInput("tiles", tiles, "None: the policy has no `tile`")
    if len(tiles) != len(trip.tile_tokens) or not any(tiles):
        rows, columns = trip.tiles
        allowed = f"one for each of {rows} x {columns} tiles, of which at least one is computed"
        raise InvalidInput("tiles", tiles, allowed)


def _check_gate(action: Action, asks: Asks) -> None:
    """Raises InvalidInput for a gate that cannot decide, and for what is not kept."""
    gate, held = action.gate, action.held
    if gate is None and held is None:
        return
    if not action.compute or (gate is not None and held is not None):
        allowed = "a gate or something held, not both, where the model runs"
        raise InvalidInput("action", action, allowed)
    if gate is not None and gate.probe not in asks.gates:
        allowed = f"one of the policy's probes that is out of {', '.join(GATES)}"
        raise InvalidInput("gate", gate.probe, allowed)
    if gate is not None:
        _check_numbers(gate)
    if held is not None and held not in [GATES[probe] for probe in asks.gates]:
        kept = ", ".join(GATES[probe] for probe in asks.gates)
        raise InvalidInput("held", held, f"what the policy's probes keep: {kept or 'none'}")


def _check_numbers(gate: Gate) -> None:
    """Raises InvalidInput for what a probe cannot be multiplied or compared with."""

    def within(value: object, most: float) -> bool:
        # No NaN is, and whole numbers may be beyond all floats.
        return isinstance(value, float | int) and abs(value) <= most

    if not within(gate.threshold, math.inf):
        raise InvalidInput("threshold", gate.threshold, "a number")
    rescale: object = gate.rescale
    if not isinstance(rescale, tuple) or not all(within(x, sys.float_info.max) for x in rescale):
        raise InvalidInput("rescale", rescale, "a tuple of finite numbers")
