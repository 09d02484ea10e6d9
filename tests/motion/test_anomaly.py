"""Anomalies: what moves unlike all of training is told, about as many false alarms as promised, kept as numbers."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evlib.motion.anomaly import PASSES, AnomalyDetector, fit_anomaly, hidden_error, load_anomaly
from evlib.motion.train import fit_motion, pretrain_motion
from evlib.motion.windows import make_motion
from evlib.networks.transformer import SIZES, HashedWords
from evlib.signals.errors import DataError, OptionError

TEXT = HashedWords()


def people(seed=0, activities=("walking", "standing"), **options):
    return make_motion(**{"n_people": 5, "windows_per_activity": 10, "activities": activities, "seed": seed} | options)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "nano", {"d_model": 16, "num_heads": 2, "num_layers": 1})
        yield


@pytest.fixture(scope="module")
def start(small):
    return pretrain_motion([people()], [people(1)], 0.64, text=TEXT, max_epochs=6, contrastive_weight=0.0)


@pytest.fixture(scope="module")
def detector(start):
    return fit_anomaly(start, people(), false_alarm_rate=0.1)


def test_what_moves_differently_is_told(detector):
    normal = people(seed=3)
    for strange in ("lying", "running", "cycling"):
        other = people(seed=3, activities=(strange,))
        scores = np.r_[detector.scores(normal), detector.scores(other)]
        truth = np.repeat([False, True], [len(normal), len(other)])
        assert roc_auc_score(truth, scores) > 0.9, strange
        assert detector.predict(other).mean() > 0.8


def test_false_alarms_are_about_as_many_as_promised(start):
    """Calibrated on held-out people, counted on new ones; more are allowed where fewer were promised, never less."""
    normal, new = people(n_people=25), people(seed=5, n_people=25)
    shares = [fit_anomaly(start, normal, false_alarm_rate=rate).predict(new).mean() for rate in (0.02, 0.1, 0.3)]
    assert shares == sorted(shares) and shares[0] < 0.08 and 0.03 < shares[1] < 0.2 and 0.15 < shares[2] < 0.45


def test_each_token_is_predicted_once_without_being_seen(start):
    """A change of one patch of one channel moves its own error; the model never sees what it has to predict."""
    one = people()[:4]
    seen = []
    hook = start.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    hidden_error(start, one)
    hook.remove()
    assert len(seen) == PASSES and (sum(hidden.long() for hidden in seen) == 1).all()
    assert all(0.15 < hidden.float().mean() < 0.35 for hidden in seen)
    broken = replace(one, x=one.x.copy())
    broken.x[0, 64:96, 1] += 30.0
    before, after = hidden_error(start, one), hidden_error(start, broken)
    assert after[0] > before[0] + 0.1 and np.allclose(after[1:], before[1:], atol=1e-5)


def test_a_detector_comes_back_from_disk_and_finds_its_channels(detector, start, tmp_path):
    judge = people(seed=3)
    detector.save(tmp_path / "normal.pth")
    again = load_anomaly(tmp_path / "normal.pth", TEXT)
    turned = judge.with_channels(judge.channels[::-1])
    for other in (again.scores(judge), detector.scores(turned)):
        np.testing.assert_allclose(other, detector.scores(judge), atol=1e-4)
    assert again.threshold == detector.threshold
    start.save(tmp_path / "start.pth")
    with pytest.raises(DataError, match="holds no detector of anomalies"):
        load_anomaly(tmp_path / "start.pth", TEXT)


def test_promises_that_cannot_be_kept_are_refused(start, detector):
    some = people()
    for rate in (0.001, 0.0, 1.5, -1):
        with pytest.raises(OptionError, match="the 20 windows held out can promise 0.048 at best"):
            fit_anomaly(start, some, false_alarm_rate=rate)
    with pytest.raises(DataError, match="more than 20 windows"):
        fit_anomaly(start, some[::6], false_alarm_rate=0.5)
    words = fit_motion(some, 0.64, epochs=(1, 1), text=TEXT, size="nano")
    with pytest.raises(OptionError, match="a model of the first stage"):
        fit_anomaly(words, some)
    with pytest.raises(DataError, match="no numbers of a detector"):
        AnomalyDetector(start, some.channels, detector.normal[:, :3], detector.level, 0.0)
