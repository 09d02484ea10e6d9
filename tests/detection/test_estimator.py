"""The estimator: what scikit-learn expects of one, cross-validation by recording, and a score by hand."""

import inspect

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score

import evlib
from evlib import EventDetector
from evlib.signals.errors import DataError, EvlibError, OptionError, ShapeError
from evlib.signals.events import Events
from evlib.signals.recording import Recording

RATE = 500.0
NONE = Events.empty(["a", "b"], RATE)


def simulated(seed, n=20):
    """A recording of two channels with two kinds of events, half a second apart."""
    rng, sample = np.random.default_rng(seed), np.arange(100, 100 + 250 * n, 250)
    signal = rng.normal(size=(sample[-1] + 200, 2))
    for k, first in enumerate(sample):
        wave = np.sin(2 * np.pi * (1 + 2 * (k % 2)) * np.arange(20) / 20)
        signal[first : first + 20] += 9 * wave[:, None] * [1, (-1) ** k]
    return Recording(signal, RATE, ("x", "y")), Events.from_seconds(sample / RATE, ["a", "b"] * (n // 2), RATE)


@pytest.fixture(scope="module")
def data():
    X, y = zip(*map(simulated, range(3)), strict=True)
    return list(X), list(y)


OPTIONS = {"refractory_s": 0.2, "tolerance_s": 0.01}
ESTIMATOR = EventDetector("matched_filter", **OPTIONS)


def test_its_options_are_those_of_fit():
    asked = set(inspect.signature(evlib.fit).parameters) - {"pairs", "unlabelled", "progress"}
    assert set(EventDetector().get_params()) == asked | {"threshold", "adapt"}
    defaults = {name: one.default for name, one in inspect.signature(evlib.fit).parameters.items() if name in asked}
    assert defaults.items() <= EventDetector().get_params().items()


def test_clones_have_the_options_and_nothing_that_was_learned(data):
    fitted = clone(ESTIMATOR).fit(data[0][:1], data[1][:1])
    again = clone(fitted.set_params(seed=3))
    assert again.get_params() == fitted.get_params() and again.seed == 3 and not hasattr(again, "detector_")
    with pytest.raises(NotFittedError):
        again.predict(data[0])


def test_it_fits_and_detects_as_the_functions_do(data):
    (X, y), options = data, {"progress": False, **OPTIONS}
    detector = evlib.fit([(X[0], y[0])], "matched_filter", unlabelled=[X[1]], **options)
    found = clone(ESTIMATOR).fit(X[:2], [y[0], None]).predict(X[2:])
    expected = evlib.detect(detector, X[2])
    assert found[0].type_names == expected.type_names and np.array_equal(found[0].onset_s, expected.onset_s)


def test_cross_validation_by_recording(data):
    scores = cross_val_score(ESTIMATOR, *data, groups=["night 1", "night 1", "night 2"], cv=GroupKFold(2))
    assert len(scores) == 2 and (scores > 0.9).all()


def test_search_over_options(data):
    choices = {"threshold": [0.5, {"a": 1e-9, "b": 2.0}]}
    search = GridSearchCV(ESTIMATOR, choices, cv=GroupKFold(2), refit=False)
    with pytest.warns(UserWarning, match="non-finite"):  # a probability of 2 cannot be
        search.fit(*(part[:2] for part in data), groups=[0, 1])
    first, second = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"threshold": 0.5} and first > 0.9 and np.isnan(second)


def test_the_score_is_the_mean_of_types_over_all_recordings(data, monkeypatch):
    X, y = data
    estimator = clone(ESTIMATOR)
    found = [y[0][y[0].type == 0], y[1], NONE]
    monkeypatch.setattr(estimator, "predict", lambda X: found)
    # Of 30 events of each type, 20 of "a" and 10 of "b" are found.
    assert estimator.score(X, y) == pytest.approx((2 * 20 / 50 + 2 * 10 / 40) / 2)
    with pytest.raises(DataError, match="no event to find"):
        estimator.score(X, [NONE] * 3)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda X, y: (X[0], y), OptionError, "write .recording."),
        (lambda X, y: (np.zeros((3, 100)), y), OptionError, "X must be a list of evlib.Recording"),
        (lambda X, y: (X, y[0]), OptionError, "y must be a list of evlib.Events"),
        (lambda X, y: (X, y[:2]), ShapeError, "got 3 and 2"),
        (lambda X, y: (X, [None] * 3), EvlibError, "event"),
    ],
)
def test_lists_that_do_not_fit(data, change, error, words):
    with pytest.raises(error, match=words):
        clone(ESTIMATOR).fit(*change(*data))


def test_a_recording_without_labels_has_no_score(data):
    with pytest.raises(OptionError, match="without labels cannot be scored"):
        ESTIMATOR.score(data[0], [*data[1][:2], None])
