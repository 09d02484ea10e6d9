"""Calibration on development data: thresholds, true log odds, true timing errors, and how good a detector is.

Development data are labels that took no part in training, and hybrid recordings (`evlib.templates.hybrid`). Hybrid
recordings are made of templates and would favour them: a network that reads the signal is judged by them only where
there are hardly any labels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..scoring.thresholds import choose_thresholds, labelled_share, threshold_grid, unlabelled_false
from ..signals.clock import split_time
from ..signals.streams import stream
from ..templates.hybrid import label_examples
from ..templates.learn import nearest_label
from .detector import Detector

# Seconds: a candidate within this of a label stands for it, where labels are exact.
TOLERANCE_S = 0.005
# Where labels scatter, this many of their standard deviations are tolerated, up to this many seconds.
TOLERATED_SIGMAS, LONGEST_TOLERANCE_S = 3.0, 0.5
# Hybrid recordings of full length, of each kind of rhythm.
N_HYBRIDS = 3
# Where there are real development events, those of hybrid recordings together weigh like this many of each type.
HYBRID_EVENTS = 20.0
# From this many real development events on, a network that reads the signal is judged by them alone.
ENOUGH_EVENTS = 10
# Hybrid recordings say nothing about a network that reads the signal if its best F1 in them is lower: it does not take
# what templates make for events. Then the few labels that there are judge it alone.
RECOGNISED = 0.5
# Where neither hybrid recordings nor enough events say more, its threshold in log odds: true odds have their best F1 at
# half of that F1, 0.38 for 0.75.
SOUND = -0.5
# Shares of errors that lie within one and 1.96 standard deviations of a normal distribution, and the fewest errors that
# a timing scale is estimated from.
COVERAGE, COVERED_SIGMAS, FEWEST_ERRORS = (0.6827, 0.95), (1.0, 1.96), 50


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Candidates of one detector in development data.

    ``hybrid``, ``real`` : lists of Examples, from hybrid recordings and from labels; ``found`` : all Candidates of each
    recording, None for recordings without labels; ``tolerance_s`` : how far they may be from labels
    """

    hybrid: list
    real: list
    found: list
    tolerance_s: float = TOLERANCE_S

    @property
    def examples(self) -> list:
        """All of them."""
        return self.hybrid + self.real

    @property
    def n_real(self) -> float:
        """Real development events."""
        return sum(float(examples.target.sum() + examples.n_missed.sum()) for examples in self.real)


def find_held_out(detector: Detector, learned, tolerance_s: float) -> HeldOut:
    """The detector's candidates in development data.

    Detectors that find the same candidates share them: thresholds and context change none.
    """
    data, cache = learned.data, _cache(detector, learned)
    if "found" not in cache:
        parts = zip(learned.signals, data.train, data.development, strict=True)
        cache["found"] = [
            detector.candidates_in(signal) if any(len(t) + len(t.labelled_spans) for t in tables) else None
            for signal, *tables in parts
        ]
    real = label_all(cache["found"], data.development, tolerance_s, data.apart_samples)
    held_out = HeldOut([], real, cache["found"], tolerance_s)
    if detector.frames is not None and held_out.n_real >= ENOUGH_EVENTS:
        return held_out
    if "hybrid" not in cache:
        # Half of them in rhythms that were not found: what is chosen has to hold there too.
        hybrids, purpose = learned.hybrids, "hybrid recordings for development"
        cache["hybrid"] = [
            hybrids.draw(stream(purpose, data.seed, k, strange), detector.candidates_in, strange)
            for k in range(hybrids.enough(N_HYBRIDS))
            for strange in hybrids.rhythms
        ]
        if detector.frames is not None and held_out.n_real:
            hybrid = HeldOut(cache["hybrid"], [], [], tolerance_s)
            if f1_scores(detector, hybrid, best_thresholds(detector, hybrid))[0] < RECOGNISED:
                cache["hybrid"] = []
    return replace(held_out, hybrid=cache["hybrid"])


def find_isolated(detector: Detector, learned, tolerance_s: float) -> HeldOut | None:
    """The same for held-out events that are cut out of their neighbours and happen one at a time; None where no events
    overlap.

    Where events always overlap in the same order, a network learns the order too, which recordings alone do not show.
    """
    labels = [table for _, table in learned.isolated]
    if sum(map(len, labels)) < ENOUGH_EVENTS:
        return None
    cache = _cache(detector, learned)
    if "isolated" not in cache:
        cache["isolated"] = [detector.candidates_in(signal) for signal, _ in learned.isolated]
    real = label_all(cache["isolated"], labels, tolerance_s, learned.data.apart_samples)
    return HeldOut([], real, cache["isolated"], tolerance_s)


def _cache(detector, learned):
    """What was found before by what finds the detector's candidates, beside the learned templates."""
    both = detector.frames is not None and detector.uses_templates
    key = detector.frames, detector.classifier, both, *((detector.same_event_s, detector.exact_s) if both else ())
    return learned.cache.setdefault(key, {})


def label_all(found, labels, tolerance_s: float, apart_samples=None) -> list:
    """Examples of each recording that has labels: candidates with what the labels say about them; where labels stand
    outside of labelled spans too, what is inside and what is outside apart."""
    return [
        label_examples(some, own, max(1.0, tolerance_s * own.sampling_rate_hz) + 0.5, apart_samples)
        for candidates, table in zip(found, labels, strict=True)
        if len(table) + len(table.labelled_spans)
        for some, own in _inside_and_outside(candidates, table)
    ]


def _inside_and_outside(candidates, table):
    """Candidates and labels in labelled spans, and those outside of them, where labels stand in both."""
    known = table.is_labelled(table.sample)
    if known.all() or not len(table.labelled_spans):
        return [(candidates, table)]
    near = table.is_labelled(split_time(candidates.time)[0])
    outside = replace(table[~known], labelled_spans=table.labelled_spans[:0])
    return [(candidates[near], table[known]), (candidates[~near], outside)]


def best_thresholds(detector: Detector, held_out: HeldOut) -> np.ndarray:
    """(E,) the thresholds with the best F1 on development data; hybrid recordings weigh little where there are
    labels."""
    n_types = len(detector.names)
    parts = _weighed(held_out, n_types)
    if not parts:
        return np.zeros(n_types)
    if not held_out.hybrid and held_out.n_real < ENOUGH_EVENTS:
        return np.full(n_types, SOUND)
    grid, counts = _sweep(detector, parts)
    return choose_thresholds(grid, _n_events(parts, n_types), *counts)


def _weighed(held_out, n_types, real_only=False):
    """(Examples, weight) of everything."""
    real = [(examples, 1.0) for examples in held_out.real]
    if real_only:
        return real
    n_hybrid = sum(float(examples.target.sum()) for examples in held_out.hybrid)
    share = min(1.0, HYBRID_EVENTS * n_types / max(n_hybrid, 1.0)) if held_out.n_real else 1.0
    return [(examples, share) for examples in held_out.hybrid] + real


def _sweep(detector, parts):
    """Thresholds to try (G,), and what `_tally` counts at each of them, (4, E, G)."""
    odds = [detector.log_odds(examples.candidates) for examples, _ in parts]
    is_true = np.concatenate([examples.target * examples.weight > 0 for examples, _ in parts])
    grid = threshold_grid(np.concatenate(odds), is_true)
    return grid, np.stack([_tally(detector, parts, odds, threshold) for threshold in grid], -1)


def _tally(detector, parts, odds, thresholds):
    """(4, E) true and false detections where all events are labelled; true and all ones where only some are.

    A false candidate that the refractory rule drops beside a true one does no harm and is not counted.
    """
    n_types = len(detector.names)
    counts = np.zeros((4, n_types))
    for (examples, factor), value in zip(parts, odds, strict=True):
        kept = detector.keep(examples.candidates, value, thresholds)
        type, weight, target = examples.candidates.type[kept], examples.weight[kept] * factor, examples.target[kept]
        hits = np.bincount(type, weight * target, n_types)
        if examples.complete:
            counts[:2] += hits, np.bincount(type, weight * (1 - target), n_types)
        else:
            counts[2:] += hits, factor * np.bincount(type, minlength=n_types)
    return counts


def _n_events(parts, n_types):
    """(E,) labelled events, found or not."""
    return sum(
        factor * (np.bincount(e.candidates.type, e.weight * e.target, n_types) + e.n_missed) for e, factor in parts
    )


def f1_scores(detector: Detector, held_out: HeldOut, thresholds=None, real_only=False, share: float | None = None):
    """F1 on development data: over all types together, and of each type (E,), NaN for types without events.

    ``thresholds`` : default: the detector's; ``share`` : of events that is labelled where not all are; default: as the
    detector itself finds it
    """
    parts = _weighed(held_out, len(detector.names), real_only)
    odds = [detector.log_odds(examples.candidates) for examples, _ in parts]
    hits, false, recalled, found = _tally(detector, parts, odds, thresholds)
    share = label_share(detector, held_out) if share is None else share
    hits, false = hits + recalled, false + unlabelled_false(recalled, found, share)
    n_events = _n_events(parts, len(detector.names))
    total = 2 * hits.sum() / max(hits.sum() + false.sum() + n_events.sum(), 1e-12)
    return total, np.where(n_events > 0, 2 * hits / np.maximum(hits + false + n_events, 1e-12), np.nan)


def label_share(detector: Detector, held_out: HeldOut) -> float:
    """The share of events that is labelled in recordings that are labelled in part, as the detector finds it."""
    parts = [(examples, 1.0) for examples in held_out.real if not examples.complete]
    return float(labelled_share(*_sweep(detector, parts)[1][2:].sum(1))) if parts else 1.0


def logistic_scale(held_out: HeldOut, odds: Callable, weight: Callable = lambda e: e.weight) -> tuple[float, float]:
    """Slope and offset that make log odds of development candidates true (Platt's logistic fit).

    ``odds``, ``weight`` : of Examples, (n,) log odds, and 0 where their truth is unknown. (1, 0) where nothing can be
    learned: all are alike, or higher log odds are less likely true.
    """
    from sklearn.linear_model import LogisticRegression

    parts = [(odds(e), e.target, weight(e)) for e in held_out.examples]
    log_odds, target, weights = map(np.concatenate, zip(*parts, strict=True))
    known = weights > 0
    if len(np.unique(target[known])) < 2:
        return 1.0, 0.0
    model = LogisticRegression(C=10.0).fit(log_odds[known, None], target[known] > 0.5, weights[known])
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)


def timing_scale(detector: Detector, held_out: HeldOut, thresholds: np.ndarray) -> float:
    """The factor by which the Cramer-Rao bound covers 68 and 95 % of the timing errors of detections.

    Overlapping and doubtful events have larger errors than the bound, some of a whole oscillation: one factor cannot
    be exact at both levels, so it is the geometric mean of the two.
    """
    ratios = [np.zeros(0)]
    for examples in held_out.examples:
        kept = detector.log_odds(examples.candidates) >= thresholds[examples.candidates.type]
        kept &= np.isfinite(examples.error)
        ratios.append(np.abs(examples.error[kept]) / detector.timing_bound(examples.candidates[kept]))
    every = np.concatenate(ratios)
    if len(every) < FEWEST_ERRORS:
        return 1.0
    return float(np.sqrt(np.prod(np.quantile(every, COVERAGE) / COVERED_SIGMAS)))


def timing_error_s(detector: Detector, found, labels, jitter: float, scale: float) -> float:
    """How much more candidates scatter around labels than the bound times ``scale``, in seconds (robust)."""
    errors, bounds = label_errors(found, labels, max(2.0, 4 * jitter, 2 * detector.frame_samples), detector)
    if len(errors) < 5:
        return 0.0
    scatter = np.median(np.abs(errors)) / 0.6745
    return float(np.sqrt(max(scatter**2 - np.median(scale * bounds) ** 2, 0.0)) / labels[0].sampling_rate_hz)


def label_errors(found, labels, reach: float, detector: Detector):
    """Candidate minus label (n,) in samples, for labels with a candidate within ``reach`` samples, and the
    Cramer-Rao bounds (n,)."""
    errors, bounds = [np.zeros(0)], [np.zeros(0)]
    for candidates, table in zip(found, labels, strict=True):
        if len(table) and candidates is not None:
            row, _, distance = nearest_label(candidates, table, reach)
            errors.append(distance)
            bounds.append(detector.timing_bound(candidates[row]))
    return np.concatenate(errors), np.concatenate(bounds)
