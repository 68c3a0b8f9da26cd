"""What a model was trained on: which noise, and what its denoiser predicts.

A sample at any time is `x = alpha * x0 + sigma * eps`, with `eps` unit Gaussian noise. Two kinds of
path exist:

- flow matching: `alpha = 1 - s`, `sigma = s` for s in [0, 1] (Lipman et al. 2022, arXiv 2210.02747;
  Liu et al. 2022, arXiv 2209.03003);
- variance preserving: `alpha**2 + sigma**2 = 1`, given at the integer training timesteps by a table
  of betas (Ho et al. 2020, arXiv 2006.11239).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from musiva.samplers.scheduler_config import SchedulerConfig

__all__ = ["DynamicShift", "NoiseModel", "Prediction"]

Prediction: TypeAlias = Literal["flow", "epsilon", "v_prediction"]
BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
TimestepSpacing: TypeAlias = Literal["linspace", "leading", "trailing", "even"]
FinalSigma: TypeAlias = Literal["zero", "sigma_min"]
SigmaSpacing: TypeAlias = Literal["karras", "exponential"]

# Start, end and kind of betas that a configuration leaves open; those of CogVideoX are the second.
_BETAS: tuple[tuple[float, float, BetaSchedule], ...] = (
    (0.0001, 0.02, "linear"),
    (0.00085, 0.012, "scaled_linear"),
)
_SAMPLER_OF_SCHEDULER: Mapping[str, str] = {
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpm++2m",
    "DDIMScheduler": "ddim",
    "UniPCMultistepScheduler": "unipc",
    "CogVideoXDDIMScheduler": "ddim",
}


@dataclass(frozen=True, slots=True)
class DynamicShift:
    """A timestep shift that grows with the picture: its logarithm is linear in the number of
    tokens, through these two points (FLUX).
    """

    few: tuple[int, float] = (256, 0.5)
    many: tuple[int, float] = (4096, 1.15)

    def of(self, num_tokens: int) -> float:
        (low, first), (high, last) = self.few, self.many
        return math.exp(first + (num_tokens - low) * (last - first) / (high - low))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseModel:
    """The noise a model was trained on, and the sampling defaults that were published with it.

    prediction           "flow" is eps - x0; "epsilon" is eps; "v_prediction" is alpha * eps - sigma
                         * x0 (Salimans & Ho 2022, arXiv 2202.00512)
    shift                flow: timestep shift `s -> shift * s / (1 + (shift - 1) * s)` (Esser et al.
                         2024, arXiv 2403.03206); dynamic_shift instead, where it depends on size
    shift_terminal       flow: the last sigma before 0, to which the path is stretched; 0: as it is
    beta_*               variance preserving: the table of betas; flow models do not use them
    rescale_betas_zero_snr   the last training step is pure noise (Lin et al. 2023, arXiv
                             2305.08891)
    snr_shift            (alpha / sigma)**2 is divided by it, and the table worked out in fp64, as
                         CogVideoX was trained; None: neither
    timestep_spacing     which integer timesteps to visit (same paper, table 2); None: as the
                         sampler's scheduler does
    sigma_spacing        spacing in sigma that replaces `timestep_spacing` in samplers that offer it
    clip                 bound of the estimated clean sample, None for latent models
    lambda_min_clipped   dpm++2m leaves out training steps with log(alpha / sigma) below it
    """

    prediction: Prediction
    num_train_timesteps: int = 1000
    scheduler: str | None = None
    shift: float = 1.0
    dynamic_shift: DynamicShift | None = None
    shift_terminal: float = 0.0
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    rescale_betas_zero_snr: bool = False
    snr_shift: float | None = None
    timestep_spacing: TimestepSpacing | None = None
    steps_offset: int = 0
    sigma_spacing: SigmaSpacing | None = None
    set_alpha_to_one: bool = True
    final_sigmas_type: FinalSigma = "zero"
    lower_order_final: bool = True
    euler_at_final: bool = False
    clip: float | None = None
    lambda_min_clipped: float = -math.inf

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> NoiseModel:
        """Read the content of a diffusers `scheduler_config.json`, `_class_name` included.

        A key that the named scheduler does not have is warned about, as diffusers itself does. A
        value that would change the picture in a way that is not supported raises `BadCheckpoint`
        with the key, the value and what is supported.
        """
        read = SchedulerConfig(config)
        name = read.scheduler
        num_train_timesteps = read.integer("num_train_timesteps", 1000, 2, 1_000_000)
        if name.startswith("FlowMatch"):
            return cls(
                prediction="flow",
                num_train_timesteps=num_train_timesteps,
                scheduler=name,
                shift=read.number("shift", 1.0, 0.01, 100.0),
                dynamic_shift=cls._dynamic_shift(read),
                shift_terminal=read.number("shift_terminal", 0.0, 0.0, 0.99),
                sigma_spacing=read.sigma_spacing(),
            )
        if name == "DPMSolverMultistepScheduler":
            predictions = ("epsilon", "v_prediction", "flow_prediction")
            if read.choice("prediction_type", "epsilon", predictions) == "flow_prediction":
                read.require(
                    "use_flow_sigmas", False, True, 'with prediction_type "flow_prediction"'
                )
                for key in ("use_karras_sigmas", "use_exponential_sigmas"):
                    read.require(key, False, False, "with use_flow_sigmas")
                read.require("final_sigmas_type", "zero", "zero", "with use_flow_sigmas")
                return cls(
                    prediction="flow",
                    num_train_timesteps=num_train_timesteps,
                    scheduler=name,
                    shift=read.number("flow_shift", 1.0, 0.01, 100.0),
                    lower_order_final=read.flag("lower_order_final", True),
                    euler_at_final=read.flag("euler_at_final", False),
                )
            read.require(
                "use_flow_sigmas", False, False, 'without prediction_type "flow_prediction"'
            )
        if name == "UniPCMultistepScheduler":
            read.require("prediction_type", "epsilon", "flow_prediction", f"in {name}")
            read.require("use_flow_sigmas", False, True, f"in {name}")
            return cls(
                prediction="flow",
                num_train_timesteps=num_train_timesteps,
                scheduler=name,
                shift=read.number("flow_shift", 1.0, 0.01, 100.0),
            )
        return cls._from_beta_config(name, num_train_timesteps, read)

    @classmethod
    def _from_beta_config(
        cls, name: str, num_train_timesteps: int, read: SchedulerConfig
    ) -> NoiseModel:
        predictions: tuple[Prediction, ...] = ("epsilon", "v_prediction")
        prediction: Prediction = read.choice("prediction_type", "epsilon", predictions)
        if prediction == "epsilon":
            # The clean sample cannot be told from the noise when nothing of it is left.
            read.require("rescale_betas_zero_snr", False, False, 'with prediction_type "epsilon"')
        spacings: tuple[TimestepSpacing, ...] = ("linspace", "leading", "trailing")
        finals: tuple[FinalSigma, ...] = ("zero", "sigma_min")
        clips = name == "DDIMScheduler" and read.flag("clip_sample", True)
        shifted = name == "CogVideoXDDIMScheduler"
        beta_start, beta_end, schedule = _BETAS[shifted]
        beta_start = read.number("beta_start", beta_start, 1e-9, 0.999)
        return cls(
            prediction=prediction,
            num_train_timesteps=num_train_timesteps,
            scheduler=name,
            beta_start=beta_start,
            beta_end=read.number("beta_end", beta_end, beta_start, 0.999),
            beta_schedule=read.choice(
                "beta_schedule", schedule, ("linear", "scaled_linear", "squaredcos_cap_v2")
            ),
            rescale_betas_zero_snr=read.flag("rescale_betas_zero_snr", False),
            snr_shift=read.number("snr_shift_scale", 3.0, 1e-3, 1e3) if shifted else None,
            timestep_spacing=read.given("timestep_spacing", spacings),
            steps_offset=read.integer("steps_offset", 0, 0, num_train_timesteps - 1),
            sigma_spacing=read.sigma_spacing(),
            set_alpha_to_one=read.flag("set_alpha_to_one", True),
            final_sigmas_type=read.choice("final_sigmas_type", "zero", finals),
            lower_order_final=read.flag("lower_order_final", True),
            euler_at_final=read.flag("euler_at_final", False),
            clip=read.number("clip_sample_range", 1.0, 1e-3, 1e6) if clips else None,
            lambda_min_clipped=read.number("lambda_min_clipped", -math.inf, -math.inf, 0.0),
        )

    @staticmethod
    def _dynamic_shift(read: SchedulerConfig) -> DynamicShift | None:
        if not read.flag("use_dynamic_shifting", False):
            return None
        read.require("time_shift_type", "exponential", "exponential", "with use_dynamic_shifting")
        few = read.integer("base_image_seq_len", 256, 1, 1 << 24)
        return DynamicShift(
            (few, read.number("base_shift", 0.5, -10.0, 10.0)),
            (
                read.integer("max_image_seq_len", 4096, few + 1, 1 << 24),
                read.number("max_shift", 1.15, -10.0, 10.0),
            ),
        )

    def shift_of(self, num_tokens: int) -> float | None:
        """Of a picture of so many tokens; None where one shift is for all."""
        return None if self.dynamic_shift is None else self.dynamic_shift.of(num_tokens)

    def default_sampler(self) -> str:
        """The sampler published with the model, else the plainest one for what it predicts."""
        if self.scheduler is not None:
            return _SAMPLER_OF_SCHEDULER[self.scheduler]
        return "euler" if self.prediction == "flow" else "ddim"

    def alphas_cumprod(self) -> npt.NDArray[np.floating]:
        """alpha**2 at every training timestep, `[num_train_timesteps]`; not for flow models.

        Models were trained on this table as torch makes it in fp32, and 1 - alpha**2 at the first
        timesteps has few correct digits there, so the same arithmetic is used here: a table in fp64
        would be another noise.
        """
        if self.snr_shift is not None:
            table = torch.cumprod(1.0 - self._betas(torch.float64), dim=0)
            table = table / (self.snr_shift + (1 - self.snr_shift) * table)
            return (_to_zero_snr(table) if self.rescale_betas_zero_snr else table).numpy()
        betas = self._betas()
        if self.rescale_betas_zero_snr:
            betas = _rescale_zero_terminal_snr(betas)
        return torch.cumprod(1.0 - betas, dim=0).numpy()

    def _betas(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """dtype: of those whose roots are even, which alone were ever trained in another one."""
        count, start, end = self.num_train_timesteps, self.beta_start, self.beta_end
        cpu = torch.device("cpu")
        if self.beta_schedule == "linear":
            return torch.linspace(start, end, count, dtype=torch.float32, device=cpu)
        if self.beta_schedule == "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, count, dtype=dtype, device=cpu) ** 2
        # The cosine schedule of Nichol & Dhariwal 2021, arXiv 2102.09672.
        bars = [
            math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)
        ]
        betas = [min(1 - bars[step + 1] / bars[step], 0.999) for step in range(count)]
        return torch.tensor(betas, dtype=torch.float32, device=cpu)


def _rescale_zero_terminal_snr(betas: torch.Tensor) -> torch.Tensor:
    bars = _to_zero_snr(torch.cumprod(1.0 - betas, dim=0))
    return 1.0 - torch.cat([bars[:1], bars[1:] / bars[:-1]])


def _to_zero_snr(table: torch.Tensor) -> torch.Tensor:
    """Move alpha so that the last is zero (Lin et al. 2023, arXiv 2305.08891, algorithm 1); both
    squared.
    """
    alphas = table.sqrt()
    first, last = alphas[0], alphas[-1]
    return ((alphas - last) * (first / (first - last))) ** 2
