"""Segmentation: decoding against all possible sequences, sessions of other people, units, rates and gaps."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest

from evlib.motion import segment as segmentation
from evlib.motion.segment import FRAMES, decode_segments, fit_segmenter, load_segmenter, sliding_segments
from evlib.motion.train import pretrain_motion
from evlib.motion.windows import join_windows, make_motion
from evlib.networks.transformer import SIZES, HashedWords
from evlib.scoring.segments import compare_segments
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording

KINDS = ("walking", "running", "sitting")
TEXT = HashedWords()


def session(seed=0, **options):
    """A person after the other; each activity lasts 10 s."""
    options = {"n_people": 2, "windows_per_activity": 4, "activities": KINDS, "seed": seed} | options
    return join_windows(make_motion("phone", **options))


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "nano", {"d_model": 16, "num_heads": 2, "num_layers": 1})
        patch.setattr(segmentation, "LR", 1e-2)
        yield


@pytest.fixture(scope="module")
def start(small):
    windows = make_motion(n_people=3, windows_per_activity=4, activities=KINDS)
    return pretrain_motion([windows], [windows], 0.64, text=TEXT, max_epochs=1, contrastive_weight=0.0)


@pytest.fixture(scope="module")
def segmenter(start):
    sessions = [session(seed) for seed in range(3)]
    return fit_segmenter(start, [one for one, _ in sessions], [table for _, table in sessions])


@pytest.mark.parametrize("seed", range(15))
def test_decoding_equals_the_best_of_all_sequences(seed):
    rng = np.random.default_rng(seed)
    n, kinds = int(rng.integers(1, 8)), 3
    log_p = np.log(rng.dirichlet(np.full(kinds, 0.5), n))
    least = rng.integers(1, 4, kinds)

    def allowed(kind):
        return all(len(list(run)) >= min(least[k], n) for k, run in itertools.groupby(kind))

    own = np.arange(n)
    every = [kind for kind in itertools.product(range(kinds), repeat=n) if allowed(kind)]
    best = max(log_p[own, list(kind)].sum() for kind in every)
    found = decode_segments(log_p, least)
    assert allowed(tuple(found)) and log_p[own, found].sum() == pytest.approx(best)


def test_activities_of_other_people_are_found_with_their_times(segmenter):
    recording, truth = session(7)
    found = segmenter.segment(recording)
    scores = compare_segments(truth, found)
    assert scores["frame_f1"] > 0.9 and scores["event_f1"] > 0.9
    assert np.all(found.duration_s >= 5.0 - 0.32), "half of the shortest one that was labelled"
    assert np.all((found.score > 0.3) & (found.score <= 1))
    np.testing.assert_allclose(found.onset_s[1:], (found.onset_s + found.duration_s)[:-1], atol=1e-6)
    assert found.onset_s[0] == 0 and found.onset_s[-1] + found.duration_s[-1] == pytest.approx(recording.duration_s)
    for times, probability in segmenter.probabilities(recording):
        np.testing.assert_allclose(probability.sum(1), 1.0, atol=1e-5)
        assert len(times) == len(probability) and np.all(np.diff(times) > 0)


def test_units_rates_and_the_order_of_channels_change_nothing(segmenter, caplog):
    recording, truth = session(7)
    before = segmenter.segment(recording)
    g = recording.signal / np.repeat([9.80665, np.pi / 180], 3)
    names = recording.channels
    said = Recording(g[:, ::-1], 50.0, names[::-1], ("deg/s",) * 3 + ("g",) * 3)
    with caplog.at_level(logging.WARNING):
        for one in (said, Recording(g, 50.0, names)):
            np.testing.assert_allclose(segmenter.segment(one).onset_s, before.onset_s, atol=0.17)
    assert caplog.text.count("are taken to be in g") == 1, "said once, not for each part"
    assert compare_segments(truth, segmenter.segment(recording.resample(25.0)))["frame_f1"] > 0.85
    with pytest.raises(ShapeError, match="the segmenter is for 6 channels"):
        segmenter.segment(recording.select(names[:3]))
    with pytest.raises(UnitError, match="cannot convert"):
        segmenter.segment(Recording(g, 50.0, names, "V"))


def test_a_gap_is_nobodys_activity_and_a_short_one_is_bridged(segmenter):
    recording, _ = session(7)
    x = recording.read().copy()
    x[700:900] = np.nan
    x[1300:1310] = np.nan
    x[100:1000, 2] = np.nan
    found = segmenter.segment(Recording(x, 50.0, recording.channels))
    ends = found.onset_s + found.duration_s
    assert not np.any((found.onset_s < 17.9) & (ends > 14.1)), "14 to 18 s are missing"
    assert np.any((found.onset_s < 26.0) & (ends > 26.2)), "26 to 26.2 s are bridged"
    assert found.duration_s.sum() == pytest.approx(recording.duration_s - 4.0)
    nothing = segmenter.segment(Recording(np.full((500, 6), np.nan), 50.0, recording.channels))
    assert len(nothing) == 0 and nothing.names == segmenter.labels
    assert len(segmenter.segment(Recording(x[:20], 50.0, recording.channels))) == 0, "shorter than a patch"


def test_any_length_is_read_whole(segmenter):
    """Contexts end where the session does, one frame or many of them."""
    recording, _ = session(7)
    for frames in (1, 2, FRAMES - 1, FRAMES, FRAMES + 1, FRAMES + 17):
        short = recording.between(0, (32 + (frames - 1) * 8) / 50)
        ((times, probability),) = segmenter.probabilities(short)
        assert len(times) == frames and np.isfinite(probability).all()


def test_time_without_an_activity_is_none_of_them(start):
    recording, truth = session(0)
    rest = truth.select(("walking", "running"))
    segmenter = fit_segmenter(start, recording, rest)
    found = segmenter.segment(recording)
    assert segmenter.labels == ("walking", "running") and set(found.type_names) == {"walking", "running"}
    assert compare_segments(rest, found)["frame_f1"] > 0.8
    unseen = replace(rest, labelled_spans=np.array([[0, 1000]]))
    assert fit_segmenter(start, recording, unseen).model.model.config["n_kinds"] == 2, "sitting was not looked at"


def test_a_segmenter_comes_back_from_disk(segmenter, start, tmp_path):
    recording, _ = session(7)
    segmenter.save(tmp_path / "day.pth")
    again, before = load_segmenter(tmp_path / "day.pth").segment(recording), segmenter.segment(recording)
    assert np.array_equal(again.onset_s, before.onset_s) and np.array_equal(again.score, before.score)
    start.save(tmp_path / "start.pth")
    with pytest.raises(DataError, match="SegmentationNetwork|segmenter"):
        load_segmenter(tmp_path / "start.pth")


def test_sessions_that_say_too_little_are_refused(start):
    recording, truth = session(0)
    for table, message in (
        (replace(truth, duration_s=None), "need durations above 0"),
        (replace(truth, duration_s=truth.duration_s + 3.0), "must not overlap.*begins before"),
    ):
        with pytest.raises(DataError, match=message):
            fit_segmenter(start, recording, table)
    with pytest.raises(OptionError, match="a table of events for each recording"):
        fit_segmenter(start, [recording, recording], truth)
    with pytest.raises(OptionError, match="patch_s a number"):
        fit_segmenter(replace(start, patch_s=(0.5, 1.0, 0.1)), recording, truth)
    with pytest.raises(DataError, match="with labels are wanted"):
        join_windows(replace(make_motion(n_people=1), labels=()))
    rare = Events.empty(("swimming",), 50.0)
    with pytest.raises(DataError, match="no activity in any"):
        fit_segmenter(start, recording, rare)
    assert "swimming" not in fit_segmenter(start, [recording, recording], [truth, rare]).labels


def test_shuffled_sessions_hold_every_window_once():
    windows = make_motion(n_people=2, windows_per_activity=9, activities=KINDS)
    recording, truth = join_windows(windows, seed=3)
    assert recording.n_samples == 54 * 128 and truth.duration_s.sum() == pytest.approx(recording.duration_s)
    cuts = recording.read().reshape(54, 128, 6)
    order = [int(np.flatnonzero((windows.x == cut).all(axis=(1, 2)))[0]) for cut in cuts]
    assert sorted(order) == list(range(54)) and order != sorted(order)
    assert np.median(truth.duration_s) > 2.5 and truth.type_names != join_windows(windows)[1].type_names


def test_a_classifier_that_slides():
    """A score that knows the truth, up to half a window beside each edge."""
    recording, truth = session(7)

    def score(windows):
        middle = np.arange(len(windows)) * 0.32 + 1.28
        kind = truth.type[np.searchsorted(truth.onset_s, middle, side="right") - 1]
        return np.log(np.eye(3)[kind] + 1e-6)

    found = sliding_segments(score, recording, truth.names, 2.56)
    assert found.type_names == truth.type_names
    np.testing.assert_allclose(found.onset_s, truth.onset_s, atol=0.17)
