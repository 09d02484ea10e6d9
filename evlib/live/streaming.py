"""Detection in a signal that is still coming: the events of `evlib.detect`, each as soon as nothing can change it.

The signal is searched block by block, as soon as all that decides a block is there; candidates wait for the context
network until those around them are known, and for the refractory rule until no later candidate can change the choice.
What is no longer needed is forgotten.
"""

import logging
import math
from dataclasses import fields, replace

import numpy as np
from scipy.special import expit

from ..detection.detector import TIE, Detector
from ..detection.rhythm import Rhythm
from ..scoring.refractory import StreamingDecoder
from ..signals.errors import DataError, OptionError, ShapeError, require_instance, require_number, require_positive
from ..signals.events import Events
from ..signals.recording import Recording
from ..templates.pursue import Candidates

# Seconds of a block: shorter ones come sooner, but what is around a block, some eight seconds, is read with each.
BLOCK_S = 4.0
# Refractory periods that a choice may wait: only chains of candidates of one type take longer, each closer than a
# period to the next.
PERIODS = 10.0
# Numbers that the state of a stream is made of.
NUMBERS = ("begin", "searched", "strange")


class StreamingDetector:
    """Events of a live signal: the union of all pushes is what `evlib.detect` finds in the whole.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    channels, units : of the blocks to come; default: those of the detector
    block_s : seconds that are searched at a time; with a network that reads the signal, rounded up to its tiles
    look_ahead_s : None: wait for all that decides an event. A number: wait only so many seconds after a block, at some
        cost in accuracy
    limit_s : what has waited for so many seconds for the refractory rule is decided in haste, and logged; default: ten
        of the longest periods, or 0 with ``look_ahead_s``
    match_channels, adapt : see :func:`evlib.detect`

    Attributes
    ----------
    n_samples : pushed so far
    unseen : list of spans [start, stop) of samples in which nothing could be seen (gaps in all channels), as far as the
        search has come; whoever reads it may clear it

    Raises
    ------
    UnitError, ShapeError, OptionError : channels that do not fit, values out of range

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=30.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> stream = StreamingDetector(detector)
    >>> parts = [stream.push(recording.read(start, start + 1000)) for start in range(0, 60000, 1000)]
    >>> events = Events.concatenate([*parts, stream.flush()])
    >>> len(events) == len(evlib.detect(detector, recording))
    True
    """

    def __init__(
        self,
        detector: Detector,
        channels=None,
        units=None,
        block_s: float = BLOCK_S,
        look_ahead_s: float | None = None,
        limit_s: float | None = None,
        match_channels: str = "name",
        adapt: bool = False,
    ):
        require_instance(Detector, "from fit or load_detector", detector=detector)
        require_positive(block_s=block_s)
        require_number(look_ahead_s=look_ahead_s or 0.0, limit_s=limit_s or 0.0)
        rate = detector.sampling_rate_hz
        channels = detector.channels or None if channels is None else tuple(channels)
        n_channels = len(channels or detector.whitener.taps)
        probe = Recording(np.eye(n_channels), rate, channels, (detector.units or "") if units is None else units)
        accepted = detector.accept(probe, match_channels)
        # Of each channel of the detector: its number in a block, and the factor of its unit.
        self._index, self._factor = accepted.read(dtype=float).argmax(axis=0), accepted.read(dtype=float).max(axis=0)
        self.detector, self.n_channels = detector, n_channels
        grid = detector.grid_samples if look_ahead_s is None else 1
        self._block = max(1, math.ceil(block_s * rate / grid)) * grid
        self._look_ahead = None if look_ahead_s is None else math.ceil(look_ahead_s * rate)
        longest = max((period or 0.0 for period in detector.refractory_s.values()), default=0.0)
        self.limit_s = (PERIODS * longest if look_ahead_s is None else 0.0) if limit_s is None else float(limit_s)
        self._decoder = StreamingDecoder(detector.names, detector.refractory_s, rate, limit_s=self.limit_s)
        given = (detector.metadata.get("data_hash"), block_s, look_ahead_s, self.limit_s, adapt, self._index.tolist())
        self._options = f"{detector!r} {given}".replace("\n", ";")
        self._decoder.threshold = np.nan_to_num(detector.thresholds - TIE)
        self._adapt = adapt
        self._start_anew()

    def _start_anew(self):
        """Wait for the first sample."""
        self.n_samples, self.unseen, self._over = 0, [], False
        self._kept, self._waiting, self._begin = np.zeros((0, len(self._index)), bool), [], 0
        self._searched, self._strange = 0, False
        self._rhythm = Rhythm(self.detector, waits=self._look_ahead is None)
        self._decoder.reset()
        self._drifting = self.detector.drifting_templates() if self._adapt else None

    @property
    def latency_s(self) -> float:
        """Seconds of signal after an event by which it is returned, at most."""
        samples = self._needed(self._block) + self._rhythm.latency
        return samples / self.detector.sampling_rate_hz + self.limit_s

    @property
    def decided_samples(self) -> int:
        """No event before this sample will come any more."""
        decided = self.n_samples if self._over else self._decoder.decided_samples
        return math.floor(max(0, min(decided, self.n_samples)))

    @property
    def hasty(self) -> int:
        """How many events were decided in haste, at the limit of waiting."""
        return self._decoder.hasty

    def noise_problems(self) -> list[str]:
        """What is unusual in the noise of the last seconds, a sentence each, see :meth:`Detector.noise_problems`; none
        where little signal has come."""
        held, enough = self._held(), 2 * self.detector.whitener.context
        return self.detector.noise_problems(self._recording(held)) if len(held) >= enough else []

    def push(self, block) -> Events:
        """Take samples (n, C), any number of them, and return the Events that are final; their times count from the
        first sample of the stream. NaN are samples that were lost.

        Raises
        ------
        ShapeError, DataError : not (n, C), or no numbers
        """
        try:
            block = np.asarray(block)
        except ValueError as error:
            raise ShapeError(f"a block must be (n, {self.n_channels}) numbers: {error}") from None
        if block.dtype.kind not in "iufb":
            raise DataError(f"a block must hold real numbers, got values of type {block.dtype}")
        if block.ndim != 2 or block.shape[1] != self.n_channels:
            slip = " (transposed?)" if block.ndim == 2 and block.shape[0] == self.n_channels else ""
            raise ShapeError(f"a block must be (n, {self.n_channels}), got {block.shape}{slip}")
        if self._over:
            self._start_anew()
        block = block[:, self._index]
        if (self._factor != 1).any():
            block = (block * self._factor).astype(np.result_type(block.dtype, np.float32))
        self._waiting.append(block)
        self.n_samples += len(block)
        return self._advance()

    def flush(self) -> Events:
        """The rest, for the signal has ended; what is pushed afterwards is another stream."""
        found = [self._empty()]
        if not self._over:
            found = [self._advance(ended=True), self._with_probability(self._decoder.flush())]
        self._over = True
        return Events.concatenate(found)

    def _empty(self):
        return Events.empty(self.detector.names, self.detector.sampling_rate_hz)

    def _advance(self, ended=False):
        """Search and judge what can be; the events that are final now."""
        final, hasty = [self._empty()], self._decoder.hasty
        while self._searched < self.n_samples if ended else self.n_samples >= self._needed(self._next):
            found = self._search(min(self._next, self.n_samples), ended)
            # Judged after each block, so that what is decided in haste does not depend on how the signal was cut.
            final += map(self._decide, self._rhythm.push(found, self._searched - 0.5))
        if ended:
            final += map(self._decide, self._rhythm.judge())
        if self._decoder.hasty > hasty and self._look_ahead is None:
            text = "%d events waited %g s for the refractory rule and were decided in haste"
            logging.getLogger(__name__).warning(text, self._decoder.hasty - hasty, self.limit_s)
        return Events.concatenate(final)

    @property
    def _next(self):
        """The sample behind the block that is searched next."""
        stop = self._searched + self._block
        return min(stop, self._drifting.next_move(self._searched)) if self._drifting else stop

    def _needed(self, stop):
        """Samples that have to be there before all in front of sample ``stop`` is searched."""
        if self._look_ahead is not None:
            return stop + self._look_ahead
        return self.detector.depends_on(stop - self._block, stop)[1] + self.detector.whitener.context

    def _held(self):
        """The samples that are not forgotten, (n, C)."""
        return np.concatenate([self._kept, *self._waiting])

    def _recording(self, signal):
        """A signal as a Recording that the detector accepts."""
        detector = self.detector
        return Recording(signal, detector.sampling_rate_hz, detector.channels or None, detector.units or "")

    def _search(self, stop, ended):
        """The candidates up to sample ``stop``; forget the samples that no later block depends on."""
        detector, start = self.detector, self._searched
        kept = self._held()
        recording = self._recording(_Tail(kept, self._begin))
        found, gaps = detector.search(recording, start, stop, self._drifting)
        # Of a signal that goes on, what lies at the end comes with the next block.
        found = found if ended and stop == self.n_samples else found[found.time < stop - 0.5]
        self._searched = stop
        for first, last in gaps.T.tolist():
            if self.unseen and self.unseen[-1][1] == first:
                first = self.unseen.pop()[0]
            self.unseen.append((first, last))
        low = max(detector.depends_on(stop, stop + self._block)[0] - detector.whitener.context, self._begin)
        self._kept, self._waiting, self._begin = kept[low - self._begin :].copy(), [], low
        return found

    def _decide(self, part):
        """The events that are final now that a part is judged."""
        detector, found, odds = self.detector, part.candidates, part.log_odds
        over = detector.rise(odds, found.type) > 0
        events = replace(detector.as_events(found[over], odds[over]), score=odds[over])
        if part.doubted and not self._strange:
            text = "the rhythm is not one of the training recordings from about %.0f s on: evidence alone decides"
            logging.getLogger(__name__).warning(text, max(part.start, 0.0) / detector.sampling_rate_hz)
        self._strange = part.doubted > 0
        up_to = max(math.floor(min(part.stop, self.n_samples + 1)), self._decoder.up_to_sample)
        return self._with_probability(self._decoder.push(events, up_to))

    def _with_probability(self, events):
        """Events whose score is a probability, from those with log odds."""
        return replace(events, score=expit(events.score))

    def state(self) -> dict:
        """What `restore` needs to go on: arrays and numbers, a few megabytes at most."""
        out = {name: getattr(self, f"_{name}") for name in NUMBERS} | {"n_samples": self.n_samples}
        rhythm = self._rhythm
        out |= {"kept": self._held(), "record": np.array(rhythm.record), "judged": rhythm.judged}
        out |= {"unseen": np.array(self.unseen, dtype=np.int64), "options": self._options}
        out |= {f"found.{field.name}": getattr(rhythm.known, field.name) for field in fields(Candidates)}
        parts = {"decoder": self._decoder} | ({"drifting": self._drifting} if self._drifting else {})
        return out | {f"{part}.{name}": value for part, of in parts.items() for name, value in of.state().items()}

    def restore(self, state) -> None:
        """Go on where `state` was taken, with the same detector and options: the next block begins at its
        ``n_samples``.

        Raises
        ------
        OptionError, DataError : the state of another detector, or with other options; an incomplete one
        """
        if (was := str(state.get("options"))) != self._options:
            raise OptionError(f"the state is of another detector or of other options: {was} instead of {self._options}")
        try:
            self._start_anew()
            for name in NUMBERS:
                setattr(self, f"_{name}", type(getattr(self, f"_{name}"))(state[name]))
            self.n_samples, self._kept = int(state["n_samples"]), np.asarray(state["kept"])
            self._rhythm.known = Candidates(*(np.asarray(state[f"found.{field.name}"]) for field in fields(Candidates)))
            self._rhythm.judged = float(state["judged"])
            self._rhythm.record = [tuple(row) for row in np.asarray(state["record"]).tolist()]
            self.unseen = [tuple(span) for span in np.asarray(state["unseen"]).tolist()]
            for part, of in {"decoder": self._decoder, "drifting": self._drifting}.items():
                if of:
                    of.restore({name.removeprefix(f"{part}."): state[name] for name in state if name.startswith(part)})
        except (KeyError, ValueError, TypeError) as error:
            self._start_anew()
            raise DataError(f"the state of a stream is incomplete or damaged: {error!r}") from error


class _Tail:
    """The last samples of a signal, of which those before ``begin`` are forgotten."""

    ndim = 2

    def __init__(self, kept, begin):
        self.kept, self.begin, self.dtype = kept, begin, kept.dtype
        self.shape = (begin + len(kept), kept.shape[1])

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        if start < self.begin:
            raise IndexError(f"samples before {self.begin} are forgotten, {start} was asked for")
        return self.kept[start - self.begin : stop - self.begin]
