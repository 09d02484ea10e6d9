"""Units of motion: those that are said are converted, those that are not are concluded and said."""

import logging

import numpy as np
import pytest

from evlib.motion.units import standard_units, without_gravity
from evlib.motion.windows import make_motion
from evlib.signals.errors import ShapeError, UnitError
from evlib.training.windows import Windows, triads

SI = ("m/s2",) * 3 + ("rad/s",) * 3


@pytest.fixture(scope="module")
def motion():
    return make_motion(n_people=2, windows_per_activity=2)


def counted(motion, acceleration, rotation, units=()):
    """The same motion, counted in other units."""
    factor = np.repeat([acceleration, rotation], 3)
    return Windows(motion.name, motion.x * factor, 50.0, motion.channels, labels=motion.labels, units=units)


@pytest.mark.parametrize(
    ("unit", "factor"), [("m/s2", 1.0), ("g", 1 / 9.80665), ("mg", 1e3 / 9.80665), ("cm/s^2", 100.0)]
)
@pytest.mark.parametrize(("turning", "share"), [("rad/s", 1.0), ("dps", 180 / np.pi)])
def test_what_is_said_is_converted(motion, unit, factor, turning, share, caplog):
    same = standard_units(counted(motion, factor, share, (unit,) * 3 + (turning,) * 3))
    np.testing.assert_allclose(same.x, motion.x, rtol=1e-4, atol=1e-4)
    assert same.units == SI and not caplog.records


@pytest.mark.parametrize(("factor", "unit"), [(1.0, None), (1 / 9.80665, "in g"), (1e3 / 9.80665, "in mg")])
def test_gravity_says_what_was_not_said(motion, factor, unit, caplog):
    with caplog.at_level(logging.WARNING):
        same = standard_units(counted(motion, factor, 1.0))
    np.testing.assert_allclose(same.x, motion.x, rtol=1e-4, atol=1e-4)
    assert (unit in caplog.text and "waist_acc_x" in caplog.text) if unit else not caplog.records
    caplog.clear()
    assert standard_units(same) is not None and not caplog.records


def test_a_gyroscope_faster_than_any_counts_in_degrees(motion, caplog):
    with caplog.at_level(logging.WARNING):
        same = standard_units(counted(motion, 1.0, 180 / np.pi))
    np.testing.assert_allclose(same.x, motion.x, rtol=1e-4, atol=1e-4)
    assert "in deg/s" in caplog.text


def test_what_is_no_sensor_of_motion_is_left_alone():
    windows = Windows("chest", np.ones((2, 50, 3)), 50.0, ("ecg_x", "ecg_y", "ecg_z"), units="mV")
    same = standard_units(windows)
    assert np.array_equal(same.x, windows.x) and same.units == ("mV",) * 3


def test_gravity_that_was_taken_away_is_seen(motion):
    x = motion.x - motion.x.mean(axis=1, keepdims=True)
    assert not without_gravity(standard_units(motion))
    assert without_gravity(standard_units(Windows("linear", x, 50.0, motion.channels)))
    assert not without_gravity(Windows("chest", np.ones((2, 50, 1)), 50.0, ("ecg",)))


def test_units_that_do_not_fit_are_refused(motion):
    with pytest.raises(UnitError, match="cannot convert 'V' to 'm/s2'; the channels are waist_acc_x"):
        standard_units(counted(motion, 1.0, 1.0, ("V",) * 3 + ("rad/s",) * 3))
    with pytest.raises(ShapeError, match="want a unit for each of 6 channels"):
        counted(motion, 1.0, 1.0, ("g", "dps"))


def test_gyr_is_a_gyroscope():
    names = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
    assert triads(names) == (((0, 1, 2), (3, 4, 5)), ("", ""))
    windows = Windows("watch", np.ones((2, 50, 6)), 50.0, names, units=("g",) * 3 + ("deg/s",) * 3)
    same = standard_units(windows)
    assert same.units == SI and same.x[0, 0] == pytest.approx([9.80665] * 3 + [np.pi / 180] * 3)


def test_windows_keep_their_units_and_change_their_rate(motion):
    windows = counted(motion, 1.0, 1.0, SI)
    some = windows.with_channels(windows.channels[2:4])[:3]
    assert some.units == ("m/s2", "rad/s") and windows.fingerprint() != counted(motion, 1.0, 1.0).fingerprint()
    slow = windows.resample(10.0)
    assert slow.sampling_rate_hz == 10.0 and slow.x.shape[1] == 26 and slow.units == SI
    # Gravity stays, up to the edges.
    np.testing.assert_allclose(np.median(slow.x, axis=1)[:, :3], np.median(windows.x, axis=1)[:, :3], atol=2.0)
    still = windows.labels == "standing"
    np.testing.assert_allclose(slow.x[still].mean(axis=1), windows.x[still].mean(axis=1), atol=0.1)
    assert windows.resample(50.0).x is windows.x or np.array_equal(windows.resample(50.0).x, windows.x)
    with pytest.raises(UnitError, match="sampling_rate_hz"):
        windows.resample(0)
