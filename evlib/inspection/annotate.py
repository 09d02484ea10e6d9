"""What a detector does for an annotator: suggested events, better onset times, and training on corrected labels."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..detection.detector import Detector, detect
from ..scoring.matching import match_events
from ..scoring.refractory import find_violations
from ..signals.clock import distance_to_own
from ..signals.errors import OptionError, UnitError, log_odds_of, require_known, require_number
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.refractory import Refractory
from ..templates.bank import refine_peak
from .annotations import Annotation, AnnotationLog, Edit

# Candidates with at least this probability are suggested.
LEAST_PROBABILITY = 0.1
# How far a click may be from the onset, in seconds.
REACH_S = 0.02
# An event added within this of another one of its type, in seconds, is the same event.
SAME_EVENT_S = 0.005
# Log odds that no candidate reaches: a type with this threshold is never detected.
NEVER = 1e9


def suggest(detector: Detector, recording: Recording, least_probability: float = LEAST_PROBABILITY) -> Events:
    """The events of :func:`evlib.detect`, and less certain candidates that an annotator should look at.

    Parameters
    ----------
    detector, recording : as for :func:`evlib.detect`
    least_probability : candidates below their threshold are suggested too if they have at least this probability and
        the refractory rule allows them beside the detected events

    Returns
    -------
    Events with ``score`` (probability)

    Raises
    ------
    OptionError : ``least_probability`` is no probability

    Examples
    --------
    >>> import evlib
    >>> from evlib.detection.oracle import oracle_detector
    >>> simulation = evlib.make_recording(duration_s=10.0, snr=4.0, seed=1)
    >>> detector = oracle_detector(simulation)
    >>> len(suggest(detector, simulation.recording)) > len(evlib.detect(detector, simulation.recording))
    True
    """
    return Events.concatenate(_detected_and_doubtful(detector, recording, least_probability))


def _detected_and_doubtful(detector, recording, least_probability=LEAST_PROBABILITY):
    """The two parts of :func:`suggest`."""
    limit = log_odds_of(least_probability, "least_probability")
    candidates = detector.candidates(recording)
    log_odds = detector.log_odds(candidates)
    detected = detector.decode(candidates, log_odds)
    period = Refractory(detector.refractory_s, detector.names).samples(detector.sampling_rate_hz)
    # Without a refractory rule, the same event must still not be suggested twice.
    near = np.maximum(period, REACH_S * detector.sampling_rate_hz)[candidates.type]
    free = distance_to_own(candidates.time, candidates.type, detected.time_samples, detected.type) >= near
    return detected, detector.decode(candidates[free], log_odds[free], limit)


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
    OptionError, UnitError : an unknown type, a time outside of the recording, a reach not between 0 and 1 s

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
    detector.check(recording)
    rate, bank = detector.sampling_rate_hz, detector.bank
    require_known([] if type is None else [type], bank.names)
    if not 0 <= time_s <= recording.duration_s:
        raise UnitError(
            f"time_s must lie in the {recording.duration_s:g} s recorded, got {time_s!r} (samples, or milliseconds?)"
        )
    if not 0 < reach_s <= 1:
        raise UnitError(f"reach_s must be seconds between 0 and 1, got {reach_s!r} (milliseconds?)")
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

    ``gained``, ``lost`` : Events that only the later or only the earlier one has; ``after`` : Events that both have, as
    the later one has them. For each row of those: ``before_s``, the earlier time in seconds (not sorted where two
    events changed places); ``moved``, whether the times differ; ``moved_s``, by how much, later is positive.
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
        counts = f"{len(self.gained)} gained, {len(self.lost)} lost, {self.moved.sum()} moved{size}"
        return f"{counts}, {len(self.after)} kept"

    @property
    def parts(self) -> dict:
        """Events by what happened to them: gained, lost, moved."""
        return {"gained": self.gained, "lost": self.lost, "moved": self.after[self.moved]}

    def to_frame(self):
        """A pandas table with a row for each type: the numbers of events gained, lost, moved and kept."""
        import pandas as pd

        columns = {name: events.counts() for name, events in (self.parts | {"kept": self.after}).items()}
        return pd.DataFrame(columns, index=pd.Index(self.gained.names, name="type"))


def diff_events(before: Events, after: Events, tolerance_s: float = 0.005, moved_s: float = 5e-4) -> EventDiff:
    """Compare two detections of one recording, such as before and after fine-tuning.

    Parameters
    ----------
    before, after : Events with the same names on one clock
    tolerance_s : events of one type within this are the same event
    moved_s : an event has moved if its time differs by at least this

    Raises
    ------
    OptionError : ``moved_s`` below 0, a name that ``before`` does not have

    Examples
    --------
    >>> before = Events.from_seconds([1.0, 2.0], ["a", "a"], 2000)
    >>> print(diff_events(before, Events.from_seconds([1.002, 3.0], ["a", "a"], 2000)))
    1 gained, 1 lost, 1 moved (median 2 ms), 1 kept
    """
    require_number(0.0, moved_s=moved_s)
    after = after.at_rate(before.sampling_rate_hz).with_names(before.names)
    pairs, dt_samples = match_events(before, after, tolerance_s)
    # In the order of the later table: events of two types may have changed places.
    order = np.argsort(pairs[:, 1])
    pairs, shift_s = pairs[order], dt_samples[order] / before.sampling_rate_hz
    lost, gained = np.ones(len(before), dtype=bool), np.ones(len(after), dtype=bool)
    lost[pairs[:, 0]], gained[pairs[:, 1]] = False, False
    moved = np.abs(shift_s) >= moved_s
    return EventDiff(after[gained], before[lost], after[pairs[:, 1]], before.onset_s[pairs[:, 0]], moved, shift_s)


class AnnotationSession:
    """A recording, the log of its annotations, and the detector that helps.

    Parameters
    ----------
    recording : Recording
    detector : suggests events and refines onset times; fine-tuning replaces it
    suggestions : Events to decide about; default for a new log: those of the detector
    log : path of the log, see :class:`evlib.inspection.annotations.AnnotationLog`
    names : names of events; default: those of the detector or of the suggestions
    training : more (Recording, Events) pairs that fine-tuning learns from
    refractory_s : the least time between events of one type; default: the detector's, or 2 s

    Raises
    ------
    OptionError : no names of events given or known, or names other than those of the log
    UnitError, ShapeError : the log belongs to another recording, or the detector cannot read this one

    Examples
    --------
    >>> import tempfile, evlib
    >>> from evlib.detection.oracle import oracle_detector
    >>> simulation = evlib.make_recording(duration_s=10.0, seed=1)
    >>> detector = oracle_detector(simulation)
    >>> session = AnnotationSession(simulation.recording, detector, log=tempfile.mkdtemp() + "/log.jsonl")
    >>> row = session.log.suggestions()[0]
    >>> session.log.accept(row.id).after.status
    'accepted'
    """

    def __init__(
        self,
        recording: Recording,
        detector: Detector | None = None,
        suggestions: Events | None = None,
        log: str | Path = "annotations.jsonl",
        names=None,
        training=(),
        refractory_s=None,
    ):
        is_new = not Path(log).exists()
        if names is None and is_new:
            names = next((source.names for source in (detector, suggestions) if source is not None), None)
        if detector is not None:
            detector.check(recording)
            missing = [name for name in detector.names if names is not None and name not in names]
            if missing:
                raise OptionError(f"names lacks {', '.join(missing)}, which the detector finds; got {', '.join(names)}")
        self.log = AnnotationLog(log, recording, names)
        self.recording, self.detector, self.training = recording, detector, list(training)
        if refractory_s is None:
            periods = {} if detector is None else detector.refractory_s
            refractory_s = {name: periods.get(name, min(periods.values(), default=2.0)) for name in self.log.names}
        self.refractory_s = refractory_s
        if suggestions is None and detector is not None and is_new:
            suggestions = suggest(detector, recording)
        if suggestions is not None:
            self.log.suggest(suggestions)

    def refined(self, time_s: float, type: str | None = None, reach_s: float = REACH_S):
        """The best onset near a time: (time_s, type, score), see :func:`refine_onset`.

        A type that the detector does not know keeps the time, without a score.
        """
        if self.detector is None and type is None:
            raise OptionError("without a detector the type of this event is unknown: choose one")
        if self.detector is None or (type is not None and type not in self.detector.names):
            return time_s, type, None
        return refine_onset(self.detector, self.recording, time_s, type, reach_s)

    def add(
        self, time_s: float, type: str | None = None, exact: bool = False, reach_s: float = REACH_S
    ) -> tuple[Annotation, float | None]:
        """An event at a time; returns its row and the score of its onset, None where there is none.

        With ``type`` None the detector chooses the type. The time moves to the best onset in reach, unless ``exact``. A
        suggestion or rejected annotation there is accepted instead.
        """
        score = None
        if type is None or not exact:
            best_s, type, score = self.refined(time_s, type, reach_s)
            time_s = time_s if exact else best_s
        same = [row for row in self.log.rows() if row.type == type and abs(row.time_s - time_s) < SAME_EVENT_S]
        if any(row.is_event for row in same):
            raise OptionError(f"{type} at {same[0].time_s:.4f} s is there already (drag it to move it)")
        id = self.log.accept(same[0].id).row.id if same else self.log.add(time_s, type)
        return self.log[id], score

    def move(self, id: int, time_s: float, exact: bool = False, reach_s: float = REACH_S) -> Edit:
        """Another time for an annotation, moved to the best onset in reach unless ``exact``."""
        time_s = float(np.clip(time_s, 0, (self.recording.n_samples - 1) / self.recording.sampling_rate_hz))
        if not exact:
            time_s = self.refined(time_s, self.log[id].type, reach_s)[0]
        return self.log.move(id, time_s)

    def relabel(self, id: int, type: str | None = None) -> Edit:
        """Another type; ``type`` None takes the one that the detector finds most likely."""
        return self.log.relabel(id, self.refined(self.log[id].time_s)[1] if type is None else type)

    def delete(self, id: int) -> Edit:
        """Remove an annotation; a suggestion is rejected instead, so that it is not suggested again."""
        return self.log.reject(id) if self.log[id].status == "suggested" else self.log.delete(id)

    def review(self, start_s: float, stop_s: float) -> Edit:
        """State that every event in this stretch is annotated; refused while suggestions in it are undecided."""
        n = sum(start_s <= row.time_s < stop_s for row in self.log.suggestions())
        if n:
            raise OptionError(
                f"{n} suggestions from {start_s:.2f} s to {stop_s:.2f} s are undecided: accept or reject them first"
            )
        return self.log.review(start_s, stop_s)

    def violations(self) -> int:
        """Number of pairs of events that are closer than the refractory period of their type."""
        return len(find_violations(self.log.events(), self.refractory_s)[0])

    def fine_tune(self, method: str | None = None, **options) -> EventDiff:
        """Train again on the corrected labels (and ``training``), detect again, and return the differences.

        A missing label means that nothing happened only in reviewed spans. Types without a label are learned from the
        detections of the old detector, except types of which a suggestion was rejected. The new detector replaces the
        old one, and its suggestions replace the undecided ones.

        Parameters
        ----------
        method : as for :func:`evlib.fit`; default: that of the detector
        **options : of :func:`evlib.fit`

        Returns
        -------
        EventDiff; without an earlier detector, everything is gained

        Raises
        ------
        DataError : there are no labels to learn from
        """
        from ..detection.fit import fit

        if method is None and self.detector is not None:
            method = self.detector.method
        taught = self._taught(method)
        teacher = None
        if self.detector is not None and taught:
            known = np.isin(self.detector.names, taught)
            teacher = replace(self.detector, thresholds=np.where(known, self.detector.thresholds, NEVER))
        options = {"refractory_s": self.refractory_s, "progress": False, "pretrain": teacher} | options
        pairs = [(self.recording, self.log.events()), *self.training]
        detector = fit(pairs, method, **options)
        before = Events.empty(self.log.names, self.recording.sampling_rate_hz)
        if self.detector is not None:
            before = detect(self.detector, self.recording).with_names(self.log.names)
        detected, doubtful = _detected_and_doubtful(detector, self.recording)
        difference = diff_events(before, detected)
        self.detector = detector
        self.log.suggest(Events.concatenate([detected, doubtful]))
        return difference

    def unlearnable(self, method: str | None = None) -> list[str]:
        """Names of events that fine-tuning cannot learn: without a label, and not taught by the present detector."""
        taught = self._taught(method)
        return [name for name in self._unlabelled() if name not in taught]

    def _taught(self, method):
        """Types without a label that the detector can teach: it knows them, and none of them was rejected."""
        if self.detector is None or (method or self.detector.method) == "frames":
            return []
        rejected = {row.type for row in self.log.rows() if row.status == "rejected"}
        return [name for name in self._unlabelled() if name in self.detector.bank.known_names and name not in rejected]

    def _unlabelled(self):
        tables = [self.log.events(), *(events for _, events in self.training)]
        labelled = {name for events in tables for name in events.type_names}
        return [name for name in self.log.names if name not in labelled]
