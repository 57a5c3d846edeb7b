"""What a comparison allows to say of each arm, in words, from the three signals."""

from typing import Any

import pandas as pd

from results.comparison import MARGIN, NOT_COMPARABLE

VERDICT_COLUMNS = ("sweep", "arm", "point", "perturbed", "modes", "clean_regressed", "verdict")
_GOOD, _BAD = {"up", "fewer", "no"}, {"down", "more", "yes"}


def verdicts(comparison: pd.DataFrame) -> pd.DataFrame:
    """A row an arm and grid point of a comparison: the three signals and the sentence they allow.

    perturbed: up, down, mixed (differs between sigmas), not shown or not measured; modes (broad positive Lyapunov
    modes): fewer, more, not shown or not measured; clean_regressed: yes, no or cannot tell. All at the depth of the
    training. With fewer seeds than a signal needs, the verdict says how many more would detect what.
    """
    groups = comparison.groupby(["sweep", "arm", "point"], sort=False)
    rows = [
        {"sweep": sweep, "arm": arm, "point": point} | _of_arm(metrics)
        for (sweep, arm, point), metrics in groups  # pyright: ignore[reportGeneralTypeIssues]
    ]
    return pd.DataFrame(rows, columns=VERDICT_COLUMNS)


def _of_arm(rows: pd.DataFrame) -> dict[str, Any]:
    if (rows.verdict == NOT_COMPARABLE).any() or (rows.n_left_out > 0).any():
        return {"perturbed": None, "modes": None, "clean_regressed": None, "verdict": rows.verdict.iloc[0]}
    rows = rows.loc[rows.depth == rows.depth.min()]
    clean = rows.loc[rows.metric == "final"].iloc[0]
    perturbed, modes = rows.loc[rows.metric == "perturbed"], rows.loc[rows.metric == "positive_modes"]
    signals = {
        "perturbed": _direction(perturbed, "up", "down"),
        "modes": _direction(modes, "fewer", "more", lower_is_first=True),
        "clean_regressed": clean.regressed,
    }
    # The hardest noise stands for the perturbed rollouts: it is where an effect is looked for first.
    main = perturbed.sort_values("sigma").iloc[-1] if len(perturbed) else clean
    what = f"perturbed success at sigma {main.sigma:g}" if len(perturbed) else "clean accuracy"
    detects = "" if pd.isna(main.detectable) else f"about {100 * main.detectable:.1f} points of {what}"
    missing = main.seeds_needed - main.n_seeds
    if missing > 0:
        detects += f", going by the spread of {main.n_seeds}" if detects else ""
        more = f"{missing} more would detect {detects}" if detects else f"{missing} more allow a verdict"
        return signals | {"verdict": f"too few seeds ({main.n_seeds} of {main.seeds_needed}): {more}"}
    found = set(signals.values())
    words = {
        "perturbed success": signals["perturbed"],
        "positive modes": signals["modes"],
        f"clean accuracy regressed by over {100 * MARGIN:g} points": signals["clean_regressed"],
    }
    text = ", ".join(f"{name}: {word}" for name, word in words.items())
    if not detects or found & {"up", "down", "mixed"}:
        return signals | {"verdict": f"{_headline(found)}; {text}"}
    return signals | {"verdict": f"{_headline(found)}; {text}; {main.n_seeds} seeds detect {detects}"}


def _headline(found: set[str]) -> str:
    if found >= _GOOD:
        return "helps on all three signals"
    if "mixed" in found or (found & _BAD and found & {"up", "fewer"}):
        return "mixed"
    if found & _BAD:
        return "harms"
    return "helps in part" if found & {"up", "fewer"} else "no effect shown"


def _direction(rows: pd.DataFrame, first: str, second: str, lower_is_first: bool = False) -> str:
    if len(rows) == 0:
        return "not measured"
    above, below = (rows.verdict == "above baseline").any(), (rows.verdict == "below baseline").any()
    if above and below:
        return "mixed"
    if above or below:
        return first if above != lower_is_first else second
    return "not shown"
