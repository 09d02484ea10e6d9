"""Anomalies: scores of samples, judged by the spans that were anomalous."""

import numpy as np

from ..signals.errors import DataError, ShapeError, float_array, require, require_int
from ..signals.gaps import runs


def vus_pr(score: np.ndarray, anomalous: np.ndarray, buffer: int) -> float:
    """Volume under the surface of precision, recall and buffer (Paparrizos et al. 2022,
    https://doi.org/10.14778/3551793.3551830).

    Where exactly an anomaly begins and ends is rarely known. So around each span a buffer counts as partly anomalous,
    and recall is multiplied by the share of spans of which anything was found. This is the mean of the areas under the
    curves of precision and recall over all buffers from 0 to ``buffer`` samples. A guess has about the share of
    anomalous samples; even a perfect detector stays a little below 1, as it does not find the buffers.

    Parameters
    ----------
    score : (n,) floats, larger for stranger samples
    anomalous : (n,) bool
    buffer : the widest one in samples, half of it on either side

    Raises
    ------
    ShapeError : arrays of unequal length
    DataError : scores that are not finite, no anomalous sample or nothing else

    Examples
    --------
    >>> anomalous = np.zeros(100, dtype=bool)
    >>> anomalous[40:60] = True
    >>> vus_pr(anomalous.astype(float), anomalous, 0), round(vus_pr(np.zeros(100), anomalous, 0), 3)
    (1.0, 0.2)
    """
    require_int(0, buffer=buffer)
    score, anomalous = float_array("score", score), np.asarray(anomalous).astype(bool)
    message = f"score and anomalous must have one length, got {score.shape} and {anomalous.shape}"
    require(score.ndim == 1 and score.shape == anomalous.shape, ShapeError, message)
    require(np.isfinite(score).all(), DataError, "the scores must be finite; found NaN or infinity")
    both = anomalous.any() and not anomalous.all()
    require(both, DataError, "anomalous samples and others are wanted, got only one of them")
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # the last of each run of equal scores
    return float(np.mean([_average_precision(order, last, _soft(anomalous, width)) for width in range(buffer + 1)]))


def _soft(anomalous, width):
    """(n,) 1 in anomalous spans, falling within half a ``width`` on either side; and the number of 1."""
    near = np.zeros(len(anomalous))
    starts, stops = runs(anomalous)
    steps = np.arange(1, width // 2 + 1)
    ramp = np.sqrt(1 - steps / max(width, 1))
    for at in (starts[:, None] - steps, stops[:, None] - 1 + steps):
        inside = (at >= 0) & (at < len(near))
        np.add.at(near, at[inside], np.broadcast_to(ramp, at.shape)[inside])
    return np.where(anomalous, 1.0, np.minimum(near, 1.0)), int(anomalous.sum())


def _average_precision(order, last, labels):
    """The area under precision and recall of one buffer, as thresholds fall over all scores."""
    label, hard = labels
    found = np.cumsum(label[order])[last]
    recall = np.minimum(found / ((hard + label.sum()) / 2), 1.0)
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    starts, stops = runs(label > 0)
    first = np.sort([rank[start:stop].min() for start, stop in zip(starts, stops, strict=True)])
    recall = recall * np.searchsorted(first, last, side="right") / len(first)
    precision = found / (last + 1)
    return np.sum(np.diff(recall, prepend=0.0) * precision)
