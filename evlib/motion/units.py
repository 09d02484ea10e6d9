"""Units of motion windows: whatever a sensor counts in, a model reads m/s2 and rad/s.

Where windows say their units, they are converted. Where they do not, gravity says what accelerations are counted in,
and the range of every gyroscope that is made what rotations are; what is concluded is logged.
"""

import logging
from dataclasses import replace

import numpy as np
from scipy.constants import g as GRAVITY  # standard gravity in m/s2

from ..signals.errors import UnitError
from ..signals.recording import Recording
from ..signals.units import conversion_factor
from ..training.windows import SENSORS, Windows, triads

# The unit that models read, by the first letters of a sensor in the name of a channel.
UNITS = {"acc": "m/s2", "gyr": "rad/s"}
# At rest an accelerometer shows gravity; a sensor that is a little off, or moves a little, does so within this factor.
NEAR_GRAVITY = 1.3
# No gyroscope for people measures more than 4000 deg/s, in rad/s.
FASTEST = 70.0
# Below this share of gravity the mean acceleration of a window is none: somebody has taken it away.
NO_GRAVITY = 0.3
# Windows of a session from which its units are concluded: seconds of each, and how many, spread over all of it.
SAMPLE_S, SAMPLES = 2.56, 200


def standard_units(windows: Windows) -> Windows:
    """The windows in m/s2 and rad/s; what has another unit, or gives no hint of one, stays as it is.

    Raises
    ------
    UnitError : an accelerometer or gyroscope in a unit of something else

    >>> rest = np.tile([0.0, 0.0, 1.0], (2, 50, 1))
    >>> standard_units(Windows("watch", rest, 50.0, ("acc_x", "acc_y", "acc_z"), units="g")).x[0, 0]
    array([0.     , 0.     , 9.80665], dtype=float32)
    """
    wanted = _wanted(windows)
    units = list(windows.units) or _units_by_size(windows, wanted)
    try:
        factor = [conversion_factor(unit, there) for unit, there in zip(units, wanted, strict=True)]
    except UnitError as error:
        raise UnitError(f"{windows.name}: {error}; the channels are {', '.join(windows.channels)}") from error
    units = tuple(there or unit for unit, there in zip(units, wanted, strict=True))
    x = windows.x if np.all(np.equal(factor, 1.0)) else windows.x * np.array(factor, dtype=np.float32)
    return replace(windows, x=x, units=units)


def standard_session(recording: Recording) -> Recording:
    """A recording in m/s2 and rad/s, as `standard_units`, converted as it is read; 200 windows say what is concluded.

    Raises
    ------
    UnitError : an accelerometer or gyroscope in a unit of something else

    >>> rest = Recording(np.tile([0.0, 0.0, 1.0], (500, 1)), 50.0, ("acc_x", "acc_y", "acc_z"), "g")
    >>> standard_session(rest).read(0, 1), standard_session(rest).units
    (array([[0.     , 0.     , 9.80665]], dtype=float32), ('m/s2', 'm/s2', 'm/s2'))
    """
    length = min(round(SAMPLE_S * recording.sampling_rate_hz), recording.n_samples)
    starts = np.unique(np.linspace(0, recording.n_samples - length, SAMPLES).astype(int))
    x = np.stack([recording.read(start, start + length) for start in starts])
    x = x[np.isfinite(x).all(axis=(1, 2))]
    known = recording.units if any(recording.units) else ()
    some = Windows(recording.name or "session", x, recording.sampling_rate_hz, recording.channels, units=known)
    if not len(some):
        return recording
    wanted = _wanted(some)
    units = tuple(some.units or _units_by_size(some, wanted))
    warn_without_gravity(standard_units(replace(some, units=units)))
    standard = tuple(there or unit for unit, there in zip(units, wanted, strict=True))
    return replace(recording, units=units).like(recording.channels, standard, "a model of motion")


def without_gravity(windows: Windows) -> bool:
    """Whether no accelerometer of some windows in m/s2 shows gravity, in which postures cannot be told apart."""
    levels = [_at_rest(windows, axes) for axes in _sensors(windows, "acc")]
    return bool(levels) and max(levels) < NO_GRAVITY * GRAVITY


def warn_without_gravity(windows: Windows) -> None:
    """Log that postures cannot be told apart where no accelerometer shows gravity."""
    if without_gravity(windows):
        text = "%s: the accelerations are without gravity, so postures cannot be told apart"
        logging.getLogger(__name__).warning(text, windows.name)


def _wanted(windows):
    """The unit of each channel that models read; nothing where any will do."""
    found = [SENSORS.search(channel) for channel in windows.channels]
    return [UNITS.get(one[1].lower()[:3], "") if one else "" for one in found]


def _sensors(windows, kind):
    """Channel numbers of the triads of a kind of sensor."""
    return [list(axes) for axes in triads(windows.channels)[0] if kind in windows.channels[axes[0]].lower()]


def _at_rest(windows, axes):
    """The length of the mean vector of a window, in the middle of all."""
    return float(np.median(np.linalg.norm(windows.x[..., axes].mean(axis=1), axis=1)))


def _units_by_size(windows, wanted):
    """A unit for each channel, concluded from the values; the wanted one where they say nothing else."""
    units = list(wanted)
    for axes in _sensors(windows, "acc"):
        level = _at_rest(windows, axes)
        for unit in ("g", "mg"):
            gravity = GRAVITY / conversion_factor(unit, "m/s2")
            if 1 / NEAR_GRAVITY < level / gravity < NEAR_GRAVITY:
                _conclude(windows, axes, units, unit, f"show gravity as {level:.3g}")
    for axes in _sensors(windows, "gyr"):
        if (most := float(np.abs(windows.x[..., axes]).max())) > FASTEST:
            _conclude(windows, axes, units, "deg/s", f"reach {most:.3g}")
    return units


def _conclude(windows, axes, units, unit, why):
    for k in axes:
        units[k] = unit
    names = ", ".join(windows.channels[k] for k in axes)
    text = "%s: %s %s, so they are taken to be in %s (Windows(..., units=...) says what they are)"
    logging.getLogger(__name__).warning(text, windows.name, names, why, unit)
