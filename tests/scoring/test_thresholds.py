"""Thresholds against the best F1 that brute force finds; the sweep against detecting anew."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import RATE

import evlib
from evlib.scoring import thresholds as module
from evlib.scoring.thresholds import (
    BORROWED_EVENTS,
    PLATEAU,
    PLATEAU_EVENTS,
    ThresholdSweep,
    best_threshold,
    labelled_share,
    threshold_grid,
    unlabelled_false,
)
from evlib.signals.errors import DataError, OptionError
from evlib.signals.synthetic import make_templates

# Whole numbers lie in different cells of any grid over their range, so that brute force sees the same counts.
ROWS = st.lists(
    st.tuples(st.integers(-20, 20), st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 3.0])), min_size=1, max_size=40
)


def choose_thresholds(logit, type, target, weight, n_missed):
    """The thresholds of candidates that are all decided for when they are over them."""
    logit, target, weight = (np.asarray(values, float) for values in (logit, target, weight))
    grid, n_types = threshold_grid(logit, weight * target > 0), len(n_missed)
    over = (np.clip(logit, module.LOWEST, module.HIGHEST)[:, None] >= grid) * weight[:, None]
    own = np.equal(type, np.arange(n_types)[:, None]).astype(float)
    n_events = own @ (weight * target) + n_missed
    hits, false = own @ (over * target[:, None]), own @ (over * (1 - target)[:, None])
    return module.choose_thresholds(grid, n_events, hits, false, 0 * hits, 0 * hits)


def plateau(n_events):
    """The difference of F1 that does not count."""
    return max(PLATEAU, PLATEAU_EVENTS / max(n_events, 1))


def f1_at(threshold, logit, target, weight, missed):
    over = logit >= threshold
    hits, false = (weight * target)[over].sum(), (weight * (1 - target))[over].sum()
    total = (weight * target).sum() + missed
    return 2 * hits / max(hits + false + total, 1e-12)


@given(ROWS, st.integers(0, 5))
def test_one_type_gets_the_best_threshold(rows, missed):
    logit, target, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    thresholds = choose_thresholds(logit, np.zeros(len(rows), int), target, weight, np.array([missed]))
    best = max(f1_at(t, logit, target, weight, missed) for t in np.unique(logit))
    assert (
        f1_at(thresholds[0], logit, target, weight, missed) >= best - plateau((weight * target).sum() + missed) - 1e-9
    )
    assert logit.min() <= thresholds[0] <= logit.max()


@given(ROWS, ROWS, st.integers(0, 3))
def test_types_are_weighed_with_what_they_borrow(one, two, missed):
    """Brute force over both types, each with a share of the mean counts."""
    logit, target, weight = (np.array(column, dtype=float) for column in zip(*one, *two, strict=True))
    type = np.repeat([0, 1], [len(one), len(two)])
    thresholds = choose_thresholds(logit, type, target, weight, np.array([missed, 0]))
    equal = plateau((weight * target).sum() + missed)
    borrowed = BORROWED_EVENTS / max(((weight * target).sum() + missed) / 2, 1)
    for kind in (0, 1):
        factor = np.where(type == kind, 1 + borrowed / 2, borrowed / 2)
        own_missed = missed * ((1 + borrowed / 2) if kind == 0 else borrowed / 2)
        best = max(f1_at(t, logit, target, weight * factor, own_missed) for t in np.unique(logit))
        assert f1_at(thresholds[kind], logit, target, weight * factor, own_missed) >= best - equal - 1e-9


def test_a_rare_type_follows_the_others(rng):
    """Two examples, by chance far from where all others part, move a threshold little."""
    logit = rng.normal(np.repeat([-3.0, 3.0], 1000), 1.0)
    target, type = np.repeat([0, 1], 1000), rng.integers(0, 7, 2000)
    rare = np.array([4.9, 5.1]), np.array([0, 1]), np.array([7, 7])
    logit, target, type = (np.r_[a, b] for a, b in zip((logit, target, type), rare, strict=True))
    thresholds = choose_thresholds(logit, type, target, np.ones(2002), np.zeros(8))
    assert np.abs(thresholds[:7]).max() < 1.5
    assert abs(thresholds[7] - np.median(thresholds[:7])) < 1


@pytest.mark.parametrize("n_types", [1, 3])
@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("logits", [[], [2.0], [2.0, 2.0], [-1.0, 0.5, 3.0], [-500.0, 1.0, 900.0]])
def test_the_edges_stay_finite(n_types, target, logits):
    n = len(logits)
    for weight in (0.0, 1.0):
        truth = np.full(n, target), np.full(n, weight)
        thresholds = choose_thresholds(logits, np.zeros(n, int), *truth, np.zeros(n_types))
        assert thresholds.shape == (n_types,) and np.isfinite(thresholds).all()


def test_a_few_labels_among_many_events_choose_as_all_labels_would(rng):
    """Of all detections and of one event in ten that is labelled follows the threshold that all labels ask for."""
    target = np.repeat([0.0, 1.0], [6000, 2000])
    logit = rng.normal(np.repeat([-3.0, 1.0], [6000, 2000]), 1.5)
    known = (target > 0) & (rng.random(8000) < 0.1)
    all_labels = choose_thresholds(logit, np.zeros(8000, int), target, np.ones(8000), np.zeros(1))
    grid = threshold_grid(logit, known)
    found, recalled = (np.sum(logit[rows][:, None] >= grid, 0, dtype=float)[None] for rows in (slice(None), known))
    nothing = np.zeros_like(found)
    few_labels = module.choose_thresholds(grid, known.sum(keepdims=True), nothing, nothing, recalled, found)
    assert (
        abs(
            f1_at(few_labels[0], logit, target, np.ones(8000), 0)
            - f1_at(all_labels[0], logit, target, np.ones(8000), 0)
        )
        < 0.01
    )
    share = labelled_share(recalled, found)
    assert share[0] == pytest.approx(0.1, rel=0.2)
    false = unlabelled_false(recalled, found, share[:, None])
    assert (false >= 0).all() and false[0, 0] > false[0, -1]


def test_the_middle_of_the_best_nearest_to_even_odds():
    grid, f1 = np.arange(-4.0, 5.0), np.array([0, 1, 1, 0, 0.5, 1, 1, 1, 1.0])
    assert best_threshold(grid, f1) == -2.25  # the first of two maxima, -3 to -2
    assert best_threshold(grid, f1 + 0.001 * (grid > 0), plateau=0.1) == 1.75
    assert best_threshold(grid, f1 + 0.001 * (grid > 0), plateau=0.1, below=1) == 1.0
    assert best_threshold(grid, np.ones(9)) == 0.0


# ---- the sweep -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def development():
    """A baseline detector of three kinds, and a recording with its labels that it was not trained on."""
    templates = make_templates(3, seed=2)
    train, test = (evlib.make_recording(templates, 30.0, snr=6.0, seed=seed) for seed in (0, 1))
    return evlib.fit([tuple(train)], method="matched_filter", progress=False), test.recording, test.events


@pytest.fixture(scope="module")
def sweep(development):
    return ThresholdSweep(*development)


def test_every_choice_agrees_with_detecting_anew(development, sweep):
    detector, recording, reference = development
    for threshold, period, tolerance_s in ((0.2, 2.0, 0.005), (0.9, 0.5, 0.001)):
        logit = np.log(threshold / (1 - threshold))
        periods = dict.fromkeys(detector.names, period)
        found = evlib.detect(replace(detector, refractory_s=periods), recording, threshold)
        expected = evlib.compare(reference, found, tolerance_s)
        report = sweep.compare(np.full(3, logit), periods, tolerance_s)
        assert (report.tp, report.fp, report.fn) == (expected.tp, expected.fp, expected.fn)
        assert report.hours == pytest.approx(30 / 3600)
        assert report.refractory_violations()["estimated"] == 0


def test_the_curve_of_a_type_holds_what_each_threshold_gives(sweep, development):
    detector = development[0]
    thresholds, precision, recall = sweep.curve(1, detector.refractory_s, 0.005)
    for k in (0, len(thresholds) // 2, len(thresholds) - 1):
        row = sweep.compare(np.full(3, thresholds[k]), detector.refractory_s, 0.005).per_type().iloc[1]
        assert (row.precision, row.recall) == pytest.approx((precision[k], recall[k]), nan_ok=True)
    assert (np.diff(recall) <= 0.2).all() and recall[0] > recall[-1]
    best = sweep.best_threshold(1, detector.refractory_s, 0.005)
    f1 = [sweep.compare(np.full(3, t), detector.refractory_s, 0.005).per_type().f1.iloc[1] for t in (best, *thresholds)]
    assert f1[0] >= np.nanmax(f1) - 0.02


def test_candidates_at_labels_are_events(sweep, development):
    reference = development[2]
    for e in range(3):
        time = sweep.candidates.time[sweep.candidates.type == e]
        label = reference.time_samples[reference.type == e]
        expected = np.abs(time[:, None] - label).min(axis=1) <= 0.002 * RATE + 0.5
        assert np.array_equal(sweep.is_event(e, 0.002), expected)


def test_what_cannot_be_is_refused(development):
    detector, recording, reference = development
    with pytest.raises(DataError, match="no events"):
        ThresholdSweep(detector, recording, reference[:0])
    stranger = evlib.Events.from_seconds([1.0], ["whistle"], RATE)
    with pytest.raises(OptionError, match="whistle"):
        ThresholdSweep(detector, recording, stranger)
