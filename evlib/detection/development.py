"""What development data say of a detector: thresholds, how true its odds and its times are, and how good it is.

Development data are labels that took no part in training, and re-mixes of the recordings (`evlib.templates.hybrid`). A
network that reads the signal is judged by re-mixes only where there is nothing else: they are made of templates, and
would tell that templates are right.
"""

from dataclasses import dataclass

import numpy as np

from ..scoring.thresholds import choose_thresholds, labelled_share, threshold_grid, unlabelled_false
from ..templates.hybrid import label_examples
from ..templates.learn import nearest_label
from .fusion import learn_scale

# A candidate within this of a label stands for it, where labels are exact.
TOLERANCE_S = 0.005
# Labels scatter: so many of their standard deviations are tolerated, up to half a second.
TOLERATED_SIGMAS, LONGEST_TOLERANCE_S = 3.0, 0.5
N_REMIXES = 3
# Re-mixed development events weigh like this many real ones per type, when there are real ones.
REMIX_EVENTS = 20.0
# So many real development events say more of a network that reads the signal than re-mixes do.
ENOUGH_EVENTS = 10
# Shares of errors that are to lie within one and 1.96 stated standard deviations; so many errors are needed to tell.
COVERAGE, COVERED_SIGMAS, LEAST_ERRORS = (0.6827, 0.95), (1.0, 1.96), 50


@dataclass(eq=False)
class Judged:
    """Candidates of one detector in development data: in re-mixes, in recordings, and all candidates of each recording.

    ``remixed``, ``real``: lists of Examples; ``found``: Candidates of each recording that has labels, else None.
    """

    remixed: list
    real: list
    found: list

    @property
    def examples(self):
        return self.remixed + self.real

    @property
    def n_real(self):
        """Real development events."""
        return sum(float(examples.target.sum() + examples.n_missed.sum()) for examples in self.real)


def look(detector, ground, seed, tolerance_s) -> Judged:
    """Find the detector's candidates in development data, once for everything that is asked of them.

    Detectors that find the same candidates share them: thresholds and context change none.
    """
    data, remixer, looks = ground.data, ground.remixer, ground.looks.setdefault(_finder(detector), {})
    if "found" not in looks:
        parts = zip(ground.signals, data.train, data.development, strict=True)
        looks["found"] = [
            detector.find_in(s) if len(t) + len(t.labelled_spans) + len(h) + len(h.labelled_spans) else None
            for s, t, h in parts
        ]
    judged = Judged(
        [], real_examples(looks["found"], data.development, tolerance_s, data.apart_samples), looks["found"]
    )
    if detector.frames is None or judged.n_real < ENOUGH_EVENTS:
        if seed not in looks:
            # Half of them in rhythms that were not found: what holds there too is chosen.
            looks[seed] = [
                remixer.draw(np.random.default_rng([11, seed, k, strange]), detector.find_in, strange)
                for k in range(remixer.enough(N_REMIXES))
                for strange in remixer.rhythms
            ]
        judged.remixed = looks[seed]
    return judged


def _finder(detector):
    """What the candidates of a detector depend on, beside the groundwork."""
    pairs = detector.frames is not None and detector.hears_templates
    return detector.frames, detector.classifier, pairs, *((detector.same_event_s, detector.exact_s) if pairs else ())


def real_examples(found, labels, tolerance_s, apart_samples=None):
    """Candidates of recordings with what the labels say of them, where they say anything."""
    return [
        label_examples(candidates, table, max(1.0, tolerance_s * table.sampling_rate_hz) + 0.5, apart_samples)
        for candidates, table in zip(found, labels, strict=True)
        if len(table) + len(table.labelled_spans)
    ]


def look_alone(detector, ground, tolerance_s):
    """The same for held-out events that are cut out of their neighbours and happen one at a time; None where none
    overlap.

    Where events always overlap in the same order, a network learns the order with them, and the same recording cannot
    tell.
    """
    if sum(len(table) for _, table in ground.alone) < ENOUGH_EVENTS:
        return None
    looks = ground.looks.setdefault(_finder(detector), {})
    if "alone" not in looks:
        looks["alone"] = [detector.find_in(signal) for signal, _ in ground.alone]
    labels = [table for _, table in ground.alone]
    return Judged([], real_examples(looks["alone"], labels, tolerance_s, ground.data.apart_samples), looks["alone"])


def fit_thresholds(detector, judged):
    """Best thresholds on development data; re-mixes weigh little where there is real data."""
    parts = weighed(judged, len(detector.names))
    if not parts:
        return np.zeros(len(detector.names)), np.full(len(detector.names), np.nan)
    grid, counts = _sweep(detector, parts)
    return choose_thresholds(grid, counts[0], counts[1], _n_events(parts, len(detector.names)), *counts[2:])


def _sweep(detector, parts):
    """Thresholds worth a try (G,), and what `_tally` counts at each of them, (4, E, G)."""
    odds = [detector.log_odds(examples.candidates) for examples, _ in parts]
    is_true = np.concatenate([examples.target * examples.weight > 0 for examples, _ in parts])
    grid = threshold_grid(np.concatenate(odds), is_true)
    return grid, np.stack([_tally(detector, parts, odds, threshold) for threshold in grid], -1)


def _tally(detector, parts, odds, thresholds=None):
    """(4, E) of what the detector decides for: true and false ones, and where only some events are labelled, those and
    all.

    A false candidate that gives way to a true one nearby, as the refractory rule wants it, does no harm and is not
    counted.
    """
    counts, n_types = np.zeros((4, len(detector.names))), len(detector.names)
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


def weighed(judged, n_types):
    """(Examples, weight) of everything."""
    n_real, n_remixed = judged.n_real, sum(float(examples.target.sum()) for examples in judged.remixed)
    share = min(1.0, REMIX_EVENTS * n_types / max(n_remixed, 1.0)) if n_real else 1.0
    return [(examples, share) for examples in judged.remixed] + [(examples, 1.0) for examples in judged.real]


def development_f1(detector, judged, real_only=False, share=None):
    """F1 over all types of what the detector decides in development data.

    ``share`` of events that is labelled where not all are; by default what the detector itself finds of it.
    """
    hits, false, n_events = (values.sum() for values in _decided(detector, judged, real_only, share))
    return 2 * hits / max(hits + false + n_events, 1e-12)


def f1_by_type(detector, judged):
    """(E,) the F1 of each type, NaN where development data have none of it."""
    hits, false, n_events = _decided(detector, judged, False, None)
    return np.where(n_events > 0, 2 * hits / np.maximum(hits + false + n_events, 1e-12), np.nan)


def _decided(detector, judged, real_only, share):
    """True and false detections and events of each type, three (E,)."""
    parts = [part for part in weighed(judged, len(detector.names)) if not real_only or part[0] in judged.real]
    odds = [detector.log_odds(examples.candidates) for examples, _ in parts]
    hits, false, recalled, found = _tally(detector, parts, odds)
    share = label_share(detector, judged) if share is None else share
    return hits + recalled, false + unlabelled_false(recalled, found, share), _n_events(parts, len(detector.names))


def label_share(detector, judged):
    """The share of events that is labelled in development recordings that are labelled in part, as the detector finds
    it."""
    parts = [(examples, 1.0) for examples in judged.real if not examples.complete]
    if not parts:
        return 1.0
    _, counts = _sweep(detector, parts)
    return float(labelled_share(*counts[2:].sum(1)))


def calibration(detector, judged):
    """Slope and offset of the detector's log odds by `fusion.learn_scale`.

    Windows, in which a type is rare and present only as a whole, teach a classifier other odds than those of its
    candidates.
    """
    odds = np.concatenate([detector.log_odds(examples.candidates) for examples in judged.examples])
    return learn_scale(
        odds, *(np.concatenate([getattr(e, name) for e in judged.examples]) for name in ("target", "weight"))
    )


def timing_scale(detector, judged):
    """What the Cramer-Rao bound must be multiplied with to cover 68 and 95 % of the errors of detections.

    Overlaps and doubtful events err by more than the bound, some by a whole oscillation: one factor cannot serve both
    levels exactly, so it is the geometric mean of the two.
    """
    ratios = [np.zeros(0)]
    for examples in judged.examples:
        kept = detector.log_odds(examples.candidates) >= detector.thresholds[examples.candidates.type]
        kept &= np.isfinite(examples.error)
        ratios.append(np.abs(examples.error[kept]) / detector.timing_bound(examples.candidates[kept]))
    ratios = np.concatenate(ratios)
    if len(ratios) < LEAST_ERRORS:
        return 1.0
    return float(np.sqrt(np.prod(np.quantile(ratios, COVERAGE) / COVERED_SIGMAS)))


def timing_error(detector, found, labels, jitter):
    """What detections scatter around labels beyond what they should, in seconds (robust)."""
    errors, bounds = label_errors(found, labels, max(2.0, 4 * jitter, 2 * detector.frame_samples), detector)
    if len(errors) < 5:
        return 0.0
    scatter = np.median(np.abs(errors)) / 0.6745
    return float(np.sqrt(max(scatter**2 - np.median(bounds) ** 2, 0.0)) / labels[0].sampling_rate_hz)


def label_errors(found, labels, reach, detector):
    """Candidate minus label (n,) in samples for labels with a candidate within ``reach`` samples, and the bounds
    stated."""
    errors, bounds = [np.zeros(0)], [np.zeros(0)]
    for candidates, table in zip(found, labels, strict=True):
        if len(table) and candidates is not None:
            row, _, distance = nearest_label(candidates, table, reach)
            errors.append(distance)
            bounds.append(detector.timing_scale * detector.timing_bound(candidates[row]))
    return np.concatenate(errors), np.concatenate(bounds)
