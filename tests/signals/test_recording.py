"""Recordings: stored signals are read in parts, resampling keeps times, mistakes are refused in words."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evlib.signals.errors import DataError, EvlibError, OptionError, ShapeError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording

shapes = st.tuples(st.integers(4, 40), st.integers(1, 4))


def noise(n_samples=1000, n_channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n_samples, n_channels)).astype(np.float32)


class Counting:
    """A stored signal that notes how much of it is read."""

    shape, dtype, ndim = (10**9, 6), np.dtype("int16"), 2

    def __init__(self):
        self.read = 0

    def __getitem__(self, rows):
        self.read += rows.stop - rows.start
        return np.ones((rows.stop - rows.start, 6), dtype=np.int16)


def test_only_what_is_asked_for_is_read():
    signal = Counting()
    recording = Recording(signal, 2000)
    part = recording.between(1000, 2000).between(10, 20)
    assert (part.n_samples, part.shape, signal.read) == (20_000, (20_000, 6), 0)
    assert part.read(5, 15).shape == (10, 6)
    assert next(recording.blocks(100))[1].shape == (100, 6)
    assert signal.read == 110


@given(signal=hnp.arrays("float32", shapes), size=st.integers(1, 50))
def test_blocks_are_the_whole(signal, size):
    starts, blocks = zip(*Recording(signal, 100).blocks(size), strict=True)
    np.testing.assert_array_equal(np.concatenate(blocks), signal)
    assert list(starts) == list(range(0, len(signal), size))


def test_between_rounds_to_the_nearest_sample():
    recording = Recording(noise(), 360, ["a", "b", "c"], "g", "walk")
    part = recording.between(100 / 360, 102 / 360)  # fewer samples than channels is no slip here
    np.testing.assert_array_equal(part.read(), noise()[100:102])
    assert (part.channels, part.units, part.name, part.sampling_rate_hz) == (("a", "b", "c"), ("g",) * 3, "walk", 360)
    assert recording.between(1).n_samples == 640
    for start_s, stop_s in [(-1, 1), (1, 1), (2, 1), (0, 1000)]:
        with pytest.raises(UnitError, match="were samples passed"):
            recording.between(start_s, stop_s)


@pytest.mark.parametrize(("old", "new"), [(2000, 1000), (360, 2000), (2000, 204.8)])
def test_impulses_keep_their_times(old, new):
    at = 3000 + 5 * np.arange(125)  # one impulse a channel, at all places between two samples of the new clock
    signal = np.zeros((7000, 125))
    signal[at, np.arange(125)] = 1
    recording = Recording(signal, old, name="impulses").resample(new)
    assert (recording.sampling_rate_hz, recording.name) == (new, "impulses")
    assert abs(recording.duration_s - 7000 / old) < 1 / new
    out = recording.read().astype(float)
    centre_s = (out * np.arange(len(out))[:, None]).sum(axis=0) / out.sum(axis=0) / new
    error_samples = (centre_s - at / old) * new
    np.testing.assert_allclose(error_samples, 0, atol=5e-3)
    assert abs(error_samples.mean()) < 1e-4


def test_a_ratio_that_is_no_fraction_is_refused():
    with pytest.raises(UnitError, match="cannot resample"):
        Recording(noise(), 2000).resample(np.pi * 100)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (ShapeError, r"pass signal\.T", {"signal": np.zeros((6, 100_000))}),
        (ShapeError, "no batch", {"signal": np.zeros((2, 100, 6))}),
        (ShapeError, "must have shape", {"signal": np.float64(3)}),
        (ShapeError, "must be an array", {"signal": [[1, 2], [3]]}),
        (DataError, "empty", {"signal": np.zeros((0, 6))}),
        (DataError, "empty", {"signal": []}),
        (DataError, "real numbers", {"signal": np.zeros((100, 2), complex)}),
        (DataError, "real numbers", {"signal": np.full((100, 2), "1.0")}),
        (DataError, "real numbers", {"signal": np.full((100, 2), None)}),
        (UnitError, "positive", {"sampling_rate_hz": 0}),
        (UnitError, "a number in Hz", {"sampling_rate_hz": "2 kHz"}),
        (ShapeError, "channels must name the 3 channels", {"channels": ["x"]}),
        (ShapeError, "units must name the 3 channels", {"units": ["g", "g"]}),
        (OptionError, "differ from each other", {"channels": ["x", "y", "x"]}),
    ],
)
def test_refusals(error, words, changes):
    with pytest.raises(error, match=words):
        Recording(**({"signal": noise(), "sampling_rate_hz": 2000} | changes))


def test_reading_outside_is_refused():
    recording = Recording(noise(), 2000)
    for start, stop in [(-1, 5), (5, 4), (0, 1001)]:
        with pytest.raises(ShapeError, match="do not lie within"):
            recording.read(start, stop)
    with pytest.raises(UnitError, match="use between"):
        recording.read(0.0, 0.5)
    with pytest.raises(OptionError, match="at least 1"):
        next(recording.blocks(0))


def test_defaults_and_one_channel():
    recording = Recording([0, 1, 2], 2)
    assert (recording.shape, recording.channels, recording.units, recording.duration_s) == (
        (3, 1),
        ("ch1",),
        ("",),
        1.5,
    )
    masked = np.ma.array([[1.0], [2.0]], mask=[[False], [True]])
    np.testing.assert_array_equal(Recording(masked, 2).read(), [[1], [np.nan]])


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=5, minutes=30))])
def test_the_start_time_is_that_of_sample_0(zone):
    start = datetime(2024, 2, 29, 23, 59, 59, 250_000, zone)
    recording = Recording(noise(), 200, ["a", "b", "c"], "g", start_time=start)
    assert recording.between(1.5, 3).between(0.5).start_time == start + timedelta(seconds=2)
    for other in (recording.select("b"), recording.like(("c", "a"), ("m/s2", "g")), recording.resample(100)):
        assert other.start_time == start
    assert Recording(noise(), 200, start_time=start.isoformat()).start_time == start
    assert Recording(noise(), 200).between(1).start_time is None
    for wrong in (12, "yesterday", np.array("2024")):
        with pytest.raises(OptionError, match="start_time must be a datetime"):
            Recording(noise(), 200, start_time=wrong)


def test_bad_spans_are_missing_wherever_they_are_read():
    signal = np.arange(2000.0).reshape(1000, 2)
    recording = Recording(signal, 100).mark_bad([(1.0, 2.0), (9.5, 99.0)], channels=["ch1"])
    whole = recording.read()
    assert np.isnan(whole[:, 0]).sum() == 150 and not np.isnan(whole[:, 1]).any()
    for start, stop in ((0, 50), (90, 120), (150, 400), (940, 1000)):
        assert np.array_equal(recording.read(start, stop), whole[start:stop], equal_nan=True)
    assert np.isnan(recording.between(1.5, 3.0).read()[:, 0]).sum() == 50
    for wrong, words in (
        ([1.0, 2.0], "spans_s must be"),
        ([(3, 2)], "spans_s must be"),
        ([(500, 600)], "samples passed"),
    ):
        with pytest.raises(EvlibError, match=words):
            recording.mark_bad(wrong)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_parts_between_gaps_and_their_events(value):
    signal = np.random.default_rng(0).normal(size=(3000, 2))
    signal[500:1000], signal[2000:2150], signal[2900:] = value, value, value
    events = Events.from_seconds([1.0, 6.0, 12.0, 22.0], ["a"] * 4, 100)
    parts = Recording(signal, 100, name="night").split_at_gaps(events)
    assert [(part.n_samples, own.onset_s.tolist()) for part, own in parts] == [
        (500, [1.0]),
        (1000, [2.0]),
        (750, [0.5]),
    ]
    assert [part.name for part, _ in parts] == ["night 0 s", "night 10 s", "night 21.5 s"]
    assert len(Recording(signal[:500], 100).split_at_gaps()) == 1
