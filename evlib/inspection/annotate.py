"""What a detector suggests to somebody who annotates: proposals, a better time for a click, and what fine-tuning
changed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..detection.detector import detect
from ..scoring.matching import match_events
from ..scoring.refractory import find_violations
from ..signals.clock import distance_to_own
from ..signals.errors import OptionError, UnitError, log_odds_of
from ..signals.events import Events
from ..signals.refractory import Refractory
from ..templates.bank import refine_peak
from .annotations import AnnotationLog

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
    >>> detector = evlib.detection.oracle.oracle_detector(simulation)
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
    period = Refractory(detector.refractory_s, detector.names).samples(detector.sampling_rate_hz)
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
    (time_s, type name, score) : the score is the log-likelihood ratio against noise: under 0 it does not look like an
    event

    Raises
    ------
    OptionError, UnitError : an unknown type, a time outside of the recording, a reach that is no part of a second

    Examples
    --------
    >>> import evlib
    >>> simulation = evlib.make_recording(duration_s=10.0, seed=1)
    >>> onset_s, name = simulation.events.onset_s[5], simulation.events.type_names[5]
    >>> found = snap(evlib.detection.oracle.oracle_detector(simulation), simulation.recording, onset_s + 0.008)
    >>> found[1] == name, bool(abs(found[0] - onset_s) < 0.0005)
    (True, True)
    """
    detector.check(recording)
    rate, bank = detector.sampling_rate_hz, detector.bank
    if type is not None and type not in bank.names:
        raise OptionError(f"unknown event name {type!r}; the detector knows {', '.join(bank.names)} (a spelling slip?)")
    if not 0 <= time_s <= recording.duration_s:
        raise UnitError(
            f"time_s must lie in the {recording.duration_s:g} s recorded, got {time_s!r} (samples, or milliseconds?)"
        )
    if not 0 < reach_s <= 1:
        raise UnitError(f"reach_s must be seconds between 0 and 1, got {reach_s!r} (milliseconds?)")
    reach = max(reach_s * rate, 1.0)
    # As much around it as neighbours need to be explained.
    halo = int(reach) + 16 * bank.length
    start, stop = max(int(time_s * rate) - halo, 0), min(int(time_s * rate) + halo, recording.n_samples)
    whitened = detector.whitener(recording, start, stop)
    wanted = np.arange(len(bank.names)) if type is None else [bank.names.index(type)]
    found = detector.candidates_in(whitened)
    near = (np.abs(found.time + start - time_s * rate) <= reach) & np.isin(found.type, wanted)
    if near.any():
        best = np.flatnonzero(near)[found.llr_isolated[near].argmax()]
        sample, kind, score = found.time[best], found.type[best], found.llr_isolated[best]
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
    offset, _ = refine_peak(scores, sample, kind)
    return sample + float(offset), kind, ratio[row, column]


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between two detections of one recording.

    ``gained``, ``lost`` : Events that only the later or only the earlier one has; ``after`` : Events that both have, as
    the later one has them. For each row of those: ``before_s`` : when it was, seconds (not in order where two events
    changed places); ``moved`` : whether its time is another; ``moved_s`` : by how much, later is positive.
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
        return (
            f"{len(self.gained)} gained, {len(self.lost)} lost, {self.moved.sum()} moved{size}, {len(self.after)} kept"
        )

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


# --- Annotating with a detector at hand: clicks snap to onsets, proposals are decided, and corrected labels train i


# Annotations of one type this close are one event.
SAME_EVENT_S = 0.005
# Log odds that no candidate reaches.
NEVER = 1e9


class AnnotationSession:
    """A recording, the log of its annotations, and the detector that helps.

    Parameters
    ----------
    recording : Recording
    detector : proposes events, snaps times to the best onset nearby, and is what fine-tuning replaces
    proposals : Events to decide about; a new log begins with what the detector proposes
    log : path of the log, see :class:`evlib.inspection.annotations.AnnotationLog`
    names : names of events; without them those of the detector or of the proposals
    training : (Recording, Events) pairs that fine-tuning learns from too
    refractory_s : the least time between events of one type; default: the detector's, or 2 s

    Raises
    ------
    OptionError : nothing says what the events are called, or the names are not those of the log
    UnitError, ShapeError : the log belongs to another recording, or the detector cannot read this one

    Examples
    --------
    >>> import tempfile, evlib
    >>> simulation = evlib.make_recording(duration_s=10.0, seed=1)
    >>> detector = evlib.detection.oracle.oracle_detector(simulation)
    >>> session = AnnotationSession(simulation.recording, detector, log=tempfile.mkdtemp() + "/log.jsonl")
    >>> row = session.log.proposals()[0]
    >>> session.log.accept(row.id).after.status
    'accepted'
    """

    def __init__(
        self,
        recording,
        detector=None,
        proposals=None,
        log="annotations.jsonl",
        names=None,
        training=(),
        refractory_s=None,
    ):
        is_new = not Path(log).exists()
        if names is None and is_new:
            names = next((source.names for source in (detector, proposals) if source is not None), None)
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
        if proposals is None and detector is not None and is_new:
            proposals = propose(detector, recording)
        if proposals is not None:
            self.log.propose(proposals)

    def snapped(self, time_s, type=None, reach_s=REACH_S):
        """The best onset near a time: (time_s, type, score), see :func:`evlib.inspection.annotate.snap`.

        A kind that the detector does not know stays where it was put, without a score.
        """
        if self.detector is None and type is None:
            raise OptionError("without a detector nothing says which kind of event this is: choose one")
        if self.detector is None or (type is not None and type not in self.detector.names):
            return time_s, type, None
        return snap(self.detector, self.recording, time_s, type, reach_s)

    def add(self, time_s, type=None, exact=False, reach_s=REACH_S):
        """An event at a time; returns its row and the score of its onset, None where nothing scored it.

        ``type`` None leaves the kind to the detector; the time snaps to the best onset in reach, unless ``exact``. What
        is proposed or was rejected there is accepted instead.
        """
        score = None
        if type is None or not exact:
            best_s, type, score = self.snapped(time_s, type, reach_s)
            time_s = time_s if exact else best_s
        same = [row for row in self.log.rows() if row.type == type and abs(row.time_s - time_s) < SAME_EVENT_S]
        if any(row.is_event for row in same):
            raise OptionError(f"{type} at {same[0].time_s:.4f} s is there already (drag it to move it)")
        id = self.log.accept(same[0].id).id if same else self.log.add(time_s, type)
        return self.log[id], score

    def move(self, id, time_s, exact=False, reach_s=REACH_S):
        """Another time for an annotation, snapped to the best onset in reach unless ``exact``; returns the Edit."""
        time_s = float(np.clip(time_s, 0, (self.recording.n_samples - 1) / self.recording.sampling_rate_hz))
        if not exact:
            time_s = self.snapped(time_s, self.log[id].type, reach_s)[0]
        return self.log.move(id, time_s)

    def relabel(self, id, type=None):
        """Another kind; ``type`` None takes what the detector holds for best. Returns the Edit."""
        return self.log.relabel(id, self.snapped(self.log[id].time_s)[1] if type is None else type)

    def delete(self, id):
        """Take an annotation away; a proposal is rejected, so that it is not made again. Returns the Edit."""
        return self.log.reject(id) if self.log[id].status == "proposed" else self.log.delete(id)

    def review(self, start_s, stop_s):
        """Every event in this stretch is annotated; refused while proposals in it are undecided. Returns the Edit."""
        n = sum(start_s <= row.time_s < stop_s for row in self.log.proposals())
        if n:
            raise OptionError(
                f"{n} proposals from {start_s:.2f} s to {stop_s:.2f} s are undecided: accept or reject them first"
            )
        return self.log.review(start_s, stop_s)

    def violations(self):
        """How many pairs of events are closer than the refractory period of their type."""
        return len(find_violations(self.log.events(), self.refractory_s)[0])

    def fine_tune(self, method=None, **options):
        """Train anew on the corrected labels (and ``training``), and detect again; returns what changed.

        Only in reviewed spans does a missing label mean that nothing happened. Kinds without a label are learned from
        what the old detector finds of them, unless what it proposed of them was rejected. The new detector takes the
        place of the old one, and what it proposes the place of what is undecided.

        Parameters
        ----------
        method : as for :func:`evlib.fit`; default: that of the detector
        **options : of :func:`evlib.fit`

        Returns
        -------
        Changes, see :func:`evlib.inspection.annotate.changes`; before there was a detector, everything is gained

        Raises
        ------
        DataError : there are no labels to learn from
        """
        from ..detection.fit import fit

        if method is None and self.detector is not None:
            method = self.detector.method
        options = {"refractory_s": self.refractory_s, "progress": False, "pretrain": self._teacher(method)} | options
        pairs = [(self.recording, self.log.events()), *self.training]
        detector = fit(pairs, method, **options)
        none = Events.empty(self.log.names, self.recording.sampling_rate_hz)
        before = none if self.detector is None else detect(self.detector, self.recording).with_names(self.log.names)
        detected, doubtful = search(detector, self.recording)
        change = changes(before, detected)
        self.detector = detector
        self.log.propose(Events.concatenate([detected, doubtful]))
        return change

    def unlearnable(self, method=None):
        """Names of events that fine-tuning cannot learn: without a label, and not taught by the detector that there
        is."""
        taught = self._taught(method)
        return [name for name in self._unlabelled() if name not in taught]

    def _taught(self, method):
        """Kinds without a label that the detector knows and the annotator has not rejected."""
        if self.detector is None or (method or self.detector.method) == "frames":
            return []
        rejected = {row.type for row in self.log.rows() if row.status == "rejected"}
        return [name for name in self._unlabelled() if name in self.detector.bank.known_names and name not in rejected]

    def _teacher(self, method):
        """The detector, as far as it can teach the next one; None where it has nothing to teach."""
        taught = self._taught(method)
        if not taught:
            return None
        return replace(
            self.detector, thresholds=np.where(np.isin(self.detector.names, taught), self.detector.thresholds, NEVER)
        )

    def _unlabelled(self):
        tables = [self.log.events(), *(events for _, events in self.training)]
        labelled = {name for events in tables for name in events.type_names}
        return [name for name in self.log.names if name not in labelled]
