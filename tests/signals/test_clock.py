"""Seconds, samples and clocks, against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.signals import clock
from evlib.signals.errors import DataError, UnitError, require_rate

RATES = [2000.0, 360.0, 204.8, 44100.0, 100.0, 1000.0]


@given(st.floats(-1e9, 1e9))
def test_split_time_keeps_the_time_and_the_range(time_samples):
    sample, fraction = clock.split_time(time_samples)
    assert sample + fraction == time_samples
    assert -0.5 <= fraction < 0.5


def test_split_time_just_below_the_middle():
    sample, fraction = clock.split_time([np.nextafter(0.5, 0), 0.5, 1.5, -0.5])
    assert sample.tolist() == [0, 1, 2, 0]
    assert fraction.tolist() == [np.nextafter(0.5, 0), -0.5, -0.5, -0.5]


@given(st.integers(-(10**12), 10**12), st.floats(-0.5, 0.499), st.sampled_from(RATES), st.sampled_from(RATES))
def test_change_clock_is_exact(sample, fraction, old_hz, new_hz):
    new_sample, new_fraction = clock.change_clock([sample], [fraction], old_hz, new_hz)
    ratio = Fraction(str(new_hz)) / Fraction(str(old_hz))
    expected = (sample + Fraction(fraction)) * ratio
    assert abs(int(new_sample[0]) + Fraction(float(new_fraction[0])) - expected) < Fraction(1, 10**9)
    assert -0.5 <= new_fraction[0] < 0.5


def test_change_clock_without_a_short_ratio_still_works():
    rate = 1999.9876543210123
    sample, fraction = clock.change_clock([10_000], [0.25], 2000.0, rate)
    assert sample[0] + fraction[0] == pytest.approx(10_000.25 * rate / 2000, abs=1e-9)


@given(st.sampled_from(RATES), st.integers(1, 10_000))
def test_whole_samples_survive_seconds(rate, n):
    assert clock.tolerance_to_samples(n / rate, rate) == n
    assert clock.duration_to_samples(n / rate, rate) == n


@given(st.sampled_from(RATES), st.integers(3, 5000), st.sampled_from([3, 6, 9, None]), st.floats(0, 100))
def test_uniform_rate_finds_the_rate_in_rounded_stamps(rate, n, decimals, start_s):
    time_s = start_s + np.arange(n) / rate
    if decimals is not None:
        if 0.5 * 10**-decimals * rate > 0.1:
            return  # stamps coarser than a fifth of a sample are no clock
        time_s = np.round(time_s, decimals)
    found = clock.uniform_rate(time_s)
    blur = 1e-9 + (0 if decimals is None else 2 * rate * 10**-decimals)
    assert abs(found - rate) / rate * (n - 1) <= 2 * blur + 1e-6
    assert clock.uniform_rate(time_s, rate) == rate


@pytest.mark.parametrize("lost", [1, 50, 98])
def test_one_lost_sample_is_found(lost):
    time_s = np.delete(np.arange(100) / 2000, lost)
    with pytest.raises(DataError, match="largest gap is 0.001 s"):
        clock.uniform_rate(time_s)


def test_a_rate_that_the_stamps_contradict():
    with pytest.raises(UnitError, match="says 2000 Hz"):
        clock.uniform_rate(np.arange(100) / 2000, 1000.0)


@pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf, "fast", None, [1, 2]])
def test_rates_that_are_none(rate):
    with pytest.raises(UnitError, match="sampling_rate_hz must be"):
        require_rate(rate)
