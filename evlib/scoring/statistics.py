"""Numbers out of plain arrays: ratios, timing statistics, threshold curves, intervals over recordings.

A ratio with nothing to divide by is NaN.
"""

import itertools

import numpy as np
from scipy.stats import binomtest, ttest_rel

from ..signals.errors import DataError, OptionError, ShapeError

WITHIN_MS = (1.0, 2.5, 5.0)


def threshold_curve(score, is_hit):
    """Hits and estimates, cumulated as a threshold falls over the scores that occur; (None, None) when a score is NaN.

    >>> threshold_curve(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]))
    (array([1, 2]), array([1, 3]))
    """
    if np.isnan(score).any():
        return None, None
    order = np.argsort(-score, kind="stable")
    score = score[order]
    last = np.flatnonzero(np.r_[score[1:] != score[:-1], True]) if len(score) else np.zeros(0, dtype=np.int64)
    return np.cumsum(is_hit[order])[last], last + 1


def bootstrap_interval(values_per_recording, statistic=np.mean, n=2000, seed=0, level=0.95):
    """Percentile interval of a statistic when whole recordings are drawn again, with replacement.

    Parameters
    ----------
    values_per_recording : one entry per recording: numbers, or anything else that ``statistic`` takes a list of
    statistic : list of entries -> number
    n : resamplings; seed : of the local generator; level : share of resamplings inside

    Returns
    -------
    (low, high)

    Examples
    --------
    >>> bootstrap_interval([0.9, 0.9, 0.9])
    (0.9, 0.9)
    """
    values = list(values_per_recording)
    if not values:
        raise DataError("a bootstrap needs the values of at least one recording; got none")
    if not 0 < level < 1:
        raise OptionError(f"level must lie between 0 and 1, got {level!r} (did you pass per cent?)")
    draws = np.random.default_rng(seed).integers(len(values), size=(n, len(values)))
    low, high = np.quantile(
        [statistic([values[k] for k in draw]) for draw in draws], [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def ratio(part, whole):
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    ratio = np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def median_per_type(values, type, n_types):
    """(n_types,) medians, 0 for a type without values."""
    return np.array([np.median(values[type == k]) if (type == k).any() else 0.0 for k in range(n_types)])


def timing_statistics(dt_s):
    """Statistics of signed errors, in ms; NaN without any."""
    dt_ms = 1e3 * np.asarray(dt_s) if len(dt_s) else np.array([np.nan])
    bias = np.median(dt_ms)
    within = {
        f"share_within_{limit:g}_ms": ratio(np.sum(np.abs(dt_ms) <= limit + 1e-6), len(dt_s)) for limit in WITHIN_MS
    }
    return {
        "n": len(dt_s),
        "bias_ms": float(bias),
        "mad_ms": float(np.median(np.abs(dt_ms - bias))),
        "rmse_ms": float(np.sqrt(np.mean(dt_ms**2))),
        "p95_ms": float(np.quantile(np.abs(dt_ms), 0.95)),
        **within,
    }


def reliability(score, is_hit, n_bins=10):
    """What share of estimates with a stated probability were hits, in bins of equal width.

    Parameters
    ----------
    score : (n,) stated probabilities
    is_hit : (n,) bool
    n_bins : between 0 and 1

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
    if np.isnan(score).any() or ((score < 0) | (score > 1)).any():
        raise DataError("scores must be probabilities between 0 and 1 to be called calibrated or not; some are not")
    row = np.minimum((score * n_bins).astype(int), n_bins - 1)
    n = np.bincount(row, minlength=n_bins)
    stated, observed = (ratio(np.bincount(row, values, n_bins), n) for values in (score, is_hit))
    ece = float(np.nansum(n * np.abs(stated - observed)) / n.sum()) if n.sum() else np.nan
    brier = float(np.mean((score - is_hit) ** 2)) if len(score) else np.nan
    return {"stated": stated, "observed": observed, "n": n, "ece": ece, "brier": brier}


def coverage(dt_s, sigma_s, sigmas=(1.0, 1.96)):
    """Share of errors within so many stated standard deviations, one for each of ``sigmas``; NaN without errors.

    >>> coverage(np.array([0.5, 1.5]), np.array([1.0, 1.0]))
    (0.5, 1.0)
    """
    if len(dt_s) == 0:
        return (np.nan,) * len(sigmas)
    return tuple(float(np.mean(np.abs(dt_s) <= k * np.asarray(sigma_s))) for k in sigmas)


def average_precision(tp, n_estimated, n_reference):
    """Sum of precision times the rise of recall, over the thresholds."""
    if tp is None or n_reference == 0:
        return np.nan
    return float(np.sum(np.diff(tp / n_reference, prepend=0.0) * (tp / n_estimated)))


def plain(value):
    """Builtin types only, NaN as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


# --- Is one method better than another? Valid tests: over seeds or over test items, and for many pairs at once.


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
        raise ShapeError(
            f"both classifiers must be judged on the same items, got {correct.shape} and {other_correct.shape}"
        )
    only, differ = int((correct & ~other_correct).sum()), int((correct != other_correct).sum())
    return float(binomtest(only, differ).pvalue) if differ else 1.0


def compare_methods(scores):
    """All pairs of methods by a paired t-test over seeds: a table with mean ``difference``, ``p`` and Holm's
    ``p_holm``.

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


def grouped_interval(values, groups=None, level=0.95, n=10_000, seed=0):
    """Interval of the mean of values (n,) when whole groups (users, runs) are drawn anew: (low, high)."""
    code = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)[1]
    total, size = np.bincount(code, values), np.bincount(code)
    drawn = np.random.default_rng(seed).integers(0, len(size), (n, len(size)))
    means = total[drawn].sum(1) / size[drawn].sum(1)
    return tuple(float(bound) for bound in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
