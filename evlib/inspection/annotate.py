"""What a detector does for an annotator: suggested events, better onset times, and training on corrected labels."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logit

from ..detection.detector import Detector, detect
from ..scoring.matching import match_events
from ..signals.clock import distance_to_own
from ..signals.errors import UnitError, require_known, require_seconds
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.refractory import Refractory
from ..templates.bank import refine_peak
from .annotations import AnnotationLog

# Candidates with at least this probability are suggested.
LEAST_PROBABILITY = 0.1
# How far a click may be from the onset, in seconds.
REACH_S = 0.02
# Two events of one type within this, in seconds, are the same event; it has moved if its time differs by at least that.
SAME_EVENT_S, MOVED_S = 0.005, 5e-4
# Log odds that no candidate reaches: a type with this threshold is never detected.
NEVER = 1e9


def suggest(detector: Detector, recording: Recording) -> Events:
    """The events of :func:`evlib.detect`, and less certain candidates that an annotator should look at.

    Candidates below their threshold are suggested too if they have a probability of at least ``LEAST_PROBABILITY`` and
    the refractory rule allows them beside the detected events.

    Parameters
    ----------
    detector, recording : as for :func:`evlib.detect`

    Returns
    -------
    Events with ``score`` (probability)

    Examples
    --------
    >>> import evlib
    >>> from evlib.detection.oracle import oracle_detector
    >>> simulation = evlib.make_recording(duration_s=10.0, snr=4.0, seed=1)
    >>> detector = oracle_detector(simulation)
    >>> len(suggest(detector, simulation.recording)) > len(evlib.detect(detector, simulation.recording))
    True
    """
    return Events.concatenate(_detected_and_doubtful(detector, recording))


def _detected_and_doubtful(detector, recording):
    """The two parts of :func:`suggest`."""
    candidates = detector.candidates(recording)
    log_odds = detector.log_odds(candidates)
    detected = detector.decode(candidates, log_odds)
    period = Refractory(detector.refractory_s, detector.names).samples(detector.sampling_rate_hz)
    # Without a refractory rule, the same event must still not be suggested twice.
    near = np.maximum(period, REACH_S * detector.sampling_rate_hz)[candidates.type]
    free = distance_to_own(candidates.time, candidates.type, detected.time_samples, detected.type) >= near
    return detected, detector.decode(candidates[free], log_odds[free], logit(LEAST_PROBABILITY))


def refine_onset(
    detector: Detector, recording: Recording, time_s: float, type: str | None = None, reach_s: float = REACH_S
) -> tuple[float, str, float]:
    """The best onset near a time: where the signal looks most like an event.

    Overlapping events are explained first, as in detection. Where no candidate is in reach, the highest template score
    decides.

    Parameters
    ----------
    detector, recording : as for :func:`evlib.detect`; only a piece of the recording is read
    time_s : about when, seconds
    type : name of the type of event; None finds it
    reach_s : how far the time may move

    Returns
    -------
    (time_s, type name, score) : the score is the log-likelihood ratio against noise; below 0 noise explains the signal
        better

    Raises
    ------
    OptionError, UnitError : an unknown type, a time outside of the recording, a reach that is not positive

    Examples
    --------
    >>> import evlib
    >>> from evlib.detection.oracle import oracle_detector
    >>> simulation = evlib.make_recording(duration_s=10.0, seed=1)
    >>> onset_s, name = simulation.events.onset_s[5], simulation.events.type_names[5]
    >>> found = refine_onset(oracle_detector(simulation), simulation.recording, onset_s + 0.008)
    >>> found[1] == name, bool(abs(found[0] - onset_s) < 0.0005)
    (True, True)
    """
    recording = detector.accept(recording)
    rate, bank = detector.sampling_rate_hz, detector.bank
    require_known([] if type is None else [type], bank.names)
    if not 0 <= time_s <= recording.duration_s:
        raise UnitError(
            f"time_s must lie in the {recording.duration_s:g} s recorded, got {time_s!r} (samples, or milliseconds?)"
        )
    require_seconds(reach_s=reach_s)
    reach = max(reach_s * rate, 1.0)
    # Signal around it, so that overlapping neighbours are explained.
    halo = int(reach) + 16 * bank.length
    start, stop = max(int(time_s * rate) - halo, 0), min(int(time_s * rate) + halo, recording.n_samples)
    whitened, centre = detector.whitener(recording, start, stop), time_s * rate - start
    wanted = np.arange(len(bank.names)) if type is None else np.array([bank.names.index(type)])
    found = detector.candidates_in(whitened)
    near = (np.abs(found.time - centre) <= reach) & np.isin(found.type, wanted)
    if near.any():
        best = np.flatnonzero(near)[found.llr_isolated[near].argmax()]
        sample, kind, score = found.time[best], found.type[best], found.llr_isolated[best]
    else:
        first, last = np.clip([np.ceil(centre - reach), np.floor(centre + reach)], 1, len(whitened) - 2).astype(int)
        scores = bank.scores(whitened)
        ratio = bank.log_likelihood_ratio(scores[first : last + 1].astype(np.float64))[:, wanted]
        row, column = np.unravel_index(ratio.argmax(), ratio.shape)
        kind, score = wanted[column], ratio[row, column]
        sample = first + row + float(refine_peak(scores, first + row, kind)[0])
    time_s = np.clip((start + sample) / rate, 0, (recording.n_samples - 1) / rate)
    return float(time_s), bank.names[kind], float(score)


@dataclass(frozen=True, eq=False)
class EventDiff:
    """The differences between two detections of one recording.

    ``gained``, ``lost`` : Events that only the later or only the earlier one has; ``kept`` : Events that both have, as
    the later one has them; ``moved`` : those of them whose time differs; ``moved_s`` : by how much in seconds, later is
    positive; ``forgotten`` : names of types that fine-tuning could not learn, because they have no label.
    """

    gained: Events
    lost: Events
    kept: Events
    moved: Events
    moved_s: np.ndarray
    forgotten: tuple = ()

    def __str__(self):
        size = f" (median {1e3 * np.median(np.abs(self.moved_s)):.2g} ms)" if len(self.moved) else ""
        changed = f"{len(self.gained)} gained, {len(self.lost)} lost, {len(self.moved)} moved{size}"
        return f"{changed}, {len(self.kept)} kept"


def diff_events(before: Events, after: Events) -> EventDiff:
    """Compare two detections of one recording, such as before and after fine-tuning.

    Events of one type within ``SAME_EVENT_S`` are the same event; it has moved if its time differs by at least
    ``MOVED_S``.

    Parameters
    ----------
    before, after : Events with the same names

    Raises
    ------
    OptionError : a name that ``before`` does not have

    Examples
    --------
    >>> before = Events.from_seconds([1.0, 2.0], ["a", "a"], 2000)
    >>> print(diff_events(before, Events.from_seconds([1.002, 3.0], ["a", "a"], 2000)))
    1 gained, 1 lost, 1 moved (median 2 ms), 1 kept
    """
    after = after.at_rate(before.sampling_rate_hz).with_names(before.names)
    pairs, dt_samples = match_events(before, after, SAME_EVENT_S)
    earlier, later = pairs.T
    dt_s = dt_samples / before.sampling_rate_hz
    has_moved = np.abs(dt_s) >= MOVED_S
    gained, lost = (np.setdiff1d(np.arange(len(e)), rows) for e, rows in ((after, later), (before, earlier)))
    return EventDiff(after[gained], before[lost], after[later], after[later[has_moved]], dt_s[has_moved])


def fine_tune(
    recording: Recording, log: AnnotationLog, detector: Detector | None = None, method: str | None = None, **options
) -> tuple[Detector, EventDiff]:
    """Train on the labels of a log and detect again; what is found replaces the undecided suggestions of the log.

    A missing label means that nothing happened only in reviewed spans. Types without a label are learned from the
    detections of the old detector, except types of which a suggestion was rejected.

    Parameters
    ----------
    recording, log : what is annotated, and its annotations
    detector : the old one; without it, everything is gained
    method : as for :func:`evlib.fit`; default: that of the old detector
    **options : of :func:`evlib.fit`

    Returns
    -------
    The new detector, and what it finds differently

    Raises
    ------
    DataError : there are no labels to learn from
    """
    from ..detection.fit import fit

    labels, taught, teacher = log.events(), [], None
    unlabelled = [name for name, n in zip(log.names, labels.counts(), strict=True) if n == 0]
    before = Events.empty(log.names, log.sampling_rate_hz)
    if detector is not None:
        method = detector.method if method is None else method
        before = detect(detector, recording).with_names(log.names)
        rejected = {row.type for row in log.rows() if row.status == "rejected"}
        if method != "frames":  # it takes no teacher
            taught = [name for name in unlabelled if name in detector.bank.known_names and name not in rejected]
        if taught:
            thresholds = np.where(np.isin(detector.names, taught), detector.thresholds, NEVER)
            teacher = replace(detector, thresholds=thresholds)
    new = fit([(recording, labels)], method, **{"progress": False, "pretrain": teacher} | options)
    detected, doubtful = _detected_and_doubtful(new, recording)
    log.suggest(Events.concatenate([detected, doubtful]))
    forgotten = tuple(name for name in unlabelled if name not in taught)
    return new, replace(diff_events(before, detected), forgotten=forgotten)
