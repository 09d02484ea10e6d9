"""What a detector suggests to somebody who annotates: proposals, a better time for a click, and what fine-tuning changed."""

from dataclasses import dataclass

import numpy as np

from .errors import OptionError, UnitError
from .events import Events
from .matching import match_events
from .options import log_odds_of
from .refractory import refractory_samples
from .templates import refine_peak
from .timebase import distance_to_own

# Proposals hold whatever is at least so probable.
DOUBT = 0.1
# A click is about this good.
REACH_S = 0.02


def propose(detector, recording, doubt=DOUBT) -> Events:
    """What :func:`evlib.detect` finds, and what it holds for possible: candidates that an annotator should look at.

    Parameters
    ----------
    detector, recording : as for :func:`evlib.detect`
    doubt : candidates under their threshold are proposed too when they are at least so probable and the refractory rule
        allows them beside what is detected

    Returns
    -------
    Events with ``score`` (probability); those that are detected and the doubtful ones together

    Raises
    ------
    OptionError : ``doubt`` is no probability

    Examples
    --------
    >>> import evlib
    >>> simulation = evlib.make_recording(duration_s=10.0, snr=4.0, seed=1)
    >>> detector = evlib.oracle_detector(simulation)
    >>> len(propose(detector, simulation.recording)) > len(evlib.detect(detector, simulation.recording))
    True
    """
    return Events.concatenate(search(detector, recording, doubt))


def search(detector, recording, doubt=DOUBT):
    """The two parts of :func:`propose`: Events that are detected, and doubtful ones."""
    limit = log_odds_of(doubt, "doubt")
    candidates = detector.candidates(recording)
    log_odds = detector.log_odds(candidates)
    detected = detector.decode(candidates, log_odds)
    period = refractory_samples(detector.refractory_s, detector.names, detector.sampling_rate_hz)
    # Without a rule, an event is still no second one of itself.
    near = np.maximum(period, REACH_S * detector.sampling_rate_hz)[candidates.type]
    free = distance_to_own(candidates.time, candidates.type, detected.time_samples, detected.type) >= near
    return detected, detector.decode(candidates[free], log_odds[free], limit)


def snap(detector, recording, time_s, type=None, reach_s=REACH_S):
    """The best onset near a time: where the signal looks most like an event.

    Overlapping events are explained first, as in detection; where no candidate is in reach, the highest template score
    decides.

    Parameters
    ----------
    detector, recording : as for :func:`evlib.detect`; only a piece of the recording is read
    time_s : about when, seconds
    type : name of the kind of event; None finds it
    reach_s : how far the time may move

    Returns
    -------
    (time_s, type name, score) : the score is the log-likelihood ratio against noise: under 0 it does not look like an event

    Raises
    ------
    OptionError, UnitError : an unknown type, a time outside of the recording, a reach that is no part of a second

    Examples
    --------
    >>> import evlib
    >>> simulation = evlib.make_recording(duration_s=10.0, seed=1)
    >>> onset_s, name = simulation.events.onset_s[5], simulation.events.type_names[5]
    >>> found = snap(evlib.oracle_detector(simulation), simulation.recording, onset_s + 0.008)
    >>> found[1] == name, bool(abs(found[0] - onset_s) < 0.0005)
    (True, True)
    """
    detector.check(recording)
    rate, bank = detector.sampling_rate_hz, detector.bank
    if type is not None and type not in bank.names:
        raise OptionError(f"unknown event name {type!r}; the detector knows {', '.join(bank.names)} (a spelling slip?)")
    if not 0 <= time_s <= recording.duration_s:
        raise UnitError(f"time_s must lie in the {recording.duration_s:g} s recorded, got {time_s!r} (samples, or milliseconds?)")
    if not 0 < reach_s <= 1:
        raise UnitError(f"reach_s must be seconds between 0 and 1, got {reach_s!r} (milliseconds?)")
    reach = max(reach_s * rate, 1.0)
    # As much around it as neighbours need to be explained.
    halo = int(reach) + 16 * bank.length
    start, stop = max(int(time_s * rate) - halo, 0), min(int(time_s * rate) + halo, recording.n_samples)
    whitened = detector.whitener(recording, start, stop)
    wanted = np.arange(len(bank.names)) if type is None else [bank.names.index(type)]
    found = detector.find_in(whitened)
    near = (np.abs(found.time + start - time_s * rate) <= reach) & np.isin(found.type, wanted)
    if near.any():
        best = np.flatnonzero(near)[found.alone[near].argmax()]
        sample, kind, score = found.time[best], found.type[best], found.alone[best]
    else:
        sample, kind, score = _highest_score(bank, whitened, time_s * rate - start, reach, wanted)
    time_s = np.clip((start + sample) / rate, 0, (recording.n_samples - 1) / rate)
    return float(time_s), bank.names[kind], float(score)


def _highest_score(bank, whitened, centre, reach, wanted):
    """(sample, type, log-likelihood ratio) of the best template score within reach of a place in whitened signal."""
    first, last = np.clip([np.ceil(centre - reach), np.floor(centre + reach)], 1, len(whitened) - 2).astype(int)
    scores = bank.scores(whitened)
    ratio = bank.log_likelihood_ratio(scores[first : last + 1].astype(np.float64))[:, wanted]
    row, column = np.unravel_index(ratio.argmax(), ratio.shape)
    sample, kind = first + row, wanted[column]
    offset, _ = refine_peak(*(np.float64(scores[sample + step, kind]) for step in (-1, 0, 1)))
    return sample + float(offset), kind, ratio[row, column]


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between two detections of one recording.

    ``gained``, ``lost`` : Events that only the later or only the earlier one has; ``after`` : Events that both have, as the
    later one has them. For each row of those: ``before_s`` : when it was, seconds (not in order where two events changed
    places); ``moved`` : whether its time is another; ``moved_s`` : by how much, later is positive.
    """

    gained: Events
    lost: Events
    after: Events
    before_s: np.ndarray
    moved: np.ndarray
    moved_s: np.ndarray

    def __str__(self):
        moved_ms = 1e3 * np.abs(self.moved_s[self.moved])
        size = f" (median {np.median(moved_ms):.2g} ms)" if len(moved_ms) else ""
        return f"{len(self.gained)} gained, {len(self.lost)} lost, {self.moved.sum()} moved{size}, {len(self.after)} kept"

    def to_frame(self):
        """A pandas table with one row for each kind of event: how many were gained, lost, moved and kept."""
        import pandas as pd

        columns = {
            "gained": self.gained.counts(),
            "lost": self.lost.counts(),
            "moved": self.after[self.moved].counts(),
            "kept": self.after.counts(),
        }
        return pd.DataFrame(columns, index=pd.Index(self.gained.names, name="type"))


def changes(before, after, tolerance_s=0.005, moved_s=5e-4) -> Changes:
    """Compare two detections of one recording, such as before and after fine-tuning.

    Parameters
    ----------
    before, after : Events with the same names on one clock
    tolerance_s : events of one type within this are the same event
    moved_s : from this on, it has moved

    Raises
    ------
    OptionError : ``moved_s`` below 0, a name that ``before`` does not have

    Examples
    --------
    >>> before = Events.from_seconds([1.0, 2.0], ["a", "a"], 2000)
    >>> print(changes(before, Events.from_seconds([1.002, 3.0], ["a", "a"], 2000)))
    1 gained, 1 lost, 1 moved (median 2 ms), 1 kept
    """
    if not moved_s >= 0:
        raise OptionError(f"moved_s must be seconds from 0, got {moved_s!r}")
    after = after.at_rate(before.sampling_rate_hz).with_names(before.names)
    pairs, dt_samples = match_events(before, after, tolerance_s)
    # In the order of the later table: events of two kinds may have changed places.
    order = np.argsort(pairs[:, 1])
    pairs, shift_s = pairs[order], dt_samples[order] / before.sampling_rate_hz
    lost, gained = np.ones(len(before), dtype=bool), np.ones(len(after), dtype=bool)
    lost[pairs[:, 0]], gained[pairs[:, 1]] = False, False
    moved = np.abs(shift_s) >= moved_s
    return Changes(after[gained], before[lost], after[pairs[:, 1]], before.onset_s[pairs[:, 0]], moved, shift_s)
