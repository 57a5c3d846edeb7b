"""A p-value that may be looked at after every added seed."""

import numpy as np

SCALE_SHARE = 0.1  # s^2 as a share of the sum of squares of so many differences as large as the margin


def always_valid_p(differences: np.ndarray, margin: float, planned: int) -> float:
    """p of no difference, right however often seeds are added after a look: differences [seeds], as they came.

    With S = sum d and V = sum d^2 of the first seeds, E = (1 + V/s^2)^(-1/2) exp(S^2 / (2 (s^2 + V))) is a test
    martingale if pairs are symmetric under no difference (de la Pena 1999; Robbins 1970), so p = 1 / max E holds at any
    time (Ville 1939). s^2 is SCALE_SHARE of `planned` differences as large as the margin, fixed before the first look.
    """
    s2 = SCALE_SHARE * planned * margin**2
    S, V = np.cumsum(differences), np.cumsum(differences**2)
    evidence = -0.5 * np.log1p(V / s2) + S**2 / (2 * (s2 + V))
    return float(np.exp(-max(evidence.max(), 0.0)))
