"""Thresholds: the best F1 on development examples, and what other thresholds and refractory periods would give."""

from dataclasses import replace

import numpy as np

from ..signals.clock import distance_to_nearest
from ..signals.errors import DataError
from .comparison import compare
from .statistics import ratio

# Number of events from the pooled counts of all types that every type borrows: a type with few events of its own
# follows the others.
BORROWED_EVENTS = 20.0
# Thresholds count as equally good when their F1 differs by less than this, or by less than half an event.
PLATEAU, PLATEAU_EVENTS = 0.002, 0.5
# The grid: GRID thresholds from the quantile WEAKEST of the log odds of true candidates to their quantile 0.75, one
# for each quantile of STRONG, and BELOW thresholds under them all.
GRID, BELOW, WEAKEST, STRONG = 96, 8, 0.002, (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
# The labelled share of events is read where at least this share of the labels is found: stricter thresholds find too
# few to estimate it.
LEAST_FOUND = 0.8
# Log odds are clipped to this range: beyond it a candidate is as certain as can be.
LOWEST, HIGHEST = -30.0, 60.0
# Number of thresholds on the curve of one type.
CURVE_POINTS = 41


def threshold_grid(logit, is_true):
    """Thresholds worth a try, sorted: every logit there is, or about a hundred values among those of true events."""
    logit = np.clip(np.asarray(logit, dtype=np.float64), LOWEST, HIGHEST)
    every = np.unique(logit) if len(logit) else np.zeros(1)
    if len(every) <= GRID:
        return every
    if not np.any(is_true):
        return np.quantile(every, np.linspace(0, 1, GRID))
    weakest, *strong = np.quantile(logit[is_true], (WEAKEST, *STRONG))
    return np.unique(np.r_[np.linspace(every[0], weakest, BELOW), np.linspace(weakest, strong[0], GRID), strong])


def choose_thresholds(grid, n_events, hits, false, recalled, found):
    """Thresholds (E,) with the best F1 of each type.

    Parameters
    ----------
    grid : (G,) thresholds, sorted
    n_events : (E,) labelled events, in what is labelled completely and elsewhere
    hits, false : (E, G) true and false detections at each of them in what is labelled completely
    recalled, found : (E, G) labelled events that are detected, and all detections, where only some events are labelled;
        see `unlabelled_false`
    """
    plateau = max(PLATEAU, PLATEAU_EVENTS / max(np.sum(n_events), 1.0))
    borrowed = BORROWED_EVENTS / max(np.mean(n_events), 1.0)
    hits, false, recalled, found, n_events = (
        counts + borrowed * np.mean(counts, 0) for counts in (hits, false, recalled, found, n_events)
    )
    hits, false = hits + recalled, false + unlabelled_false(recalled, found, labelled_share(recalled, found)[:, None])
    f1 = 2 * hits / np.maximum(hits + false + n_events[:, None], 1e-12)
    # On a fine grid nothing changes between two neighbours: values down to the last that is too low are as good.
    return np.array([best_threshold(grid, own, plateau, 1) for own in f1])


def best_threshold(grid, f1, plateau: float = 0.0, below: int = 0) -> float:
    """The threshold with the best F1.

    Of the thresholds around the maximum whose F1 is within ``plateau`` of it, and ``below`` more, the middle half is
    taken, and of it the value nearest to even odds, where calibrated log odds have their best F1.

    Parameters
    ----------
    grid, f1 : (G,) thresholds in log odds, sorted, and the F1 of each
    """
    best, outside = np.argmax(f1), np.flatnonzero(f1 < f1.max() - plateau)
    first, last = outside[outside < best].max(initial=-1) + 1, outside[outside > best].min(initial=len(grid)) - 1
    low, high = grid[max(first - below, 0)], grid[last]
    margin = 0.25 * (high - low)
    return float(np.clip(0.0, low + margin, high - margin))


def labelled_share(recalled, found):
    """(...,) the share of events that is labelled: of detections at the threshold where most are labelled.

    ``recalled``, ``found``: (..., G), see `choose_thresholds`.
    """
    enough = recalled >= LEAST_FOUND * recalled.max(-1, keepdims=True)
    return np.where(enough, recalled / np.maximum(found, 1e-12), 0).max(-1)


def unlabelled_false(recalled, found, share):
    """False detections where only a ``share`` of events is labelled, counted as if they were as rare as the labels.

    If all detections were true, the labelled ones among them would be that share of them; what they are fewer is false.
    Source: Lee and Liu (ICML 2003), precision and recall from positive and unlabelled examples.
    """
    return np.maximum(found * share - recalled, 0)


class ThresholdSweep:
    """The candidates of a recording, and the scores that other thresholds and refractory periods would give, without
    detecting anew.

    Parameters
    ----------
    detector : Detector; it is not changed
    recording : Recording of development data: thresholds that are chosen on test data are worth nothing there
    reference : its Events, of types that the detector knows

    Attributes
    ----------
    candidates, log_odds : everything that may be an event, and the log odds that it is
    """

    def __init__(self, detector, recording, reference):
        if len(reference) == 0:
            raise DataError("the reference has no events: there is nothing to choose thresholds by")
        self.detector, self.duration_s = detector, recording.duration_s
        self.reference = reference.at_rate(detector.sampling_rate_hz).with_names(detector.names)
        self.candidates = detector.candidates(recording)
        self.log_odds = detector.log_odds(self.candidates)
        self._curves: dict = {}

    def compare(self, thresholds, refractory_s: dict, tolerance_s: float):
        """The Comparison of the reference with the decision at these thresholds (E,), log odds, and periods, a dict."""
        chosen = replace(self.detector, refractory_s=dict(refractory_s))
        estimated = chosen.decode(self.candidates, self.log_odds, thresholds)
        return compare(self.reference, estimated, tolerance_s, refractory_s, self.duration_s)

    def curve(self, type: int, refractory_s: dict, tolerance_s: float):
        """Three (n,) arrays for one type (an index): rising thresholds in log odds, the precision and the recall."""
        key = (type, refractory_s[self.detector.names[type]], tolerance_s)
        if key not in self._curves:
            chosen = replace(self.detector, refractory_s=dict(refractory_s))
            rows = self.candidates.type == type
            candidates, log_odds = self.candidates[rows], self.log_odds[rows]
            reference = self.reference[self.reference.type == type]
            # Half of the steps evenly over the candidates, half evenly over the odds: curves bend at either.
            useful, n = log_odds[log_odds > -15], CURVE_POINTS // 2
            grid = [np.zeros(1)]
            if len(useful):
                grid += [np.quantile(useful, np.linspace(0, 1, n)), np.linspace(useful.min(), useful.max(), n)]
            thresholds = np.unique(np.concatenate(grid))
            reports = [compare(reference, chosen.decode(candidates, log_odds, t), tolerance_s) for t in thresholds]
            tp, n_estimated = np.array([(report.tp, report.n_estimated) for report in reports]).T
            self._curves[key] = thresholds, ratio(tp, n_estimated), ratio(tp, reports[0].n_reference)
        return self._curves[key]

    def best_threshold(self, type: int, refractory_s: dict, tolerance_s: float) -> float:
        """Log odds of the greatest F1 of one type, see `best_threshold`."""
        thresholds, precision, recall = self.curve(type, refractory_s, tolerance_s)
        f1 = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
        return best_threshold(thresholds, f1, plateau=1e-12)

    def is_event(self, type: int, tolerance_s: float):
        """(n,) booleans: which candidates of one type lie within the tolerance of a reference event of that type."""
        time = self.reference.time_samples[self.reference.type == type]
        at = self.candidates.time[self.candidates.type == type]
        return distance_to_nearest(at, time) <= tolerance_s * self.detector.sampling_rate_hz + 0.5
