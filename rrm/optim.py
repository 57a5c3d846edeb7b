"""Adam-atan2, the sign-SGD of the puzzle table, the learning-rate schedule and the moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rrm.settings import Settings


class OptimConfig(Settings):
    """An optimizer of OPTIMIZERS; linear warm-up over `warmup_steps` updates, then a cosine to `min_lr_ratio` * lr.

    `min_lr_ratio` 1 keeps the rate constant after the warm-up. `ema_rate` 0 evaluates the weights themselves.
    """

    optimizer: Literal["adam_atan2", "adamw"] = "adam_atan2"
    lr: float = Field(gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    min_lr_ratio: float = Field(default=1.0, ge=0, le=1)
    ema_rate: float = Field(default=0.999, ge=0, lt=1)
    puzzle_emb_lr: float = Field(default=1e-2, ge=0)
    puzzle_emb_weight_decay: float = Field(default=0.1, ge=0)

    @property
    def depends_on_total(self) -> bool:
        """Whether the learning rate of a step depends on how many steps are planned."""
        return self.min_lr_ratio < 1


def adamw(params, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay and eps 1e-8 (Loshchilov and Hutter, arXiv 1711.05101)."""
    return torch.optim.AdamW(params, lr=lr, betas=(beta1, beta2), eps=1e-8, weight_decay=weight_decay)


def schedule(base_lr: float, step: int, *, warmup_steps: int, total_steps: int, min_lr_ratio: float) -> float:
    """The learning rate of update number `step` (the first is 1): linear warm-up, then a cosine to the minimum."""
    if step < warmup_steps:
        return base_lr * step / warmup_steps
    if min_lr_ratio == 1:
        return base_lr
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base_lr * (min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


class AdamATan2:
    """Adam with atan2 in place of the division (Everett et al., arXiv 2407.05872), as HRM and TRM were trained.

    p *= 1 - lr * wd; p -= lr / (1 - b1^t) * atan2(m, sqrt(v) / sqrt(1 - b2^t)). m is not bias corrected inside atan2.
    Used as torch's optimizers are, and no subclass of theirs: to make one imports torch's compiler, which takes as long
    as all else that a worker imports.
    """

    def __init__(self, params, *, lr: float, beta1: float, beta2: float, weight_decay: float):
        params = list(params)
        settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay}
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups: list[dict[str, Any]] = [
            settings | group | {"params": [*group["params"]]} for group in groups
        ]
        self.state: dict[Tensor, dict[str, Any]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self._params():
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """In the form of torch's: parameters are their numbers, over all groups."""
        params = self._params()
        groups, begin = [], 0
        for group in self.param_groups:
            numbers = [*range(begin, begin + len(group["params"]))]
            groups.append(group | {"params": numbers})
            begin += len(numbers)
        return {"state": {i: self.state[p] for i, p in enumerate(params) if p in self.state}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave. Raises ValueError if it is of other groups."""
        groups, params = state["param_groups"], self._params()
        if [len(group["params"]) for group in groups] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError("the state of an optimizer of other parameters")
        self.param_groups = [
            group | {"params": own["params"]} for group, own in zip(groups, self.param_groups, strict=True)
        ]
        self.state.clear()
        for number, kept in state["state"].items():
            p = params[number]
            self.state[p] = kept | {name: kept[name].to(p) for name in ("m", "v")}

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient; each keeps its own count of updates."""
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            for p in with_gradient:
                if p not in self.state:
                    self.state[p] = {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            of_count: dict[int, list[Tensor]] = {}
            for p in with_gradient:
                of_count.setdefault(self.state[p]["step"], []).append(p)
            for count, params in of_count.items():
                self._update(params, count + 1, group)

    def _update(self, params: list[Tensor], t: int, group: dict) -> None:
        beta1, beta2, lr = group["beta1"], group["beta2"], group["lr"]
        grads = [p.grad for p in params if p.grad is not None]
        m, v = [self.state[p]["m"] for p in params], [self.state[p]["v"] for p in params]
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        denominators = torch._foreach_sqrt(v)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**t))
        for p, numerator, denominator in zip(params, m, denominators, strict=True):
            p.sub_(torch.atan2(numerator, denominator), alpha=lr / (1 - beta1**t))
            self.state[p]["step"] = t


OPTIMIZERS = {"adam_atan2": AdamATan2, "adamw": adamw}


@torch.no_grad()
def sign_sgd(weights: Tensor, gradient: Tensor, touched: Tensor, *, lr: float, weight_decay: float) -> None:
    """Update the rows of a table [num, dim] that are `touched`, bool [num], in place, with its gradient [num, dim].

    w = w * (1 - lr * wd) - lr * sign(g); a touched row decays also where its gradient is 0.
    """
    weights.copy_(torch.where(touched[:, None], weights * (1 - lr * weight_decay) - lr * gradient.sign(), weights))


class EMA:
    """Moving average of a model's parameters in float32, started at their first values; no bias correction.

    The puzzle table is a buffer and stays out, as in the published code.
    """

    def __init__(self, model: nn.Module, rate: float):
        self.rate = rate
        self._params = dict(model.named_parameters())
        self.shadow = {name: p.detach().to(torch.float32, copy=True) for name, p in self._params.items()}

    @torch.no_grad()
    def update(self) -> None:
        """shadow = rate * shadow + (1 - rate) * parameter."""
        torch._foreach_lerp_(list(self.shadow.values()), [p.float() for p in self._params.values()], 1 - self.rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model's parameters are the averages; afterwards their own again, exactly."""
        own = {name: p.data for name, p in self._params.items()}
        try:
            for name, p in self._params.items():
                p.data = self.shadow[name].to(p.dtype)
            yield
        finally:
            for name, p in self._params.items():
                p.data = own[name]
