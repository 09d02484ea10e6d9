"""Annotating with a detector at hand: clicks snap to onsets, proposals are decided, and corrected labels train it anew."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .annotations import AnnotationLog
from .detection import detect
from .errors import OptionError
from .events import Events
from .proposals import REACH_S, changes, propose, search, snap
from .refractory import find_violations

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
    log : path of the log, see :class:`evlib.AnnotationLog`
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
    >>> detector = evlib.oracle_detector(simulation)
    >>> session = AnnotationSession(simulation.recording, detector, log=tempfile.mkdtemp() + "/log.jsonl")
    >>> row = session.log.proposals()[0]
    >>> session.log.accept(row.id).after.status
    'accepted'
    """

    def __init__(
        self, recording, detector=None, proposals=None, log="annotations.jsonl", names=None, training=(), refractory_s=None
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
        """The best onset near a time: (time_s, type, score), see :func:`evlib.snap`.

        A kind that the detector does not know stays where it was put, without a score.
        """
        if self.detector is None and type is None:
            raise OptionError("without a detector nothing says which kind of event this is: choose one")
        if self.detector is None or (type is not None and type not in self.detector.names):
            return time_s, type, None
        return snap(self.detector, self.recording, time_s, type, reach_s)

    def add(self, time_s, type=None, exact=False, reach_s=REACH_S):
        """An event at a time; returns its row and the score of its onset, None where nothing scored it.

        ``type`` None leaves the kind to the detector; the time snaps to the best onset in reach, unless ``exact``. What is
        proposed or was rejected there is accepted instead.
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
            raise OptionError(f"{n} proposals from {start_s:.2f} s to {stop_s:.2f} s are undecided: accept or reject them first")
        return self.log.review(start_s, stop_s)

    def violations(self):
        """How many pairs of events are closer than the refractory period of their type."""
        return len(find_violations(self.log.events(), self.refractory_s)[0])

    def fine_tune(self, method=None, **options):
        """Train anew on the corrected labels (and ``training``), and detect again; returns what changed.

        Only in reviewed spans does a missing label mean that nothing happened. Kinds without a label are learned from what
        the old detector finds of them, unless what it proposed of them was rejected. The new detector takes the place of the old
        one, and what it proposes the place of what is undecided.

        Parameters
        ----------
        method : as for :func:`evlib.fit`; default: that of the detector
        **options : of :func:`evlib.fit`

        Returns
        -------
        Changes, see :func:`evlib.changes`; before there was a detector, everything is gained

        Raises
        ------
        DataError : there are no labels to learn from
        """
        from .fitting import fit  # brings torch and the trainers

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
        """Names of events that fine-tuning cannot learn: without a label, and not taught by the detector that there is."""
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
        return replace(self.detector, thresholds=np.where(np.isin(self.detector.names, taught), self.detector.thresholds, NEVER))

    def _unlabelled(self):
        tables = [self.log.events(), *(events for _, events in self.training)]
        labelled = {name for events in tables for name in events.type_names}
        return [name for name in self.log.names if name not in labelled]
