"""What a detector's thresholds and refractory periods are worth on development data, without looking at the signal again.

Candidates and their evidence do not depend on either: they are computed once, and every choice is a decoding.
"""

from dataclasses import replace

import numpy as np

from .errors import DataError
from .metrics import compare
from .scores import ratio
from .timebase import distance_to_nearest

# Thresholds on the curve of one type.
CURVE_POINTS = 41


class Tuning:
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
        """Precision and recall of one type (an index) as its threshold rises: three (n,) arrays with the log odds first."""
        key = (type, refractory_s[self.detector.names[type]], tolerance_s)
        if key not in self._curves:
            chosen = replace(self.detector, refractory_s=dict(refractory_s))
            rows = self.candidates.type == type
            candidates, log_odds = self.candidates[rows], self.log_odds[rows]
            reference = self.reference[self.reference.type == type]
            # Half of the steps evenly over the candidates, half evenly over the odds: curves bend at either.
            useful = log_odds[log_odds > -15]
            n = CURVE_POINTS // 2
            grid = [np.quantile(useful, np.linspace(0, 1, n)), np.linspace(useful.min(), useful.max(), n)] if len(useful) else []
            thresholds = np.unique(np.concatenate([*grid, [0.0]]))
            counts = np.array([self._counts(chosen.decode(candidates, log_odds, t), reference, tolerance_s) for t in thresholds])
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
