"""Is one method better than another? Valid tests: over seeds or over test items, and for many pairs at once."""

import itertools

import numpy as np
from scipy.stats import binomtest, ttest_rel

from .errors import OptionError, ShapeError


def holm(p):
    """Holm's correction of p-values (n,) for testing n hypotheses.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p, order = np.asarray(p, dtype=float), np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted[np.argsort(order)]


def mcnemar(correct, other_correct):
    """Exact p-value that two classifiers err alike on the same items, from (n,) booleans.

    >>> mcnemar([True] * 8 + [False], [False] * 8 + [False]) == 2 / 2**8
    True
    """
    correct, other_correct = np.asarray(correct, dtype=bool), np.asarray(other_correct, dtype=bool)
    if correct.shape != other_correct.shape or correct.ndim != 1:
        raise ShapeError(f"both classifiers must be judged on the same items, got {correct.shape} and {other_correct.shape}")
    only, differ = int((correct & ~other_correct).sum()), int((correct != other_correct).sum())
    return float(binomtest(only, differ).pvalue) if differ else 1.0


def compare_methods(scores):
    """All pairs of methods by a paired t-test over seeds: a table with mean ``difference``, ``p`` and Holm's ``p_holm``.

    ``scores`` : table with a column a method and a row a seed, 5 seeds or more.
    """
    import pandas as pd

    if len(scores) < 5 or scores.isna().to_numpy().any():
        raise OptionError(f"a paired test needs 5 seeds or more with every method, got {len(scores)}")
    rows = []
    for method, rival in itertools.combinations(scores, 2):
        difference = scores[method] - scores[rival]
        same = np.ptp(difference) == 0  # a t-test divides by the spread
        p = float(difference.iloc[0] == 0) if same else float(ttest_rel(scores[method], scores[rival]).pvalue)
        rows.append({"method": method, "rival": rival, "difference": difference.mean(), "p": p})
    return pd.DataFrame(rows).assign(p_holm=lambda table: holm(table.p))


def bootstrap_interval(values, groups=None, level=0.95, n=10_000, seed=0):
    """Interval of the mean of values (n,) when whole groups (users, runs) are drawn anew: (low, high)."""
    code = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)[1]
    total, size = np.bincount(code, values), np.bincount(code)
    drawn = np.random.default_rng(seed).integers(0, len(size), (n, len(size)))
    means = total[drawn].sum(1) / size[drawn].sum(1)
    return tuple(float(bound) for bound in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
