"""Per-type thresholds that give the best F1 on development examples."""

import numpy as np

# Pooled counts of all types that every type borrows, as a share: a type with few events follows the others.
BORROWED = 0.5
# Thresholds whose F1 is this close to the best count as equal; of the middle half of them, the nearest to even odds is
# taken, where calibrated log odds have their best F1.
PLATEAU = 0.002
GRID = 400


def choose_thresholds(logit, type, target, weight, n_missed):
    """Thresholds (E,) on ``logit`` and the F1 per type (E,) that they reach on the same examples.

    ``logit``, ``type``, ``target`` (1 for a true event), ``weight``: (n,); ``n_missed`` (E,): weight of the true events
    that are no candidate at all.
    """
    n_types = len(n_missed)
    logit, target, weight = (np.asarray(values, dtype=np.float64) for values in (logit, target, weight))
    low, high = np.quantile(logit, [0.0, 1.0]) if len(logit) else (0.0, 0.0)
    grid = np.linspace(max(low, -30.0), min(high, 60.0), GRID)
    # Counts of candidates at or over each grid value, per type.
    bin_ = np.searchsorted(grid, logit, side="right") - 1
    counted = bin_ >= 0
    cell = type[counted] * GRID + bin_[counted]
    over = [
        np.bincount(cell, (weight * mask)[counted], n_types * GRID).reshape(n_types, GRID)[:, ::-1].cumsum(1)[:, ::-1]
        for mask in (target, 1 - target)
    ]
    total = np.bincount(type, weight * target, n_types) + n_missed
    hits, false = (counts + BORROWED * counts.mean(0) for counts in over)
    total = total + BORROWED * total.mean()
    f1 = 2 * hits / np.maximum(hits + false + total[:, None], 1e-12)
    good = f1 >= f1.max(axis=1, keepdims=True) - PLATEAU
    # The plateau that holds the maximum, not a second one elsewhere.
    best = f1.argmax(axis=1)
    thresholds = np.empty(n_types)
    for e in range(n_types):
        outside = np.flatnonzero(~good[e])
        first = outside[outside < best[e]].max(initial=-1) + 1
        last = outside[outside > best[e]].min(initial=GRID) - 1
        margin = 0.25 * (grid[last] - grid[first])
        thresholds[e] = np.clip(0.0, grid[first] + margin, grid[last] - margin)
    return thresholds, f1[np.arange(n_types), best]
