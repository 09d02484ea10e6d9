"""Calibration on development data: decided as in detection, whatever part of the events is labelled."""

from dataclasses import replace

import numpy as np
import pytest
from planted import RATE, make_templates, plant, table

from evlib.detection import methods
from evlib.detection.calibrate import (
    SOUND,
    HeldOut,
    best_thresholds,
    f1_scores,
    find_held_out,
    find_isolated,
    label_all,
    label_share,
    logistic_scale,
    timing_scale,
)
from evlib.detection.prepare import prepare
from evlib.detection.templates import whiten_and_learn
from evlib.scoring.refractory import decode_refractory
from evlib.signals.recording import Recording
from evlib.templates.hybrid import Examples
from evlib.templates.pursue import Candidates

PERIOD = 100.0


class Decider:
    """A detector of two kinds that takes the llr of candidates for their log odds."""

    names = ("a", "b")

    def __init__(self, thresholds=(0.0, 0.0)):
        self.thresholds = np.array(thresholds)

    def log_odds(self, candidates):
        return candidates.llr

    def keep(self, candidates, log_odds, thresholds=None):
        thresholds = self.thresholds if thresholds is None else np.broadcast_to(thresholds, 2)
        rise = log_odds - thresholds[candidates.type]
        return decode_refractory(candidates.time, candidates.type, rise + 1e-9 * (rise >= 0), np.full(2, PERIOD))


def f1(detector, held_out, **options):
    return f1_scores(detector, held_out, **options)[0]


def examples(time, type, llr, target, weight=None, complete=True):
    time, llr, target = (np.asarray(values, float) for values in (time, llr, target))
    ones = np.ones(len(time))
    candidates = Candidates(time, np.asarray(type), llr, llr, llr, ones, 0 * ones)
    return Examples(
        candidates, target, ones if weight is None else np.asarray(weight, float), np.zeros(2), ones * np.nan, complete
    )


def test_a_false_candidate_that_gives_way_asks_for_no_higher_threshold():
    """Each event has a false one beside it, nearly as strong; weak ones stand alone, and only those need a
    threshold."""
    n = 40
    true = np.arange(n) * 1000.0
    time, llr = np.r_[true, true + 50, true + 500], np.repeat([2.0, 1.5, -3.0], n)
    data = examples(time, np.arange(3 * n) % 2, llr, np.repeat([1, 0, 0], n))
    data.candidates.type[n : 2 * n] = data.candidates.type[:n]
    held_out = HeldOut([], [data], [])
    thresholds = best_thresholds(Decider(), held_out)
    assert (thresholds > -3).all() and (thresholds < 1.5).all()
    assert f1(Decider(thresholds), held_out) == 1
    assert f1(Decider((-4.0, -4.0)), held_out) == pytest.approx(2 / 3)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_some_labels_among_many_events_say_what_all_would(share):
    rng = np.random.default_rng(3)
    n = 4000
    target = (rng.random(n) < 0.4).astype(float)
    llr = rng.normal(np.where(target > 0, 2.0, -2.0), 1.5)
    time, type = 1000.0 * np.arange(n), rng.integers(0, 2, n)
    known = target * (rng.random(n) < share)
    all_labels = HeldOut([], [examples(time, type, llr, target)], [])
    some_labels = HeldOut([], [examples(time, type, llr, known, weight=known, complete=False)], [])
    best, chosen = (best_thresholds(Decider(), labels) for labels in (all_labels, some_labels))
    assert f1(Decider(chosen), all_labels) > f1(Decider(best), all_labels) - 0.01
    assert label_share(Decider(), some_labels) == pytest.approx(share, rel=0.2)
    assert label_share(Decider(), all_labels) == 1
    # Of two detectors that find the same labels, the one that finds less beside them is better.
    strict, lax = (f1(Decider((t, t)), some_labels, share=share) for t in (0.0, -3.0))
    assert strict > lax + 0.1


@pytest.mark.parametrize("gap", [40.0, 400.0])
def test_where_events_overlap_they_are_judged_one_at_a_time_too(gap):
    """The filter knows no order: it finds held-out events that are cut out of their neighbours too."""
    templates, rng = make_templates(4, seed=1), np.random.default_rng(2)
    time, type = 400 + gap * np.arange(240) + rng.normal(0, 4, 240), np.arange(240) % 4
    signal = plant(templates, time, type, 15.0, int(time.max()) + 400, rng)
    pair = Recording(signal, RATE), table(time, type, templates.names)
    learned = whiten_and_learn(prepare([pair], (), None, 0, 0.05), template_s=(0.01, 0.055))
    detector = methods.matched_filter(learned, methods.Options())
    isolated = find_isolated(detector, learned, 0.005)
    if gap > learned.bank.length:
        assert isolated is None and learned.isolated == []
        return
    assert isolated.n_real == len(learned.isolated[0][1]) > 40
    assert f1(detector, isolated) > 0.9
    both = methods._compared({"filter": detector}, learned)["filter"][0]
    deaf = replace(detector, thresholds=detector.thresholds + 1e6)  # it finds nothing
    assert methods._compared({"filter": deaf}, learned)["filter"][0] == 0 < both


def test_the_stated_sigma_follows_the_errors_of_development_data():
    """Errors twice as large as the bound: stated times are twice as doubtful."""

    class Bound(Decider):
        def timing_bound(self, candidates):
            return np.full(len(candidates), 0.1)

    n, rng = 400, np.random.default_rng(0)
    every = examples(1000.0 * np.arange(n), np.arange(n) % 2, np.full(n, 200.0), np.ones(n))
    every = replace(every, error=0.2 * rng.standard_normal(n))
    assert timing_scale(Bound(), HeldOut([], [every], []), np.zeros(2)) == pytest.approx(2, rel=0.12)
    few = Examples(every.candidates[:10], np.ones(10), np.ones(10), np.zeros(2), every.error[:10])
    assert timing_scale(Bound(), HeldOut([], [few], []), np.zeros(2)) == 1.0


def test_log_odds_are_made_true():
    rng = np.random.default_rng(0)
    n, odds = 20_000, 3 * rng.standard_normal(20_000)
    target = (rng.random(n) < 1 / (1 + np.exp(1 - 0.5 * odds))).astype(float)
    known = (rng.random(n) < 0.8).astype(float)

    def scale(odds, target):
        data = examples(np.arange(n), np.zeros(n, int), odds, target, known)
        return logistic_scale(HeldOut([], [data], []), lambda e: e.candidates.llr)

    assert scale(odds, np.where(known, target, 1.0)) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1, abs=0.06))
    assert scale(odds, np.ones(n)) == (1.0, 0.0)  # all alike
    assert scale(-odds, target) == (1.0, 0.0)  # higher odds are less likely true


def test_few_events_and_no_hybrid_recordings_choose_no_threshold():
    """A handful of events fits many thresholds; with hybrid recordings beside them, or more events, one is chosen."""
    few = examples([0.0, 1000.0, 2000.0], [0, 1, 0], [5.0, 5.0, -5.0], [1, 1, 0])
    assert best_thresholds(Decider(), HeldOut([], [few], [])).tolist() == [SOUND, SOUND]
    time, target = 1000.0 * np.arange(40), np.arange(40) % 2
    more = examples(time, np.arange(40) // 2 % 2, np.where(target, 5.0, 3.0), target)
    for held_out in (HeldOut([more], [few], []), HeldOut([], [more, few], [])):
        assert (best_thresholds(Decider(), held_out) > 3).all()


def test_what_lies_outside_of_labelled_spans_is_judged_apart():
    """Inside everything is known, outside only that the labels are events."""
    labelled = table([1000, 5000, 9000], [0, 1, 0], ("a", "b"))
    labelled = replace(labelled, labelled_spans=np.array([[0, 6000]]))
    ones = np.ones(4)
    candidates = Candidates(np.array([1000.0, 3000.0, 7000.0, 9000.0]), np.array([0, 1, 1, 0]), ones)
    inside, outside = label_all([candidates], [labelled], 0.005)
    assert inside.complete and inside.target.tolist() == [1, 0] and inside.weight.tolist() == [1, 1]
    assert inside.n_missed.sum() == 1, "the event at 5000"
    assert not outside.complete and outside.target.tolist() == [0, 1] and outside.weight.tolist() == [0, 1]
    (whole,) = label_all([candidates], [replace(labelled, labelled_spans=np.array([[0, 10_000]]))], 0.005)
    assert whole.complete and len(whole.target) == 4


class Blind(Decider):
    """A network that reads the signal, and does not take what templates make for events."""

    frames, classifier, uses_templates = "network", None, False

    def __init__(self, sees):
        super().__init__()
        self.sees = sees

    def candidates_in(self, signal):
        """Of a hybrid recording the events, or others."""
        time = signal if self.sees else signal + 500.0
        return Candidates(time, np.zeros(len(time), int), np.full(len(time), 3.0))


@pytest.mark.parametrize("sees", [True, False])
def test_hybrids_that_a_network_does_not_recognise_judge_nothing(sees):
    """``learned`` holds one real event, and draws hybrid recordings of 30."""
    real = replace(table([1000], [0], ("a", "b")), labelled_spans=np.array([[0, 4000]]))

    class Hybrids:
        rhythms = (False,)

        def enough(self, n):
            return n

        def draw(self, rng, find, strange):
            found = find(1000.0 * np.arange(30))
            target = (found.time % 1000 == 0).astype(float)
            missed = np.array([30 - target.sum(), 0.0])
            return Examples(found, target, np.ones(30), missed, np.full(30, np.nan), True)

    class Learned:
        signals, cache, hybrids = [np.array([1000.0])], {}, Hybrids()

        class data:
            train, development, seed, apart_samples = [real[:0]], [real], 0, np.full(2, PERIOD)

    held_out = find_held_out(Blind(sees), Learned, 0.005)
    assert bool(held_out.hybrid) == sees and held_out.n_real == 1
