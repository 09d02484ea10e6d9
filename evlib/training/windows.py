"""Windows of recordings of several data sets, with what is known of each window: the data of networks of patches."""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from ..signals.clock import rate_ratio
from ..signals.errors import DataError, ShapeError, UnitError, require, require_known, require_list, require_rate

SENSORS = re.compile(r"(acc|gyro?|mag|ori)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one data set: the same channels, rate and length.

    Parameters
    ----------
    name : of the data set
    x : (windows, time, channels) finite numbers
    sampling_rate_hz : samples per second
    channels : a name for each channel, as ``waist_acc_x``: triads end in ``_x``, ``_y``, ``_z``
    descriptions : what each channel measures, in words; without it the names
    labels : an activity for each window, or nothing
    groups : the person of each window, or nothing
    sources : the session of each window (windows of one session are not told apart). Without it each its own, a number:
        windows with consecutive numbers follow one another in one recording
    units : one for all channels or one for each; nothing where they are not known

    Raises
    ------
    ShapeError, DataError : what does not fit or is not finite

    Examples
    --------
    >>> windows = Windows("phone", np.zeros((3, 100, 2)), 50.0, ("acc_x", "acc_y"), labels=("walk", "walk", "sit"))
    >>> windows, len(windows[windows.labels == "walk"])
    (Windows(phone: 3 windows of 2 s, 2 channels, 50 Hz, 2 activities), 2)
    """

    name: str
    x: np.ndarray
    sampling_rate_hz: float
    channels: tuple
    descriptions: tuple = ()
    labels: Any = ()
    groups: Any = ()
    sources: Any = ()
    units: Any = ()

    def __post_init__(self):
        plain = not (np.ma.isMaskedArray(self.x) or np.iscomplexobj(self.x))
        message = "windows of plain real numbers are wanted: fill what is masked, drop imaginary parts"
        require(plain, DataError, f"{self.name}: {message}")
        x = np.ascontiguousarray(self.x, dtype=np.float32)
        message = f"{self.name}: windows must be (windows, time, channels), got {x.shape}"
        require(x.ndim == 3 and 0 not in x.shape[1:], ShapeError, message)
        message = f"{self.name}: the windows hold NaN or infinity: fill or cut out such samples first"
        require(np.isfinite(x).all(), DataError, message)
        channels = tuple(map(str, self.channels))
        message = f"{self.name}: {x.shape[2]} channels need a name of their own each, got {channels}"
        require(len(channels) == x.shape[2] == len(set(channels)), ShapeError, message)
        require_list(channels=self.channels, descriptions=self.descriptions)
        descriptions = tuple(self.descriptions) or tuple(name.replace("_", " ") for name in channels)
        message = f"{self.name}: want a description for each of {len(channels)} channels, got {len(descriptions)}"
        require(len(descriptions) == len(channels), ShapeError, message)
        per_window = {name: np.asarray(getattr(self, name)) for name in ("labels", "groups", "sources")}
        for name, values in per_window.items():
            message = f"{self.name}: want one of {name} for each of {len(x)} windows, or none, got {values.shape}"
            require(values.shape in ((0,), (len(x),)), ShapeError, message)
        if not per_window["sources"].size:
            per_window["sources"] = np.arange(len(x))
        rate = require_rate(self.sampling_rate_hz)
        units = (self.units,) * len(channels) if isinstance(self.units, str) else tuple(map(str, self.units))
        message = f"{self.name}: want a unit for each of {len(channels)} channels, or one, got {units}"
        require(len(units) in (0, len(channels)), ShapeError, message)
        vars(self).update(
            x=x, units=units, channels=channels, descriptions=descriptions, sampling_rate_hz=rate, **per_window
        )

    def __len__(self):
        return len(self.x)

    def __repr__(self):
        size = f"{len(self)} windows of {self.duration_s:g} s, {len(self.channels)} channels"
        kinds = f", {len(np.unique(self.labels))} activities" if len(self.labels) else ""
        return f"Windows({self.name}: {size}, {self.sampling_rate_hz:g} Hz{kinds})"

    def __getitem__(self, rows):
        """The windows of some rows: a slice, integers or booleans."""
        rows = np.arange(len(self))[rows]
        fields = {name: getattr(self, name) for name in ("labels", "groups", "sources")}
        fields = {name: values[rows] if len(values) else () for name, values in fields.items()}
        return replace(self, x=self.x[rows], **fields)

    @property
    def duration_s(self):
        """Seconds of a window."""
        return self.x.shape[1] / self.sampling_rate_hz

    def with_channels(self, names):
        """The same windows with some of the channels, in the order of ``names``."""
        require_known(names, self.channels, self.name, "channel")
        at = [self.channels.index(name) for name in names]
        descriptions, units = (tuple(some[k] for k in at if some) for some in (self.descriptions, self.units))
        return replace(self, x=self.x[..., at], channels=tuple(names), descriptions=descriptions, units=units)

    def resample(self, sampling_rate_hz):
        """The same windows at another rate, a ratio of whole numbers up to 1000; what a lower rate cannot show is
        filtered out.

        Raises
        ------
        UnitError : a rate that is none, or that cannot be reached

        >>> Windows("phone", np.zeros((3, 100, 2)), 50.0, ("acc_x", "acc_y")).resample(10.0)
        Windows(phone: 3 windows of 2 s, 2 channels, 10 Hz)
        """
        rate = require_rate(sampling_rate_hz)
        ratio = rate_ratio(self.sampling_rate_hz, rate)
        message = f"{self.name} cannot be resampled from {self.sampling_rate_hz:g} to {rate:g} Hz"
        require(ratio, UnitError, message)
        x = resample_poly(self.x, *ratio, axis=1, padtype="line") if ratio != (1, 1) else self.x
        return replace(self, x=x, sampling_rate_hz=rate)

    def fingerprint(self):
        """A hash of windows, labels and names, as text."""
        words = (self.name, self.sampling_rate_hz, self.channels, self.descriptions, self.units)
        words += tuple(values.tolist() for values in (self.labels, self.groups, self.sources))
        return hashlib.blake2b(repr(words).encode() + self.x.tobytes(), digest_size=8).hexdigest()

    def runs(self):
        """First and last row of the run that each row belongs to: windows that follow one another in one recording.

        A run ends where another person begins, where another session does, and where windows were taken out.

        >>> windows = Windows("phone", np.zeros((3, 100, 1)), 50.0, ("acc_x",), groups=("ann", "ann", "bob"))
        >>> windows.runs()
        (array([0, 0, 2]), array([1, 1, 2]))
        """
        new = np.arange(len(self)) == 0
        new[1:] = self.sources[1:] != self.sources[:-1]
        if np.issubdtype(self.sources.dtype, np.integer):
            new[1:] &= np.diff(self.sources) != 1
        if len(self.groups):
            new[1:] |= self.groups[1:] != self.groups[:-1]
        first = np.flatnonzero(new)
        run = new.cumsum() - 1
        return first[run], (np.append(first, len(self))[1:] - 1)[run]


def split_labels(windows, labels):
    """The windows without those of some labels, and the windows of those labels alone."""
    require_list(labels=labels)
    require_known(labels, [str(label) for label in np.unique(windows.labels)], windows.name, "label")
    out = np.isin(windows.labels, list(labels))
    return windows[~out], windows[out]


def triads(channels):
    """Which channels are the axes of one sensor, and where on the body it sits.

    Returns
    -------
    triads : tuple of three channel numbers each
    locations : tuple of words, one for each triad; sensors of one location turn together

    >>> triads(("waist_acc_x", "waist_acc_y", "waist_acc_z", "ecg", "waist_gyro_x", "waist_gyro_y", "waist_gyro_z"))
    (((0, 1, 2), (4, 5, 6)), ('waist', 'waist'))
    """
    sensors = {}
    for k, name in enumerate(channels):
        if name[-2:].lower() in ("_x", "_y", "_z") and SENSORS.search(name):
            sensors.setdefault(name[:-2], {})[name[-1].lower()] = k
    whole = {sensor: axes for sensor, axes in sensors.items() if len(axes) == 3}
    # What is left of a name without its sensor: "waist_acc", "wrist_total_acc", "acc_ankle".
    parts = [[SENSORS.split(word)[0] for word in re.split("[_ ]+", sensor)] for sensor in whole]
    locations = ["_".join(word for word in words if word not in ("", "total", "body")) for words in parts]
    return tuple(tuple(axes[a] for a in "xyz") for axes in whole.values()), tuple(locations)
