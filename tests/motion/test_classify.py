"""A few labels: of other people and sensors, by weights that are kept as numbers, beside words that may be right more
often."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evlib.motion import classify
from evlib.motion.classify import ActivityClassifier, fit_classifier, load_classifier
from evlib.motion.train import fit_motion, pretrain_motion
from evlib.motion.windows import make_motion
from evlib.networks.transformer import SIZES, HashedWords
from evlib.signals.errors import DataError, OptionError
from evlib.training.linear import linear_logits, linear_probe, linear_weights

KINDS = ("walking", "running", "sitting")
TEXT = HashedWords()


def people(name="phone", seed=0, **options):
    return make_motion(name, **{"n_people": 3, "windows_per_activity": 6, "activities": KINDS, "seed": seed} | options)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "nano", {"d_model": 16, "num_heads": 2, "num_layers": 1})
        patch.setattr(classify, "EPOCHS", 12)
        patch.setattr(classify, "LR", 5e-3)
        yield


@pytest.fixture(scope="module")
def start(small):
    return pretrain_motion([people()], [people(seed=1)], 0.64, text=TEXT, max_epochs=2, contrastive_weight=0.0)


@pytest.fixture(scope="module")
def words(small):
    options = {"text": TEXT, "batch_size": 16, "contrastive_weight": 0.0, "size": "nano"}
    return fit_motion(people(n_people=5), 0.64, epochs=(2, 40), aligning_lr=5e-3, **options)


@pytest.mark.parametrize("full", [False, True])
def test_other_sensors_are_learned_from_few_labels_and_the_start_stays_as_it_was(start, full, tmp_path):
    """The encoder has seen a phone at 50 Hz; it reads a watch with a magnetometer at 100 Hz."""
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    watch = {"places": ("wrist",), "magnetometer": True, "sampling_rate_hz": 100.0}
    learn, judge = people("watch", 2, **watch), people("watch", 3, **watch)
    classifier = fit_classifier(start, learn, full=full)
    assert np.mean(classifier.predict(judge) == judge.labels) > 0.8, "chance is a third"
    assert all(torch.equal(before[name], value) for name, value in start.model.state_dict().items())
    turned = judge.with_channels(judge.channels[::-1])
    np.testing.assert_allclose(classifier.scores(turned), classifier.scores(judge), atol=1e-6)
    np.testing.assert_allclose(np.exp(classifier.scores(judge)).sum(1), 1.0)
    classifier.save(tmp_path / "watch.pth")
    again = load_classifier(tmp_path / "watch.pth", TEXT)
    assert np.array_equal(again.scores(judge), classifier.scores(judge)) and again.labels == classifier.labels
    with pytest.raises(OptionError, match="wrist_mag_x"):
        classifier.predict(people())


def test_words_decide_where_they_are_right_more_often(words):
    """At home one label of each says less than the words; where things have other names, the words are wrong."""
    home, judge = people(seed=5), people(seed=6)
    few = home[[np.flatnonzero(home.labels == kind)[0] for kind in KINDS]]
    assert fit_classifier(words, few).by_words
    other = dict(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True))
    there = [replace(one, labels=np.array([other[label] for label in one.labels])) for one in (home, judge)]
    classifier = fit_classifier(words, there[0])
    assert not classifier.by_words
    assert np.mean(classifier.predict(judge) == there[1].labels) > 0.8


def test_words_and_labels_come_back_from_disk(words, tmp_path):
    home = people(seed=5)
    classifier = replace(fit_classifier(words, home), by_words=True)
    classifier.save(tmp_path / "home.pth")
    again = load_classifier(tmp_path / "home.pth", TEXT)
    assert again.by_words and np.array_equal(again.scores(home), classifier.scores(home))
    assert np.array_equal(classifier.predict(home), words.predict(home, list(classifier.labels)))


@pytest.mark.parametrize("kinds", [2, 3])
@pytest.mark.parametrize("each", [1, 2, 5])
def test_weights_are_those_of_the_fitted_classifier(kinds, each):
    rng = np.random.default_rng(0)
    labels = np.repeat(list("abc")[:kinds], each)
    x = rng.normal(size=(len(labels), 8)) + 3 * np.searchsorted(list("abc"), labels)[:, None]
    fitted = linear_probe(labels).fit(x, labels)
    logits = linear_logits(x, linear_weights(fitted))
    assert np.array_equal(np.array(list("abc"))[logits.argmax(1)], fitted.predict(x))
    assert np.mean(fitted.predict(x) == labels) > 0.8, "two labels of each are enough for what is this far apart"


def test_what_is_no_classifier_is_refused(start, tmp_path):
    start.save(tmp_path / "start.pth")
    with pytest.raises(DataError, match="holds no classifier"):
        load_classifier(tmp_path / "start.pth", TEXT)
    some = people()
    for wrong in (replace(some, labels=()), replace(some, labels=np.repeat("one", len(some)))):
        with pytest.raises(DataError, match="labels of two kinds at least"):
            fit_classifier(start, wrong)
    with pytest.raises(DataError, match="the linear layer must be 289 x 2 finite numbers"):
        ActivityClassifier(start, np.zeros((3, 2)), ("a", "b"), some.channels)
