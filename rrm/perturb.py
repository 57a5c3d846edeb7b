"""Trajectory augmentation: the recurrent latent starts at z0 + sigma * xi instead of z0; puzzle and answer stay.

Noise that comes again later on is in rrm/noise.py.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, field_validator, model_validator
from torch import Tensor

from rrm.models.act import Latents, sent
from rrm.settings import Settings
from rrm.streams import normals, uniforms

Location = Literal["z_H", "z_L"]
Objective = Literal["clean", "single_perturbed_ce", "multi_perturbed_ce", "winner_perturbed_ce"]
Scale = Literal["abs", "rms"]
WinnerCarry = Literal["own", "share_z_H"]
When = Literal["start", "act_step", "update"]

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_NUMBER = TypeAdapter(Annotated[float, Field(ge=0)], config=_STRICT)
_INTERVAL = TypeAdapter(Annotated[tuple[float, ...], Field(strict=False)], config=_STRICT)


def distinct_locations(where: tuple[Location, ...]) -> tuple[Location, ...]:
    """`where` in the order z_H, z_L; raises ValueError if it is empty or names a location twice."""
    if len(set(where)) != len(where) or not where:
        raise ValueError(f"{list(where)} must name z_H, z_L or both, each once")
    return tuple(sorted(where))


def _number_or_interval(value: Any) -> float | tuple[float, ...]:
    # A plain union would answer one wrong value with an error for each of its members.
    if not isinstance(value, list | tuple):
        return _NUMBER.validate_python(value)
    interval = _INTERVAL.validate_python(value)
    if len(interval) != 2 or not 0 < interval[0] < interval[1]:
        raise ValueError(f"{list(interval)} is no interval; give [low, high] with 0 < low < high")
    return interval


class PerturbConfig(Settings):
    """Noise of standard deviation sigma on the locations `where`, in `rollouts` trajectories a puzzle.

    With the objectives multi_perturbed_ce and winner_perturbed_ce, rollout 0 is exactly clean and the others are
    perturbed. `winner_carry` is the latter's: each trajectory goes on with its own latents, or all with the z_H of the
    one that won the ACT step.

    `sampling` says what `sigma` means: fixed, the number itself; loguniform, log-uniform in the interval
    [low, high]; band, the number times band^(2u - 1) with u uniform. A sigma is drawn for each trajectory or, with
    `sigma_per: example`, for all perturbed trajectories of a puzzle together, and is 0 with probability `p_clean`. It
    is 0 for the first `warmup_steps` batches and grows to its full size over the next `ramp_steps`. `scale: rms`
    multiplies it by the RMS of the latent. `antithetic` gives the perturbed trajectories opposite noise in pairs.

    A batch that nothing perturbs, of sigma 0 or of a warm-up, trains one trajectory a puzzle: K would be copies. It has
    the clean run's bits, and a K-th of the cost. With serial_act the others then begin where the warm-up ends.

    `when`: start, once, on z0; act_step, as every ACT step begins; update, on each new value of a latent.
    The trajectory keeps its sigma, and xi is drawn afresh.
    """

    sigma: Annotated[float | tuple[float, float], BeforeValidator(_number_or_interval)]
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)
    when: When = "start"
    rollouts: int = Field(default=1, ge=1)
    sampling: Literal["fixed", "loguniform", "band"] = "fixed"
    band: float = Field(default=2.0, gt=1)
    sigma_per: Literal["trajectory", "example"] = "trajectory"
    p_clean: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    ramp_steps: int = Field(default=0, ge=0)
    scale: Scale = "abs"
    antithetic: bool = False
    winner_carry: WinnerCarry = "own"

    _where = field_validator("where")(distinct_locations)

    @model_validator(mode="after")
    def _fields_fit(self) -> "PerturbConfig":
        problems = "\n".join(self._misfits())
        if problems:
            raise ValueError(problems)
        return self

    def _misfits(self) -> Iterator[str]:
        """What does not fit together, a line each, which starts with the field's name."""
        if self.sampling == "loguniform" and not isinstance(self.sigma, tuple):
            yield f"sigma: {self.sigma:g} with sampling loguniform, which takes an interval; give [low, high]"
        if self.sampling != "loguniform" and isinstance(self.sigma, tuple):
            yield (
                f"sigma: {list(self.sigma)} with sampling {self.sampling}, which takes one number; give one, or choose "
                "sampling: loguniform"
            )
        if self.sampling != "band" and self.band != type(self).model_fields["band"].default:
            yield f"band: {self.band:g} with sampling {self.sampling}; remove it or choose sampling: band"

    @property
    def trained_sigmas(self) -> tuple[float, ...]:
        """What is drawn after the ramp: the one sigma above 0, or the least and the largest."""
        if isinstance(self.sigma, tuple):
            return self.sigma
        if self.sampling == "band" and self.sigma:
            return self.sigma / self.band, self.sigma * self.band
        return (self.sigma,) if self.sigma else ()

    def ramp(self, step: int) -> float:
        """The share of its full size that sigma has at a step (0-based)."""
        if step < self.warmup_steps:
            return 0.0
        return min(1.0, (step - self.warmup_steps + 1) / self.ramp_steps) if self.ramp_steps else 1.0


def draw_sigmas(config: PerturbConfig, *, clean_first: bool, seed: int, step: int, rows: range) -> np.ndarray:
    """The sigma of every row and rollout, float64 [len(rows), rollouts]; 0 is clean, as rollout 0 is if `clean_first`.

    A function of (seed, step, row, k) alone: fewer rollouts have the first ones' sigmas, a shard has its rows'. Both of
    an antithetic pair have the sigma of the first.
    """
    sigma_BK = np.zeros((len(rows), config.rollouts))
    ramp = config.ramp(step)
    for k in range(int(clean_first), config.rollouts if ramp else 0):
        source = 0 if config.sigma_per == "example" else first_of_pair(k, clean_first) if config.antithetic else k
        u = uniforms(seed, f"perturb.sigma.{source}", step, rows, 4)
        if isinstance(config.sigma, tuple):
            low, high = config.sigma
            sigma = low * (high / low) ** u[:, 0]
        else:
            sigma = config.sigma * (config.band ** (2 * u[:, 0] - 1) if config.sampling == "band" else 1.0)
        sigma_BK[:, k] = ramp * sigma * (u[:, 1] >= config.p_clean)
    return sigma_BK


def first_of_pair(k: int, clean_first: bool) -> int:
    """The antithetic partner of rollout k whose noise both have: itself, if it is the first."""
    return k - (k - int(clean_first)) % 2


def perturb_latents(
    z0: Latents,
    *,
    sigma: float | np.ndarray,
    where: tuple[Location, ...],
    rollouts: int,
    clean_first: bool,
    seed: int,
    stream: str,
    step: int,
    rows: range,
    scale: Scale = "abs",
    antithetic: bool = False,
) -> Latents:
    """z0 + sigma * xi for every row and rollout, drawn and added in float32.

    z0 holds [B, N, D] with B = len(rows); sigma is one for all or [B, rollouts]; returns [B * rollouts, N, D],
    trajectory fastest. xi is a function of (seed, stream, location, step, row, k) alone. With `clean_first`, rollout 0
    is bitwise z0; where sigma is 0 so is every one, and a rollout whose sigmas are all 0 draws nothing. `scale: rms`
    multiplies sigma by the RMS of each row of z0. `antithetic` gives the second of each pair the first's -xi.
    """
    sigma_BK = np.array(np.broadcast_to(sigma, (len(rows), rollouts)))
    if clean_first:
        sigma_BK[:, 0] = 0.0
    drawn = sigma_BK.any(axis=0)
    device = next(iter(z0.values())).device
    sigmas = sent(torch.from_numpy(sigma_BK).float(), device)[..., None, None]
    perturbed: Latents = {}
    for name, z_BND in z0.items():
        trajectories = [z_BND] * rollouts
        unit = row_rms(z_BND)[:, None, None] if scale == "rms" else 1.0
        for k in np.flatnonzero(drawn).tolist() if name in where else ():
            source = first_of_pair(k, clean_first) if antithetic else k
            xi = normals(seed, f"{stream}.{name}", step, rows, source, tuple(z_BND.shape[1:]), device)
            size = sigmas[:, k] * unit
            noisy = (z_BND.float() + (size if source == k else -size) * xi).to(z_BND.dtype)
            trajectories[k] = torch.where(size > 0, noisy, z_BND)
        perturbed[name] = torch.stack(trajectories, dim=1).flatten(0, 1)
    return perturbed


def noise_rms(z0: Latents, perturbed: Latents, clean_first: bool) -> dict[str, Tensor]:
    """The noise that is really there: at each location the mean over perturbed trajectories of its RMS, float64 [].

    z0 holds [B, N, D], perturbed [B * K, N, D]; a rollout 0 that is clean by design does not count.
    """
    realised = {}
    for name, z_BND in z0.items():
        z_BKND = perturbed[name].unflatten(0, (len(z_BND), -1))[:, int(clean_first) :]
        realised[name] = row_rms((z_BKND.float() - z_BND.float().unsqueeze(1)).flatten(0, 1)).double().mean()
    return realised


def row_rms(z_BND: Tensor) -> Tensor:
    """The root mean square of each row [B], a constant to the gradient."""
    return z_BND.detach().float().square().mean(dim=(1, 2)).sqrt()
