"""Reading one diffusers `scheduler_config.json`: typed values, and an error for everything not
supported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Literal, NoReturn, TypeVar

from musiva.core.errors import BadCheckpoint

__all__ = ["SchedulerConfig"]

Name = TypeVar("Name", bound=str)

# For each scheduler its parameters: those `NoiseModel` reads (None), and those that must have one
# value because another would change the picture. Parameters that only matter beside such another
# value are in _INERT.
_BETA_TABLE: Mapping[str, tuple[object, ...] | None] = {
    "num_train_timesteps": None,
    "beta_start": None,
    "beta_end": None,
    "beta_schedule": None,
    "trained_betas": (None,),
    "prediction_type": None,
    "thresholding": (False,),
    "timestep_spacing": None,
    "steps_offset": None,
    "rescale_betas_zero_snr": None,
}
_PARAMETERS: Mapping[str, Mapping[str, tuple[object, ...] | None]] = {
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": None,
        "shift": None,
        "use_dynamic_shifting": None,
        "base_shift": None,
        "max_shift": None,
        "base_image_seq_len": None,
        "max_image_seq_len": None,
        "time_shift_type": None,
        "invert_sigmas": (False,),
        "shift_terminal": None,
        "use_karras_sigmas": None,
        "use_exponential_sigmas": None,
        "use_beta_sigmas": (False,),
        "stochastic_sampling": (False,),
    },
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": None, "shift": None},
    "DPMSolverMultistepScheduler": {
        **_BETA_TABLE,
        "solver_order": (2,),
        "algorithm_type": ("dpmsolver++",),
        "solver_type": ("midpoint",),
        "lower_order_final": None,
        "euler_at_final": None,
        "use_karras_sigmas": None,
        "use_exponential_sigmas": None,
        "use_beta_sigmas": (False,),
        "use_lu_lambdas": (False,),
        "use_flow_sigmas": None,
        "flow_shift": None,
        "final_sigmas_type": None,
        "lambda_min_clipped": None,
        "variance_type": (None,),
        "use_dynamic_shifting": (False,),
    },
    "DDIMScheduler": {
        **_BETA_TABLE,
        "clip_sample": None,
        "clip_sample_range": None,
        "set_alpha_to_one": None,
    },
    # Of flow models alone, to which betas mean nothing.
    "UniPCMultistepScheduler": {
        **_BETA_TABLE,
        "predict_x0": (True,),
        "solver_order": (2,),
        "solver_type": ("bh2",),
        "solver_p": (None,),
        "lower_order_final": (True,),
        "disable_corrector": ([],),
        "use_karras_sigmas": (False,),
        "use_exponential_sigmas": (False,),
        "use_beta_sigmas": (False,),
        "use_flow_sigmas": (True,),
        "flow_shift": None,
        "final_sigmas_type": ("zero",),
        "use_dynamic_shifting": (False,),
        "sigma_min": (None,),
        "sigma_max": (None,),
        "shift_terminal": (None,),
    },
    # It does not clip, whatever it is told.
    "CogVideoXDDIMScheduler": {
        **_BETA_TABLE,
        "clip_sample": None,
        "clip_sample_range": None,
        "set_alpha_to_one": None,
        "snr_shift_scale": None,
    },
}
_INERT = frozenset(
    (
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "time_shift_type",
        "dynamic_thresholding_ratio",
        "sample_max_value",
    )
)


class SchedulerConfig:
    """Typed reads; each raises `BadCheckpoint` with key, value and what is supported.

    As in diffusers, a parameter that is absent or null has its default, and a key that the
    scheduler named by `_class_name` does not have is warned about and has no effect.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self.scheduler = self.choice("_class_name", None, tuple(_PARAMETERS))
        parameters = _PARAMETERS[self.scheduler]
        unknown = [key for key in values if key not in parameters and key not in _INERT]
        unknown = sorted(key for key in unknown if not key.startswith("_"))
        if unknown:
            warnings.warn(
                f"scheduler_config.json: {', '.join(unknown)}: no effect in {self.scheduler}",
                stacklevel=3,
            )
        self._values = {key: values[key] for key in parameters if values.get(key) is not None}
        for key, value in self._values.items():
            supported = parameters[key]
            if supported is not None and value not in supported:
                shown = " or ".join("null" if one is None else repr(one) for one in supported)
                self._refuse(key, f"{shown} in {self.scheduler}")

    def choice(self, key: str, default: Name | None, allowed: tuple[Name, ...]) -> Name:
        """One of `allowed`; a `default` of None makes the key required."""
        found = self.given(key, allowed)
        if found is not None:
            return found
        return default if default is not None else self._refuse(key, _listed(allowed))

    def given(self, key: str, allowed: tuple[Name, ...]) -> Name | None:
        """One of `allowed`, or None where the configuration leaves it open."""
        value = self._values.get(key)
        if value is None:
            return None
        for name in allowed:
            if value == name:
                return name
        self._refuse(key, _listed(allowed))

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._refuse(key, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(key, f"a number from {low:g} to {high:g}")
        if math.isnan(value) or not low <= value <= high:
            self._refuse(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def require(self, key: str, default: object, only: object, where: str) -> None:
        """The key must have the value `only`; `where` says beside which other value."""
        if self._values.get(key, default) != only:
            self._refuse(key, f"{only!r} {where}")

    def sigma_spacing(self) -> Literal["karras", "exponential"] | None:
        karras = self.flag("use_karras_sigmas", False)
        exponential = self.flag("use_exponential_sigmas", False)
        if karras and exponential:
            self._refuse("use_exponential_sigmas", "false with use_karras_sigmas")
        return "karras" if karras else "exponential" if exponential else None

    def _refuse(self, key: str, supported: str) -> NoReturn:
        value = self._values.get(key)
        raise BadCheckpoint(f"scheduler_config.json: {key}: got {value!r}; supported: {supported}")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))
