"""What a sweep's headline begins with, said in its file before the first seed is done."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field, model_validator

from results.compared import PRIMARY
from results.metrics import MODES
from rrm.config import TrialConfig
from rrm.settings import Settings


class Primary(Settings):
    """A metric that is tested (results.compared, SIGNALS), and the sigma of its noise where it has one."""

    metric: Literal["best", "final", "equal_compute", "perturbed", "positive_modes"] = PRIMARY[0]
    sigma: float = Field(default=PRIMARY[1], ge=0)

    @model_validator(mode="after")
    def _has_a_sigma_if_perturbed(self) -> "Primary":
        if self.metric == "perturbed" and self.sigma == 0:
            raise ValueError("sigma: missing with perturbed; give one of eval.sigmas, {metric: perturbed, sigma: 0.1}")
        if self.metric != "perturbed" and self.sigma:
            raise ValueError(f"sigma: {self.sigma:g} with {self.metric}, which is of the clean run; remove it")
        return self


def primary_problems(primary: Primary, configs: Iterable[TrialConfig]) -> Iterator[str]:
    """Why a primary metric is not measured in some of the trials."""
    for config in configs:
        if primary.metric == MODES and config.diagnose is None:
            yield f"primary.metric: {MODES} with trials that are not diagnosed; give base.diagnose, or another metric"
        if primary.sigma and primary.sigma not in config.eval.start_sigmas:
            known = ", ".join(f"{sigma:g}" for sigma in config.eval.start_sigmas)
            yield f"primary.sigma: {primary.sigma:g} is not evaluated; give one of eval.sigmas: {known or 'none'}"
