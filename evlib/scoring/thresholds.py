"""Per-type thresholds that give the best F1 on development examples."""

from dataclasses import replace

import numpy as np

from ..signals.clock import distance_to_nearest
from ..signals.errors import DataError
from .comparison import compare
from .statistics import ratio

# Pooled counts that every type borrows, worth so many events: a type with few events of its own follows the others.
BORROWED_EVENTS = 20.0
# Thresholds whose F1 is this close to the best, or that decide otherwise of less than half an event, count as equal; of
# the middle half of them, the nearest to even odds is taken, where calibrated log odds have their best F1.
PLATEAU, PLATEAU_EVENTS = 0.002, 0.5
# Thresholds that are tried, evenly from the weakest true candidates to three quarters of them; a few reach to the
# strongest, and a few below them all.
GRID, BELOW, WEAKEST, STRONG = 96, 8, 0.002, (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
# Share of the labels found at best that must be found to tell what share of events they are.
TELLING = 0.8
# Log odds beyond these are as certain as can be.
LOWEST, HIGHEST = -30.0, 60.0


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


def choose_thresholds(grid, hits, false, n_events, recalled=None, found=None):
    """Thresholds (E,) and the F1 per type (E,) that they reach.

    Parameters
    ----------
    grid : (G,) thresholds, sorted
    hits, false : (E, G) true and false detections at each of them in what is labelled completely
    n_events : (E,) labelled events, there and elsewhere
    recalled, found : (E, G) labelled events that are detected, and all detections, where only some events are labelled;
        see `unlabelled_false`
    """
    plateau = max(PLATEAU, PLATEAU_EVENTS / max(np.sum(n_events), 1.0))
    borrowed = BORROWED_EVENTS / max(np.mean(n_events), 1.0)
    recalled, found = (np.zeros(np.shape(hits)) if part is None else part for part in (recalled, found))
    hits, false, n_events, recalled, found = (
        counts + borrowed * np.mean(counts, 0) for counts in (hits, false, n_events, recalled, found)
    )
    hits, false = hits + recalled, false + unlabelled_false(recalled, found, labelled_share(recalled, found)[:, None])
    f1 = 2 * hits / np.maximum(hits + false + n_events[:, None], 1e-12)
    good = f1 >= f1.max(axis=1, keepdims=True) - plateau
    # The plateau that holds the maximum, not a second one elsewhere.
    best = f1.argmax(axis=1)
    thresholds = np.empty(len(f1))
    for e in range(len(f1)):
        outside = np.flatnonzero(~good[e])
        first = outside[outside < best[e]].max(initial=-1) + 1
        last = outside[outside > best[e]].min(initial=len(grid)) - 1
        # Between two neighbours on the grid the lower of which is too low all values do the same.
        low, high = grid[max(first - 1, 0)], grid[last]
        margin = 0.25 * (high - low)
        thresholds[e] = np.clip(0.0, low + margin, high - margin)
    return thresholds, f1[np.arange(len(f1)), best]


def labelled_share(recalled, found):
    """(...,) the share of events that is labelled: of detections at the threshold where most are labelled.

    ``recalled``, ``found``: (..., G). Strict thresholds, which find much less than is found at best, leave too few to
    tell.
    """
    enough = recalled >= TELLING * recalled.max(-1, keepdims=True)
    return np.where(enough, recalled / np.maximum(found, 1e-12), 0).max(-1)


def unlabelled_false(recalled, found, share):
    """False detections where only a ``share`` of events is labelled, counted as if they were as rare as the labels.

    If all detections were true, the labelled ones among them would be that share of them; what they are fewer is false.
    Source: Lee and Liu (ICML 2003), precision and recall from positive and unlabelled examples.
    """
    return np.maximum(found * share - recalled, 0)


# --- What a detector's thresholds and refractory periods are worth on development data, without looking at the sign


# Thresholds on the curve of one type.
CURVE_POINTS = 41


class ThresholdSweep:
    """Candidates of a recording, and what would come of them.

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
        self._curves = {}

    def compare(self, thresholds, refractory_s, tolerance_s):
        """The Comparison of the reference with the decision at these thresholds (E,), log odds, and periods, a dict."""
        chosen = replace(self.detector, refractory_s=dict(refractory_s))
        estimated = chosen.decode(self.candidates, self.log_odds, thresholds)
        return compare(self.reference, estimated, tolerance_s, refractory_s, self.duration_s)

    def curve(self, type, refractory_s, tolerance_s):
        """Precision and recall of one type (an index) as its threshold rises: three (n,) arrays with the log odds
        first."""
        key = (type, refractory_s[self.detector.names[type]], tolerance_s)
        if key not in self._curves:
            chosen = replace(self.detector, refractory_s=dict(refractory_s))
            rows = self.candidates.type == type
            candidates, log_odds = self.candidates[rows], self.log_odds[rows]
            reference = self.reference[self.reference.type == type]
            # Half of the steps evenly over the candidates, half evenly over the odds: curves bend at either.
            useful = log_odds[log_odds > -15]
            n = CURVE_POINTS // 2
            grid = (
                [np.quantile(useful, np.linspace(0, 1, n)), np.linspace(useful.min(), useful.max(), n)]
                if len(useful)
                else []
            )
            thresholds = np.unique(np.concatenate([*grid, [0.0]]))
            counts = np.array(
                [self._counts(chosen.decode(candidates, log_odds, t), reference, tolerance_s) for t in thresholds]
            )
            self._curves[key] = thresholds, ratio(counts[:, 0], counts[:, 1]), ratio(counts[:, 0], counts[:, 2])
        return self._curves[key]

    def best_threshold(self, type, refractory_s, tolerance_s):
        """Log odds of the greatest F1 of one type; of neighbours that are equal, the middle."""
        thresholds, precision, recall = self.curve(type, refractory_s, tolerance_s)
        precision, recall = np.nan_to_num(precision), np.nan_to_num(recall)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        last = best[np.flatnonzero(np.diff(best, append=len(f1) + 1) > 1)[0]]
        return float(thresholds[[best[0], last]].mean())

    def is_event(self, type, tolerance_s):
        """(n,) booleans: which candidates of one type lie within the tolerance of a reference event of that type."""
        time = self.reference.time_samples[self.reference.type == type]
        at = self.candidates.time[self.candidates.type == type]
        return distance_to_nearest(at, time) <= tolerance_s * self.detector.sampling_rate_hz + 0.5

    def _counts(self, estimated, reference, tolerance_s):
        report = compare(reference, estimated, tolerance_s, duration_s=self.duration_s)
        return report.tp, report.n_estimated, report.n_reference
