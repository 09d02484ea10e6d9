"""Numbers out of plain arrays: ratios, timing statistics, threshold curves, intervals, tests of significance.

A ratio with nothing to divide by is NaN.
"""

import itertools

import numpy as np
from scipy.stats import binomtest, ttest_rel

from ..signals.errors import DataError, OptionError, ShapeError

# Limits, in ms, of the shares of small timing errors in a report.
WITHIN_MS = (1.0, 2.5, 5.0)


def threshold_curve(score, is_hit):
    """Hits and estimates, cumulated as a threshold falls over the scores that occur; (None, None) when a score is NaN.

    >>> threshold_curve(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]))
    (array([1, 2]), array([1, 3]))
    """
    if np.isnan(score).any():
        return None, None
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # the last of each run of equal scores
    return np.cumsum(is_hit[order])[last], last + 1


def average_precision(tp, n_estimated, n_reference) -> float:
    """Sum of precision times the rise of recall, over the thresholds of `threshold_curve`."""
    if tp is None or n_reference == 0:
        return np.nan
    return float(np.sum(np.diff(tp / n_reference, prepend=0.0) * (tp / n_estimated)))


def bootstrap_interval(values, groups=None, level: float = 0.95, n: int = 2000, seed: int = 0) -> tuple:
    """Percentile interval of the mean when whole groups are drawn again, with replacement.

    Parameters
    ----------
    values : (n_values,) numbers
    groups : (n_values,) what belongs together (a person, a run, a recording); without it each value is a group
    level : share of the resamplings inside
    n : number of resamplings
    seed : of the generator

    Returns
    -------
    (low, high)

    Examples
    --------
    >>> bootstrap_interval([0.9, 0.9, 0.9])
    (0.9, 0.9)
    """
    if not len(values):
        raise DataError("a bootstrap needs at least one value; got none")
    if not 0 < level < 1:
        raise OptionError(f"level must lie between 0 and 1, got {level!r} (did you pass per cent?)")
    group = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)[1]
    total, size = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(size), (n, len(size)))
    means = total[drawn].sum(1) / size[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio(part, whole):
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    ratio = np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def median_per_type(values, type, n_types: int) -> np.ndarray:
    """(n_types,) medians, 0 for a type without values."""
    return np.array([np.median(values[type == k]) if (type == k).any() else 0.0 for k in range(n_types)])


def timing_statistics(dt_s) -> dict:
    """Statistics of signed errors (n,) in seconds, given in ms; NaN without any."""
    dt_ms = 1e3 * np.asarray(dt_s) if len(dt_s) else np.array([np.nan])
    bias, size = np.median(dt_ms), np.abs(dt_ms)
    return {
        "n": len(dt_s),
        "bias_ms": float(bias),
        "mad_ms": float(np.median(np.abs(dt_ms - bias))),
        "rmse_ms": float(np.sqrt(np.mean(dt_ms**2))),
        "p95_ms": float(np.quantile(size, 0.95)),
        **{f"share_within_{ms:g}_ms": ratio(np.sum(size <= ms + 1e-6), len(dt_s)) for ms in WITHIN_MS},
    }


def reliability(score, is_hit, n_bins: int = 10) -> dict:
    """What share of estimates with a stated probability were hits, in bins of equal width between 0 and 1.

    Parameters
    ----------
    score : (n,) stated probabilities
    is_hit : (n,) bool

    Returns
    -------
    dict of (n_bins,) arrays : ``stated`` (mean score, NaN in an empty bin), ``observed`` (share of hits), ``n``; and
    the expected calibration error ``ece`` (mean distance of the two, weighted by n) and the ``brier`` score, NaN
    without estimates

    >>> result = reliability(np.array([0.9, 0.9, 0.1]), np.array([True, True, False]), n_bins=2)
    >>> result["n"].tolist(), round(result["ece"], 3)
    ([1, 2], 0.1)
    """
    score, is_hit = np.asarray(score, dtype=np.float64), np.asarray(is_hit, dtype=np.float64)
    if not ((score >= 0) & (score <= 1)).all():
        raise DataError("scores must be probabilities between 0 and 1 to be called calibrated or not; some are not")
    row = np.minimum((score * n_bins).astype(int), n_bins - 1)
    n = np.bincount(row, minlength=n_bins)
    stated, observed = (ratio(np.bincount(row, values, n_bins), n) for values in (score, is_hit))
    ece = ratio(np.nansum(n * np.abs(stated - observed)), n.sum())
    brier = ratio(np.sum((score - is_hit) ** 2), len(score))
    return {"stated": stated, "observed": observed, "n": n, "ece": ece, "brier": brier}


def coverage(dt_s, sigma_s, sigmas=(1.0, 1.96)) -> tuple:
    """Share of errors within each number of stated standard deviations in ``sigmas``; NaN without errors.

    >>> coverage(np.array([0.5, 1.5]), np.array([1.0, 1.0]))
    (0.5, 1.0)
    """
    return tuple(ratio(np.sum(np.abs(dt_s) <= k * np.asarray(sigma_s)), len(dt_s)) for k in sigmas)


# ---- Is one method better than another? Tests over seeds or over test items, and for many pairs at once. ------------


def holm(p) -> np.ndarray:
    """Holm's correction of p-values (n,) for testing n hypotheses.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p, order = np.asarray(p, dtype=float), np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted[np.argsort(order)]


def mcnemar(correct, other_correct) -> float:
    """Exact p-value that two classifiers err alike on the same items, from (n,) booleans.

    >>> mcnemar([True] * 8 + [False], [False] * 8 + [False]) == 2 / 2**8
    True
    """
    correct, other_correct = np.asarray(correct, dtype=bool), np.asarray(other_correct, dtype=bool)
    if correct.shape != other_correct.shape or correct.ndim != 1:
        shapes = f"{correct.shape} and {other_correct.shape}"
        raise ShapeError(f"both classifiers must be judged on the same items, got {shapes}")
    only, differ = int((correct & ~other_correct).sum()), int((correct != other_correct).sum())
    return float(binomtest(only, differ).pvalue) if differ else 1.0


def compare_methods(scores):
    """All pairs of methods by a paired t-test over seeds: a table with the columns ``method``, ``rival``, mean
    ``difference``, ``p`` and Holm's ``p_holm``.

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


def draw_rows(kinds: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted rows of at most ``each`` items of every kind, drawn at random; a smaller draw is part of a larger one.

    >>> draw_rows(np.array([0, 0, 0, 1, 1]), 2, np.random.default_rng(0)).shape
    (4,)
    """
    order = rng.permutation(len(kinds))
    return np.sort(np.concatenate([order[kinds[order] == kind][:each] for kind in np.unique(kinds)]))
