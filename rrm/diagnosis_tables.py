"""What a diagnosis found, as tables: a column an array or a list, a row an example (and window, depth, restart)."""

import math
from typing import Any

import numpy as np
import torch

from rrm.dynamics import VARIATIONS, Found
from rrm.lyapunov import LATE_STEPS, Diagnosis, has_settled, windows

Columns = dict[str, Any]  # a numpy array or a list each, of one length
Rows = list[dict[str, Any]]
OUTCOMES = ("solved", "valid", "shortest")


def diagnostics(examples: Found, sub_updates: int) -> Columns:
    """A row an example, of results.schema.DIAGNOSTICS_SCHEMA, of what rrm.dynamics.examine found about all of them."""
    spectra = _spectra(examples, sub_updates)
    n, steps = spectra.drift.shape
    threshold = float(10**spectra.log_threshold)
    return {
        "example": np.arange(n),
        "act_steps": np.full(n, steps),
        "sub_updates": np.full(n, sub_updates),
        **{name: examples[name].numpy() for name in (*OUTCOMES, "token_accuracy", "q_halt") if name in examples},
        "halt_step": [step or None for step in examples["halt_step"].tolist()],
        "exponents": spectra.exponents.tolist(),
        "late_exponents": spectra.late_exponents.tolist(),
        "lambda_1": spectra.exponents[:, 0],
        "spectral_mean": spectra.spectral_mean,
        "n_pos0": spectra.n_pos0,
        "n_pos": spectra.n_pos,
        "late_drift": spectra.late_drift,
        "relative_late_drift": spectra.relative_late_drift,
        "settled": spectra.settled,
        "drift_threshold": [None if math.isnan(threshold) else threshold] * n,
    }


def window_means(examples: Found, sub_updates: int) -> Found:
    """By example and window of the unroll (rrm.lyapunov.windows) [n, W]: lambda_1, spectral_mean, mean drift."""
    spectra = _spectra(examples, sub_updates)
    named = windows(spectra.drift.shape[1]).values()
    exponents = np.stack([spectra.window_exponents(steps) for steps in named], axis=1)
    drift = np.stack([spectra.drift[:, steps.start : steps.stop].mean(axis=1) for steps in named], axis=1)
    found = {"lambda_1": exponents[:, :, 0], "spectral_mean": exponents.mean(axis=2), "drift": drift}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in found.items()}


def window_rows(means: Found, steps: int) -> Columns:
    """A row an example and window, of results.schema.WINDOWS_SCHEMA; an unroll of `steps` ACT steps."""
    named, n = windows(steps), len(means["drift"])
    return {
        "example": np.repeat(np.arange(n), len(named)),
        "window": [*named] * n,
        "first_step": [window.start + 1 for window in named.values()] * n,
        "last_step": [window.stop for window in named.values()] * n,
        **{name: values.flatten().numpy() for name, values in means.items()},
    }


def far(depths: Found, drift_threshold: float | None) -> Columns:
    """Columns of `diagnostics`: from which ACT step on the answer stays right, and whether the run settles at last."""
    late_drift = depths["drift"][:, -LATE_STEPS:].mean(dim=1).numpy()
    log_threshold = math.nan if drift_threshold is None else math.log10(drift_threshold)
    return {
        "depth": [depths["drift"].shape[1]] * len(late_drift),
        **{f"{name}_from": stays_from(depths[name].numpy()) for name in OUTCOMES if name in depths},
        "far_late_drift": late_drift.tolist(),
        "far_settled": has_settled(late_drift, depths["norm"][:, -1].numpy(), log_threshold).tolist(),
    }


def stays_from(right: np.ndarray) -> list[int | None]:
    """The first step (1-based) of bool [n, steps] from which on all are true; None if the last is not."""
    stays = np.logical_and.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    return [int(row.argmax()) + 1 if row[-1] else None for row in stays]


def depth_rows(depths: Found) -> Columns:
    """A row an example and ACT step, of results.schema.DEPTHS_SCHEMA."""
    n, depth = depths["drift"].shape
    return {
        "example": np.repeat(np.arange(n), depth),
        "depth": np.tile(np.arange(1, depth + 1), n),
        **{name: depths[name].flatten().numpy() for name in (*OUTCOMES, "drift") if name in depths},
    }


def restart_rows(restarts: Found) -> Columns:
    """A row a failed example, sigma and restart, of results.schema.RESTARTS_SCHEMA."""
    F, S, R = restarts["solved"].shape
    return {
        "example": restarts["example"].repeat_interleave(S * R).numpy(),
        "sigma": restarts["sigma"].flatten().repeat_interleave(R).numpy(),
        "restart": np.tile(np.arange(R), F * S),
        **{name: restarts[name].flatten().numpy() for name in (*OUTCOMES, "q_halt") if name in restarts},
    }


def robustness_rows(robustness: Found) -> Columns:
    """A row an example and variation of the estimator, of results.schema.ROBUSTNESS_SCHEMA."""
    lambda_1 = robustness["lambda_1"].numpy()
    n, V = len(lambda_1), len(VARIATIONS)
    return {
        "example": np.repeat(np.arange(n), V),
        "variation": [*VARIATIONS] * n,
        "lambda_1": lambda_1[:, 1:].ravel(),
        "usual_lambda_1": np.repeat(lambda_1[:, 0], V),
    }


DEEP = {"depths": depth_rows, "restarts": restart_rows, "robustness": robustness_rows}


def tables(found: dict[str, Found], sub_updates: int) -> dict[str, Columns]:
    """The tables of one diagnosis (rrm.diagnose.diagnose_parts) by name, without trial_id and step."""
    examples = found["examples"]
    own = diagnostics(examples, sub_updates)
    if "depths" in found:
        own |= far(found["depths"], own["drift_threshold"][0])
    steps = examples["drift"].shape[1]
    made = {"diagnostics": own, "windows": window_rows(window_means(examples, sub_updates), steps)}
    return made | {name: make(found[name]) for name, make in DEEP.items() if name in found}


def as_rows(columns: Columns) -> Rows:
    """A table row by row, as plain values."""
    plain = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*plain, strict=True)]


def _spectra(examples: Found, sub_updates: int) -> Diagnosis:
    log_growth, drift, norm = (examples[name].numpy() for name in ("log_growth", "drift", "norm"))
    return Diagnosis(log_growth, drift, norm, sub_updates)
