"""Several streams as one recording: values against what was sampled, any block alike, clocks there and back."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.signals.files import read_recording, write_recording
from evlib.signals.joined import BLANK_SAMPLES, Clock, join_streams, stream_groups
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording, make_templates


def tone(time_s, hz=7.0):
    return np.sin(2 * np.pi * hz * np.asarray(time_s)) + 5.0


SAME = Clock()


def sampled(rate, duration_s=4.0, clock=SAME, hz=7.0):
    """A tone on the common clock, as a sensor with this clock samples it."""
    own_s = np.arange(round(duration_s * rate)) / rate
    return Recording(tone(clock.common(own_s), hz)[:, None], rate, ("tone",), "V")


@pytest.mark.parametrize("rate", [100.0, 250.0, 2000.0, 3777.7, 44_100.0])
@pytest.mark.parametrize("clock", [SAME, Clock(0.3137, 200e-6), Clock(-0.21, -0.01), Clock(0.0005)])
def test_each_stream_is_read_where_the_common_clock_says(rate, clock):
    joined = join_streams({"a": sampled(1000.0), "b": sampled(rate, clock=clock)}, {"b": clock}, 1000.0)
    time_s = np.arange(joined.n_samples) / 1000
    seen = np.isfinite(joined.read()).all(axis=1) & (time_s > 0.6) & (time_s < 3.4)
    assert seen[700:3300].all()
    np.testing.assert_allclose(joined.read()[seen], tone(time_s[seen])[:, None].repeat(2, 1), atol=0.01)
    assert joined.channels == ("a.tone", "b.tone") and joined.units == ("V", "V")
    assert stream_groups(joined) == {"a": (0,), "b": (1,)}


def test_beyond_its_ends_a_stream_has_no_samples():
    joined = join_streams({"a": sampled(1000.0), "b": sampled(100.0, 2.0)}, {"b": Clock(-0.5)})
    seen = np.isfinite(joined.read())
    assert seen[:, 0].all() and not seen[:499, 1].any() and seen[500:2499, 1].all() and not seen[2501:, 1].any()
    longer = join_streams({"a": sampled(1000.0, 1.0), "b": sampled(100.0, 2.0)})
    assert longer.duration_s == 2.0 and not np.isfinite(longer.read()[1000:, 0]).any()


def test_missing_samples_stay_missing():
    b = sampled(100.0)
    b.signal[150:200] = np.nan
    seen = np.isfinite(join_streams({"a": sampled(1000.0), "b": b}).read())[:, 1]
    assert not seen[1500:1990].any() and seen[:1250].all() and seen[2250:].all()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.sampled_from([100.0, 333.3, 1000.0, 2500.0, 9000.0]))
@settings(max_examples=30, deadline=None)
def test_any_block_is_that_of_the_whole(edges, rate):
    b = Recording(np.random.default_rng(0).normal(size=(round(3 * rate), 2)), rate)
    joined = join_streams({"a": sampled(1000.0, 3.0), "b": b}, {"b": Clock(0.1, 1e-4)}, 1000.0)
    whole = joined.read()
    edges = sorted({0, 3000, *edges})
    blocks = [joined.read(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=1e-5, atol=1e-6)


def test_of_a_fast_stream_what_lies_above_half_the_common_rate_is_left_out():
    """And what lies below is there, also beside missing samples."""
    time_s = np.arange(44_100) / 44_100
    tones = np.stack([np.sin(2 * np.pi * hz * time_s) for hz in (50.0, 400.0, 700.0, 1000.0, 9950.0)], 1)
    tones[20_000:20_100] = np.nan
    joined = join_streams({"a": Recording(np.ones((1000, 1)), 1000.0), "mic": Recording(tones, 44_100.0)}, None, 1000.0)
    power = np.nanmean(joined.read(100, 900)[:, 1:].astype(float) ** 2, axis=0)
    assert power[:2] == pytest.approx(0.5, rel=0.02) and (power[2:] < 1e-4).all()
    assert np.isnan(joined.read()[:, 1:]).sum(axis=0).max() < 80


def test_what_a_slow_stream_cannot_show_is_faint_noise_that_is_always_the_same():
    joined = join_streams({"a": sampled(1000.0), "b": sampled(100.0)})
    signal = joined.read(1000, 3000)[:, 1].astype(float) - tone(np.arange(1000, 3000) / 1000)
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
    high = power[len(power) // 5 :]
    assert high.mean() > 0 and high.max() < 30 * high.mean(), "white, and no image of the tone"
    assert 1e-4 < signal.std() < 5e-3
    long = Recording(np.random.default_rng(0).normal(size=(20_000, 1)), 100.0)
    again = join_streams({"a": Recording(np.ones((10, 1)), 1000.0), "b": long})
    edge = BLANK_SAMPLES
    np.testing.assert_array_equal(again.read(edge - 50, edge + 50)[:50], again.read(edge - 50, edge))


def test_a_lower_common_rate_filters_and_says_so(caplog):
    fast = Recording((tone(np.arange(8000) / 2000, 7.0) + tone(np.arange(8000) / 2000, 333.0))[:, None], 2000.0)
    with caplog.at_level(logging.WARNING):
        slow = join_streams({"slow": sampled(200.0), "fast": fast}, sampling_rate_hz=200.0)
    assert "of fast only what lies below 100 Hz is read" in caplog.text and slow.sampling_rate_hz == 200.0
    middle = slice(50, -50)
    np.testing.assert_allclose(slow.read()[middle, 1], tone(np.arange(800) / 200, 7.0)[middle] + 5.0, atol=0.02)


def test_another_sensor_sees_the_same_events_in_noise_of_its_own():
    one, events = make_recording(duration_s=20.0, seed=3)
    templates = make_templates(n_channels=2, sampling_rate_hz=500.0, seed=9)
    other, same = make_recording(templates, 20.0, seed=3, sampling_rate_hz=500.0, noise_seed=4)
    np.testing.assert_allclose(same.onset_s, events.onset_s, atol=1e-9)
    assert np.array_equal(same.type, events.type) and other.shape == (10_000, 2)
    again, _ = make_recording(duration_s=20.0, seed=3, noise_seed=3)
    assert np.array_equal(again.read(), one.read())


def test_joined_streams_are_a_recording_like_any_other(tmp_path):
    joined = join_streams({"frame": sampled(1000.0, 2.0), "load": sampled(50.0, 2.0)})
    write_recording(joined, tmp_path / "both.npz")
    back = read_recording(tmp_path / "both.npz")
    np.testing.assert_allclose(back.read(), joined.read(), atol=1e-6)
    assert back.channels == joined.channels and stream_groups(back) == {"frame": (0,), "load": (1,)}
    part = joined.between(0.5, 1.0)
    np.testing.assert_array_equal(part.read(), joined.read(500, 1000))


def test_what_does_not_fit_together_is_refused():
    a = sampled(100.0)
    for streams, clocks, message in (
        ({}, None, "streams must be recordings by name"),
        ([a], None, "streams must be recordings by name"),
        ({"a": a, "b": np.zeros(3)}, None, "b is none"),
        ({"a.b": a}, None, "without dots"),
        ({"a": a}, {"c": Clock()}, "unknown clock"),
    ):
        with pytest.raises(OptionError, match=message):
            join_streams(streams, clocks)
    with pytest.raises(DataError, match="are clocks and start times right"):
        join_streams({"a": a}, {"a": Clock(99.0)})
    for wrong in ({"skew": -1.0}, {"offset_s": np.nan}):
        with pytest.raises(OptionError):
            Clock(**wrong)


def test_clocks_go_there_and_back():
    clock = Clock(-3.2, 4e-5)
    time_s = np.array([0.0, 10.0, 86_400.0])
    np.testing.assert_allclose(clock.common(clock.at(time_s)), time_s, atol=1e-9)
    assert str(Clock(0.3, 2e-4, 1e-5, 1e-6)) == "+300.00 ms (± 0.01), +200.0 ppm (± 1)"


def test_markers_say_a_clock_and_how_well_it_is_known(rng):
    """The line is that of least squares, and its band holds the truth as often as it says."""
    true, held = Clock(0.3, 2e-4), []
    for _ in range(300):
        common = np.sort(rng.uniform(40, 100, 12))
        own = true.at(common) + rng.normal(0, 1e-3, 12)
        found = Clock.from_markers(common, own)
        (skew, offset), covariance = np.polyfit(common, own - common, 1, cov=True)
        values = found.offset_s, found.skew, found.offset_sd_s, found.skew_sd
        np.testing.assert_allclose(values, [offset, skew, *np.sqrt(np.diag(covariance)[::-1])], rtol=1e-6)
        time_s = np.array([0.0, 70.0, 200.0])
        held.append(np.abs(found.at(time_s) - true.at(time_s)) < 2.228 * found.sd_at(time_s))  # t of 10 degrees, 95 %
    assert (np.abs(np.mean(held, axis=0) - 0.95) < 0.04).all()


def test_few_markers_say_less():
    assert Clock.from_markers(10.0, 10.5) == Clock(0.5)
    two = Clock.from_markers([0.0, 100.0], [1.0, 101.02])
    assert (two.offset_s, two.skew) == pytest.approx((1.0, 2e-4)) and np.isnan(two.sd_at(5.0))
    for common, own, error in (
        ([1.0, 2.0], [1.0], ShapeError),
        ([], [], ShapeError),
        ([1.0, 1.0], [1.0, 2.0], DataError),
        ([1.0, np.nan], [1.0, 2.0], DataError),
    ):
        with pytest.raises(error, match="markers"):
            Clock.from_markers(common, own)


def test_streams_begin_where_their_start_times_say():
    """Also in other time zones; what has no zone is UTC, and what has no time begins with the first."""
    rng = np.random.default_rng(0)
    a = Recording(rng.normal(size=(200, 1)), 100.0, ("x",), start_time="2026-03-01T12:00:00")
    ramp = np.arange(100.0)[:, None]
    for start, first in (("2026-03-01T13:00:00.5+01:00", 50), ("2026-03-01T11:59:59.750", -25), (None, 0)):
        joined = join_streams({"a": a, "b": Recording(ramp, 100.0, ("y",), start_time=start)}).read()
        assert np.array_equal(joined[:, 0], a.read()[:, 0])
        seen = np.flatnonzero(np.isfinite(joined[:, 1]))
        assert seen[0] == max(first, 0) and seen[-1] == first + 99
        np.testing.assert_allclose(joined[seen[20:-20], 1], seen[20:-20] - first, atol=0.05)
    late = Recording(ramp, 100.0, ("y",), start_time="2026-03-02T12:00:00")
    with pytest.raises(DataError, match="b: no sample in the time of a"):
        join_streams({"a": a, "b": late})
