"""Where events end: the rule against brute force, what labels teach, and detections that last as long as events do."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evlib
from evlib.detection.detector import load_detector
from evlib.detection.durations import FARTHEST, USUAL_SPREAD, durations_vary, find_ends, learn_durations
from evlib.live.streaming import StreamingDetector
from evlib.scoring.segments import compare_segments
from evlib.signals.calls import make_calls
from evlib.signals.errors import OptionError, ShapeError
from evlib.signals.events import Events


def table(lasts, type):
    return Events.from_seconds(np.arange(len(type)), type, 100, ("a", "b"), duration_s=lasts)


@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(0.5, 30), st.floats(0.1, 1.0))
def test_ends_are_where_evidence_and_duration_agree_best(seed, n, median, spread):
    rng = np.random.default_rng(seed)
    odds, begin = rng.normal(0, 4, n), rng.integers(0, n, 5)
    reach = max(1, min(int(np.ceil(median * np.exp(FARTHEST * spread))), n))
    for start, end in zip(begin, find_ends(odds, begin, median, spread), strict=True):

        def value(frame, start=start):
            seen = odds[frame] if frame < n else min(odds.min(), 0.0)
            return seen - 0.5 * (np.log((frame - start) / median) / spread) ** 2

        best = max(range(start + 1, start + reach + 1), key=value)
        assert end == min(best, n - 1)


def test_without_a_visible_end_an_event_lasts_as_its_kind_does():
    flat = np.full(200, -5.0)
    assert find_ends(flat, np.array([0, 50]), 20.0, 0.3).tolist() == [20, 70]
    assert find_ends(flat, np.array([190]), 20.0, 0.3).tolist() == [199], "but not beyond the recording"


def test_labels_say_how_long_kinds_last():
    lasts, type = [0.1, 0.2, 0.4, np.nan, 0.0, 0.0], ["a", "a", "a", "a", "a", "b"]
    (median, spread), nothing = learn_durations([table(lasts[:2], type[:2]), table(lasts[2:], type[2:])], 2)
    assert median == pytest.approx(0.2) and spread == pytest.approx(
        np.sqrt((2 * (np.log(2) / 0.6745) ** 2 + 4 * 0.4**2) / 6)
    )
    assert nothing == (0.0, 0.0)
    many = 0.2 * np.exp(0.1 * np.random.default_rng(0).standard_normal(2000))
    assert learn_durations([table(many, ["a"] * 2000)], 2)[0][1] == pytest.approx(0.1, rel=0.1)
    assert learn_durations([table([0.0, np.nan], ["a", "b"])], 2) == ()
    assert learn_durations([table([0.3], ["b"])], 2) == ((0.0, 0.0), (pytest.approx(0.3), USUAL_SPREAD))


def test_a_slip_in_one_label_changes_little():
    """A duration in milliseconds among seconds, or one that is nearly nothing."""
    lasts = 0.3 * np.exp(0.2 * np.random.default_rng(1).standard_normal(20))
    clean, *spoiled = (
        learn_durations([table(values, ["a"] * 20)], 2)[0]
        for values in (lasts, *(np.r_[lasts[1:], x] for x in (300, 5e-324)))
    )
    assert all(one == pytest.approx(clean, rel=0.15) for one in spoiled)


def test_equal_durations_need_no_network():
    assert not durations_vary([table([0.3, 0.3, 0.9], ["a", "a", "b"])], 0.01)
    assert durations_vary([table([0.3, 0.3], ["a", "b"]), table([0.4, 0.0], ["a", "b"])], 0.01)
    assert not durations_vary([table([0.0, 0.0], ["a", "b"])], 0.01)


@pytest.fixture(scope="module")
def calls():
    """A detector that was taught where calls end, and a recording that it does not know."""
    learned = make_calls(2, 60.0, snr_db=3.0, mean_interval_s=0.4, seed=1)
    options = {"refractory_s": 0.1, "max_epochs": 10, "hidden_size": 16, "progress": False}
    return evlib.fit([learned], "frames", **options), *make_calls(2, 60.0, snr_db=3.0, mean_interval_s=0.4, seed=2)


def test_a_frame_network_finds_where_events_end(calls):
    detector, recording, events = calls
    found = evlib.detect(detector, recording)
    usual = replace(found, duration_s=np.array([median for median, _ in detector.durations])[found.type])
    seen, guessed = (compare_segments(events, one, iou=0.75)["event_f1"] for one in (found, usual))
    assert seen > 0.8 and seen > guessed + 0.2, (seen, guessed)


def test_ends_do_not_depend_on_blocks(calls, tmp_path):
    detector, recording, _ = calls
    whole = evlib.detect(detector, recording)
    detector.save(tmp_path / "calls.pth")
    blocks = evlib.detect(load_detector(tmp_path / "calls.pth"), recording, block_s=5.0)
    stream = StreamingDetector(detector)
    cuts = np.unique(np.r_[0, np.random.default_rng(0).integers(0, recording.n_samples, 20), recording.n_samples])
    parts = []
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        parts.append(stream.push(recording.read(start, stop)))
        state = stream.state()
        stream = StreamingDetector(detector)
        stream.restore(state)
    live = Events.concatenate([*parts, stream.flush()])
    for other in (blocks, live):
        assert np.array_equal(np.sort(other.sample), whole.sample) and len(whole) > 50
        order = np.lexsort((other.type, other.time_samples))
        np.testing.assert_allclose(other.duration_s[order], whole.duration_s, atol=1e-6)


def test_parts_that_do_not_belong_together(calls):
    detector, *_ = calls
    with pytest.raises(ShapeError, match="2 types, frames: 4"):
        replace(detector, durations=())
    for wrong in (((1.0, 0.3),), ((1.0, 0.3), 5), 0, "ab"):
        with pytest.raises(OptionError, match="2 pairs"):
            replace(detector, durations=wrong)
    with pytest.raises(OptionError, match="duration 0"):
        replace(detector, durations=((-1.0, 0.3), (1.0, 0.3)))
