"""Thresholds and F1 from development data: decided as in detection, whatever part of the events is labelled."""

import numpy as np
import pytest
from planted import RATE, make_templates, plant, table

from evlib.detection import methods
from evlib.detection.development import Judged, development_f1, fit_thresholds, label_share, look_alone
from evlib.detection.learned import lay_groundwork
from evlib.detection.prepare import prepare
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
        return decode_refractory(candidates.time, candidates.type, rise + 1e-9 * (rise >= 0), np.full(2, PERIOD))[0]


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
    judged = Judged([], [data], [])
    thresholds, f1 = fit_thresholds(Decider(), judged)
    assert (f1 == 1).all() and (thresholds > -3).all() and (thresholds < 1.5).all()
    assert development_f1(Decider(thresholds), judged) == 1
    assert development_f1(Decider((-4.0, -4.0)), judged) == pytest.approx(2 / 3)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_some_labels_among_many_events_say_what_all_would(share):
    rng = np.random.default_rng(3)
    n = 4000
    target = (rng.random(n) < 0.4).astype(float)
    llr = rng.normal(np.where(target > 0, 2.0, -2.0), 1.5)
    time, type = 1000.0 * np.arange(n), rng.integers(0, 2, n)
    known = target * (rng.random(n) < share)
    all_labels = Judged([], [examples(time, type, llr, target)], [])
    some_labels = Judged([], [examples(time, type, llr, known, weight=known, complete=False)], [])
    best, _ = fit_thresholds(Decider(), all_labels)
    chosen, _ = fit_thresholds(Decider(), some_labels)
    assert development_f1(Decider(chosen), all_labels) > development_f1(Decider(best), all_labels) - 0.01
    assert label_share(Decider(), some_labels) == pytest.approx(share, rel=0.2)
    assert label_share(Decider(), all_labels) == 1
    # Of two detectors that find the same labels, the one that finds less beside them is better.
    strict, lax = (development_f1(Decider((t, t)), some_labels, share=share) for t in (0.0, -3.0))
    assert strict > lax + 0.1


@pytest.mark.parametrize("gap", [40.0, 400.0])
def test_where_events_overlap_they_are_judged_alone_too(gap):
    """The filter knows no order: it finds held-out events that are cut out of their neighbours too."""
    templates, rng = make_templates(4, seed=1), np.random.default_rng(2)
    time, type = 400 + gap * np.arange(240) + rng.normal(0, 4, 240), np.arange(240) % 4
    signal = plant(templates, time, type, 15.0, int(time.max()) + 400, rng)
    pair = Recording(signal, RATE), table(time, type, templates.names)
    ground = lay_groundwork(prepare([pair], (), None, 0, 0.05), template_s=(0.01, 0.055))
    detector = methods.finished(ground, methods.matched_filter(ground), "matched_filter", None, 0)
    judged = look_alone(detector, ground, 0.005)
    if gap > ground.bank.length:
        assert judged is None and ground.alone == []
        return
    assert judged.n_real == len(ground.alone[0][1]) > 40
    assert development_f1(detector, judged) > 0.9
    both = methods._scores({"filter": detector}, ground, 0)["filter"][0]
    detector.thresholds += 1e6  # nothing is found
    assert methods._scores({"filter": detector}, ground, 0)["filter"][0] == 0 < both
