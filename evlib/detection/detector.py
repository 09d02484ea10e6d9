"""Detection: a recording in, events out. One type of detector for all methods, one file on disk.

`detect` finds candidates (`evlib.detection.candidates`, `evlib.templates.pursue`), gives each its log odds, and keeps
those over their threshold as the refractory rule allows. `detect_events_from_sequence` and `batch_inference` find the
events in single windows with a model alone, as the original classifier does.
"""

import logging
import math
import reprlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch.nn.utils.rnn import pad_sequence

from ..networks.context import ContextLSTM
from ..networks.event_specific import EventSpecificClassifier
from ..networks.frames import FrameNetwork
from ..networks.threads import few_threads
from ..scoring.refractory import decode_refractory
from ..signals.clock import split_time
from ..signals.errors import (
    DataError,
    EvlibError,
    OptionError,
    ShapeError,
    log_odds_of,
    require,
    require_instance,
    require_int,
    require_known,
    require_number,
    require_positive,
)
from ..signals.events import Events
from ..signals.gaps import inside, silent
from ..signals.recording import Recording, numbered, require_rate_of
from ..signals.refractory import Refractory
from ..templates.bank import TemplateBank
from ..templates.drift import DriftingTemplates
from ..templates.pursue import HALO_LENGTHS, Candidates, find_candidates
from ..templates.whiten import Whitener
from ..training.checkpoints import load, rebuild, save, whitener_of, whitener_state
from .candidates import HALO_FRAMES, TILE_FRAMES, frame_candidates, join, window_candidates
from .clocks import clock_lag, on_one_clock
from .drift import DIFFERENT, template_drift
from .durations import farthest_end
from .noise import noise_problems
from .rhythm import Rhythm

# The networks that a detector may hold, by the class that each is, and the plain values of its bank.
NETWORKS = {"network": "ContextLSTM", "classifier": "EventSpecificClassifier", "frames": "FrameNetwork"}
BANK_VALUES = ("before", "names", "amplitude_spread", "evidence_scale", "most_unexplained")
NOT_NEGATIVE = ("timing_error_s", "timing_scale", "same_event_s", "exact_s", "most_doubted")
# An amplitude below this is taken for this much in the bound of an event's time: what is so weak has no time.
LEAST_AMPLITUDE = 0.05
# What reaches its threshold exceeds it by this much: a rise of 0 is an event.
TIE = 1e-9
# Seconds of a recording that are searched at a time, and the least in template lengths.
BLOCK_S, BLOCK_LENGTHS = 60.0, 4


@dataclass(frozen=True, eq=False)
class Detector:
    """Everything that turns a recording into events; made by :func:`evlib.fit`, kept by :meth:`save`.

    It does not change: `dataclasses.replace` makes another one, say with other thresholds.

    Parameters
    ----------
    whitener, bank : preprocessing, and templates of all types
    thresholds : (E,) log odds; a candidate is kept at or over the one of its type
    refractory_s : dict name -> seconds
    prior_logit : log odds that are taken from the templates' log-likelihood ratios
    timing_error_s, timing_scale : ``sigma_s`` of an event is the Cramer-Rao bound times the scale, and the error that
        labels show beyond that
    network : a ContextLSTM, or None
    channels, units : of the recordings that it was trained on
    metadata : where it comes from: method, options, seed, data hash, development F1
    classifier, classifier_window : an EventSpecificClassifier, and samples in the windows that it reads
    calibration : slope and offset that make log odds of the classifier true
    frames : a FrameNetwork, or None
    weights : of templates and of frames in the log odds, and an offset (`evlib.detection.candidates.weigh`)
    same_event_s : what templates and frames find within this time is one event
    exact_s : a template's time is taken where the network's peak is this near
    most_doubted : where context doubts a greater share of clear candidates, the rhythm is not one of the training
        recordings, and evidence alone decides
    durations : of each type, see `evlib.detection.durations`; empty where labels have none. A frame network may know
        where events end: then it has twice as many columns

    Raises
    ------
    OptionError, ShapeError, UnitError : parts that do not belong together, values that are not finite or out of range
    """

    whitener: Whitener
    bank: TemplateBank
    thresholds: np.ndarray
    refractory_s: dict
    prior_logit: float
    timing_error_s: float = 0.0
    network: ContextLSTM | None = None
    channels: tuple = ()
    units: tuple = ()
    metadata: dict = field(default_factory=dict)
    classifier: EventSpecificClassifier | None = None
    classifier_window: int = 0
    timing_scale: float = 1.0
    calibration: tuple = (1.0, 0.0)
    frames: FrameNetwork | None = None
    weights: tuple = (1.0, 0.0, 0.0)
    same_event_s: float = 0.005
    exact_s: float = 0.0
    most_doubted: float = 1.0
    durations: tuple = ()

    def __post_init__(self):
        n_types, n_channels = self.bank.templates.shape[0], self.bank.templates.shape[2]
        counts = {"the whitener": len(self.whitener.taps)}
        for name in ("names", "channels", "units"):
            values = getattr(self, name)
            texts = isinstance(values, tuple) and all(isinstance(value, str) for value in values)
            require(texts, OptionError, f"{name} must be a tuple of texts, got {reprlib.repr(values)}")
            if name != "names":
                counts[name] = len(values) or n_channels
        read_by = {"classifier": self.classifier, "frames": self.frames}
        counts |= {name: model.config["input_size"] for name, model in read_by.items() if model is not None}
        for name, count in counts.items():
            message = f"the templates have {n_channels} channels, {name}: {count}"
            require(count == n_channels, ShapeError, message)
        pairs = isinstance(self.durations, tuple) and all(
            isinstance(pair, tuple | list) and len(pair) == 2 for pair in self.durations
        )
        message = f"durations must be {n_types} pairs of numbers, got {reprlib.repr(self.durations)}"
        require(pairs and len(self.durations) in (0, n_types), OptionError, message)
        require_number(**{f"duration {k}": value for k, value in enumerate(v for pair in self.durations for v in pair)})
        for name, model in self.networks.items():
            known = model.config["num_events"]
            wanted = (n_types, 2 * n_types) if name == "frames" and self.durations else (n_types,)
            require(known in wanted, ShapeError, f"the templates have {n_types} types, {name}: {known}")
        thresholds = np.asarray(self.thresholds)
        whole = thresholds.shape == (n_types,) and thresholds.dtype.kind == "f" and not np.isnan(thresholds).any()
        require(whole, OptionError, f"thresholds must be {n_types} log odds, got {reprlib.repr(thresholds)}")
        Refractory(self.refractory_s, self.names)
        require(len(self.calibration) == 2 and len(self.weights) == 3, OptionError, "want 2 calibration, 3 weights")
        any_sign = dict(enumerate((self.prior_logit, *self.calibration, *self.weights)))
        require_number(-math.inf, **{f"calibration or weight {k}": value for k, value in any_sign.items()})
        sees = self.uses_templates or self.frames is not None or self.classifier is not None
        require(sees, OptionError, f"templates of weight {self.weights[0]:g} and no network find nothing")
        require_number(**{name: getattr(self, name) for name in NOT_NEGATIVE})
        require_int(0, classifier_window=self.classifier_window)
        require_instance(dict, metadata=self.metadata)

    @property
    def names(self) -> tuple:
        """Event names."""
        return self.bank.names

    @property
    def sampling_rate_hz(self) -> float:
        """The rate of the recordings that the detector was made for."""
        return self.whitener.sampling_rate_hz

    @property
    def method(self) -> str:
        """ "lstm", "matched_filter", "frames", "fusion" or "event_specific"."""
        if self.classifier is not None:
            return "event_specific"
        if self.frames is not None:
            return "fusion" if self.uses_templates else "frames"
        return "matched_filter" if self.network is None else "lstm"

    @property
    def networks(self) -> dict:
        """The networks that it holds, by the name of their field."""
        return {name: model for name in NETWORKS if (model := getattr(self, name)) is not None}

    @property
    def uses_templates(self) -> bool:
        """Whether log odds depend on the templates."""
        return self.weights[0] > 0

    def __repr__(self):
        kinds = f"{len(self.names)} types, {len(self.whitener.taps)} channels, {self.sampling_rate_hz:g} Hz"
        compared = self.metadata.get("compared")
        if not compared:
            return f"Detector({self.method}, {kinds})"
        # Of a detector that was chosen: what it was chosen from.
        rows = "".join(
            f"\n  {row['method']:<28} F1 {row['f1']:.3f}{' (kept)' if row['kept'] else ''}" for row in compared
        )
        return f"Detector({self.method}, {kinds}), chosen on development data from{rows}"

    def accept(self, recording: Recording, match_channels: str = "name") -> Recording:
        """A recording with the channels and units that this detector reads, see :meth:`Recording.like`.

        Raises
        ------
        UnitError, ShapeError : another rate, other channels, units that cannot be converted
        """
        hint = f"if resampling is wanted, say so: recording.resample({self.sampling_rate_hz:g})"
        require_rate_of(recording, self.sampling_rate_hz, "the detector", hint)
        channels = self.channels or numbered(len(self.whitener.taps))
        return recording.like(channels, self.units or None, "the detector", match_channels)

    def noise_problems(self, recording: Recording) -> list[str]:
        """What is unusual in the noise of a recording beside that of the training recordings, a sentence each."""
        recording, whitener = self.accept(recording), self.whitener
        moments = whitener.noise_levels(recording)
        return noise_problems(moments, recording.channels, whitener.limits[0], self.metadata.get("noise"))

    def clock_problems(self, recording: Recording) -> list[str]:
        """Whether two halves of the channels run on two clocks, a sentence with the advice."""
        lag = clock_lag(self, recording)
        return [] if lag is None else [f"{lag}; detect puts it on the first one's, Recording.align_clocks does it once"]

    def drift_problems(self, recording: Recording) -> list[str]:
        """Whether events look otherwise than in training, a sentence with the advice."""
        drift = template_drift(self, recording)
        advice = "evlib.detect(..., adapt=True) follows slow changes, labels of the day and another fit mend the rest"
        return [f"{drift}; {advice}"] if drift is not None and drift.share.max() > DIFFERENT else []

    def candidates(
        self,
        recording: Recording,
        start: int = 0,
        stop: int | None = None,
        block: int | None = None,
        advance: Callable = lambda n: None,
        drifting: DriftingTemplates | None = None,
    ) -> Candidates:
        """Everything in samples [start, stop) that may be an event, before any threshold.

        A part has the candidates of a search through the whole recording if it starts at a multiple of
        ``grid_samples``.

        Parameters
        ----------
        recording : Recording
        start, stop : samples; default: the whole recording
        block : samples that are searched at a time, a multiple of ``grid_samples`` is taken; default: a minute; changes
            nothing in the result
        advance : called with the number of samples that are done
        drifting : templates that follow what is found, from `drifting_templates`
        """
        blocks = self._blocks(self.accept(recording), start, stop, block, advance, drifting)
        return Candidates.concatenate(found for _, found in blocks)

    def _blocks(self, recording, start=0, stop=None, block=None, advance=lambda n: None, drifting=None):
        """The candidates of a recording that was accepted, block by block: (the sample behind a block, Candidates). The
        next block is searched while the caller works on one, and while another is read and whitened."""
        stop = recording.n_samples if stop is None else stop
        block = int(BLOCK_S * self.sampling_rate_hz) if block is None else block
        block = -(-max(block, BLOCK_LENGTHS * self.bank.length) // self.grid_samples) * self.grid_samples
        waiting = None
        with ThreadPoolExecutor(1) as pool:
            while start < stop:
                end = min(start + block, stop, drifting.next_move(start) if drifting else stop)
                whitened = self._whitened(recording, start, end)
                done = waiting and waiting.result()
                waiting = pool.submit(self._search, whitened, recording.n_samples, start, end, drifting)
                advance(end - start)
                if done:
                    yield start, done[0]
                start = end
            if waiting:
                yield stop, waiting.result()[0]

    def drifting_templates(self) -> DriftingTemplates:
        """Its templates, ready to follow slow changes in a recording.

        Raises
        ------
        OptionError : a detector without templates
        """
        require(self.uses_templates, OptionError, f"{self.method} has no templates that could follow a drift")
        return DriftingTemplates(self.bank, self.sampling_rate_hz, self.grid_samples)

    def search(self, recording: Recording, start: int, stop: int, drifting=None) -> tuple[Candidates, np.ndarray]:
        """Candidates in samples [start, stop) of a recording that was accepted, and the gaps in all channels there,
        (2, k): first samples, and the samples behind the last ones."""
        return self._search(self._whitened(recording, start, stop), recording.n_samples, start, stop, drifting)

    def _whitened(self, recording, start, stop):
        """The whitened signal that decides samples [start, stop)."""
        low, high = self.depends_on(start, stop)
        return self.whitener(recording, max(low, 0), min(high, recording.n_samples))

    def _search(self, whitened, n, start, stop, drifting=None):
        """What `search` gives, from what `_whitened` gives, of ``n`` samples in all."""
        low = max(self.depends_on(start, stop)[0], 0)
        by_now = replace(self, bank=drifting.bank) if drifting else self
        found = by_now._find(whitened, low, n, start, stop)
        if drifting:
            drifting.note(whitened, low, found, start, stop)
        gaps = np.add(silent(whitened), low)
        after, before = (found.time >= start - 0.5) | (start == 0), (found.time < stop - 0.5) | (stop == n)
        gaps_here = np.clip(gaps, start, stop)
        return found[after & before & ~inside(found.time, *gaps)], gaps_here[:, gaps_here[0] < gaps_here[1]]

    def candidates_in(self, whitened: np.ndarray) -> Candidates:
        """Candidates of whitened signal (n, C) in memory."""
        return self._find(whitened, 0, len(whitened), 0, len(whitened))

    def _find(self, whitened, low, n_samples, start, stop):
        """Candidates in samples [start, stop), and some beyond, of a whitened recording of ``n_samples``, of which
        ``whitened`` (n, C) holds all from ``low`` on that they depend on."""

        def read(first, last):
            return whitened[first - low : last - low]

        if self.classifier is not None:
            return window_candidates(self.classifier, read, n_samples, self.classifier_window, start, stop)
        templates = find_candidates(self.bank, whitened).shift(low) if self.uses_templates else None
        if self.frames is None:
            return templates
        peaks, logit = frame_candidates(self.frames, read, n_samples, templates, start, stop, self.frame_durations)
        if templates is None:
            return peaks
        rate = self.sampling_rate_hz
        return join(templates, peaks, logit, self.names, rate, self.same_event_s * rate, self.exact_s * rate)

    def depends_on(self, start: int, stop: int) -> tuple[int, int]:
        """The whitened samples that decide the candidates in samples [start, stop), also beyond the ends of a
        recording."""
        halo = HALO_LENGTHS * self.bank.length if self.uses_templates else 0
        low, high = start - max(halo, 2 * self.classifier_window), stop + max(halo, 2 * self.classifier_window)
        if self.frames is not None:
            hop, tile = self.frames.resolution, self.grid_samples
            around, behind = HALO_FRAMES * hop, farthest_end(self.frame_durations, TILE_FRAMES) * hop
            low, high = min(low, start // tile * tile - around), max(high, -(-stop // tile) * tile + around + behind)
        return low, high

    @property
    def frame_samples(self) -> int:
        """Samples in a frame of the network that gives the times of candidates, 1 for templates."""
        if self.frames is not None:
            return self.frames.resolution
        return 1 if self.classifier is None else self.classifier.timing_resolution_samples

    @property
    def frame_durations(self) -> tuple:
        """Of a frame network that knows where events end: (median in frames, spread) of each type's durations."""
        if self.frames is None or self.frames.num_events == len(self.names):
            return ()
        rate = self.sampling_rate_hz / self.frames.resolution
        return tuple((median_s * rate, spread) for median_s, spread in self.durations)

    @property
    def grid_samples(self) -> int:
        """Samples at whose multiples the network that reads the signal begins anew; 1 without one."""
        return max(self.classifier_window, 1) if self.frames is None else TILE_FRAMES * self.frames.resolution

    def log_odds(self, candidates: Candidates) -> np.ndarray:
        """(n,) log odds that each candidate of a recording, sorted by time, is an event."""
        return np.concatenate([np.zeros(0), *(part.log_odds for part in Rhythm(self, candidates).judge())])

    def timing_bound(self, candidates: Candidates) -> np.ndarray:
        """(n,) Cramer-Rao bound of the time of each candidate, in samples."""
        information = self.bank.timing_information[candidates.type]
        return 1 / (np.maximum(candidates.amplitude, LEAST_AMPLITUDE) * np.sqrt(information))

    def rise(self, log_odds: np.ndarray, type: np.ndarray, thresholds=None) -> np.ndarray:
        """(n,) by how much log odds exceed the threshold of their type; positive for all that reach it."""
        thresholds = self.thresholds if thresholds is None else thresholds
        rise = log_odds - np.broadcast_to(np.asarray(thresholds, float), len(self.names))[type]
        return rise + TIE * (rise >= 0)

    def keep(self, candidates: Candidates, log_odds: np.ndarray, thresholds=None) -> np.ndarray:
        """Which candidates are events: of those over their threshold the best choice that keeps the refractory rule."""
        rise = self.rise(log_odds, candidates.type, thresholds)
        period = Refractory(self.refractory_s, self.names).samples(self.sampling_rate_hz)
        return decode_refractory(candidates.time, candidates.type, rise, period)

    def decode(self, candidates: Candidates, log_odds: np.ndarray | None = None, thresholds=None) -> Events:
        """The events among candidates, see `keep`."""
        log_odds = self.log_odds(candidates) if log_odds is None else log_odds
        keep = self.keep(candidates, log_odds, thresholds)
        return self.as_events(candidates[keep], log_odds[keep])

    def as_events(self, candidates: Candidates, log_odds: np.ndarray) -> Events:
        """Candidates as events, with probability, expected deviation of the time, and duration."""
        bound_s = self.timing_scale * self.timing_bound(candidates) / self.sampling_rate_hz
        usual_s = np.array([median for median, _ in self.durations] or np.zeros(len(self.names)))[candidates.type]
        lasts_s = candidates.length / self.sampling_rate_hz
        return Events(
            *split_time(candidates.time),
            candidates.type,
            self.names,
            self.sampling_rate_hz,
            score=expit(log_odds),
            sigma_s=np.hypot(bound_s, self.timing_error_s),
            duration_s=np.where(np.isnan(lasts_s), usual_s, lasts_s),
        )

    def save(self, path: str | Path) -> None:
        """Write a file that rebuilds the detector alone; reading it runs no code."""
        arrays = {"templates": self.bank.templates, "log_rate": self.bank.log_rate, "thresholds": self.thresholds}
        save(
            path,
            "Detector",
            {name: getattr(self.bank, name) for name in BANK_VALUES} | {"sampling_rate_hz": self.sampling_rate_hz},
            whitener_state(self.whitener) | {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()},
            **{name: getattr(self, name) for name in VALUES},
            **{name: {"config": model.config, "state": model.state_dict()} for name, model in self.networks.items()},
        )


# What a file holds of a detector as it is: all but its arrays and networks.
VALUES = [f.name for f in fields(Detector) if f.name not in ("whitener", "bank", "thresholds", *NETWORKS)]


def load_detector(path: str | Path) -> Detector:
    """Read a detector written by :meth:`Detector.save`.

    Raises
    ------
    DataError : no file, a damaged or incomplete one, one that would run code (it is not run), one of another format
    """
    content = load(path, "detector")
    if content.get("model_class") != "Detector":
        raise DataError(
            f"{path} is a checkpoint, but not of a detector (evlib.training.checkpoints.load_checkpoint reads those of "
            "single models)"
        )
    try:
        arrays, config = content["model_state_dict"], content["config"]
        of_bank: dict[str, Any] = {name: config[name] for name in BANK_VALUES}
        of_bank |= {"names": tuple(config["names"]), "log_rate": arrays["log_rate"].numpy()}
        values: dict[str, Any] = {name: tuple(v) if isinstance(v := content[name], list) else v for name in VALUES}
        for name, kind in NETWORKS.items():
            if name in content:
                values[name] = rebuild(path, kind, content[name]["config"], content[name]["state"])
        return Detector(
            whitener_of(arrays, config["sampling_rate_hz"]),
            TemplateBank(arrays["templates"].numpy(), **of_bank),
            arrays["thresholds"].numpy(),
            **values,
        )
    except Exception as error:  # the values may be anything
        reason = error if isinstance(error, EvlibError) else repr(error)
        raise DataError(f"{path} is an incomplete or damaged detector: {reason}") from error


def detect(
    detector: Detector,
    recording: Recording,
    threshold: float | dict | None = None,
    block_s: float = BLOCK_S,
    progress: bool = False,
    match_channels: str = "name",
    adapt: bool = False,
) -> Events:
    """Find events in a recording of any length, in bounded memory.

    Where the second half of the channels runs on another clock than the first (two sensors), it is put on the first
    one's, which a log line says.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    recording : Recording at the detector's rate (a different rate is refused; ``recording.resample`` changes it)
    threshold : probability 0 < p < 1 for all types, or a dict name -> p; default: the fitted threshold of each type
    block_s : seconds of signal in memory at a time; changes nothing in the result
    progress : show a progress bar
    match_channels : "name": channels are found by their names, whatever their order; "position" where they have other
        names
    adapt : templates follow what events look like, which slowly changes over minutes to hours (temperature, a sensor
        that slips); where nothing drifts they stay as they are

    Returns
    -------
    Events with ``score`` (probability) and ``sigma_s`` (expected standard deviation of the time). Where training labels
    last, so do events (``duration_s``): up to the end that a frame network sees, else as their kind does in the middle

    Raises
    ------
    UnitError, ShapeError : a recording that does not fit
    OptionError : a threshold that is no probability or names an unknown type, a block that is not positive, ``adapt``
        without templates

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> events = evlib.detect(detector, recording, threshold=0.9)
    >>> bool((events.score >= 0.9 - 1e-9).all())
    True
    """
    from tqdm.auto import tqdm

    require_instance(Detector, "from fit or load_detector; detect(detector, recording)", detector=detector)
    require_instance(Recording, "from read_recording; detect(detector, recording)", recording=recording)
    thresholds = _log_odds_thresholds(threshold, detector)
    require_positive(block_s=block_s)
    recording = on_one_clock(detector, detector.accept(recording, match_channels))
    block = math.ceil(block_s * detector.sampling_rate_hz)
    for text in detector.noise_problems(recording):
        logging.getLogger(__name__).warning(text)
    n_candidates, found, log_odds, strange = 0, [Candidates.empty()], [np.zeros(0)], []
    bar = tqdm(total=recording.n_samples, unit="sample", unit_scale=True, desc="detect", disable=not progress)
    # The number of threads is set around both threads of the search, which would set it back beneath each other.
    with few_threads(), bar:
        drifting = detector.drifting_templates() if adapt else None
        blocks = detector._blocks(recording, block=block, advance=bar.update, drifting=drifting)
        for part in Rhythm(detector).through(blocks):
            over = detector.rise(part.log_odds, part.candidates.type, thresholds) > 0
            found.append(part.candidates[over])
            log_odds.append(part.log_odds[over])
            n_candidates += len(over)
            if part.doubted:
                strange.append((len(over), part.doubted))
    if drifting and (share := drifting.share()) > DIFFERENT:
        text = "templates followed what events look like, by %.0f %% of their energy at the end"
        logging.getLogger(__name__).info(text, 100 * share)
    if strange:
        number, doubted = zip(*strange, strict=True)
        logging.getLogger(__name__).warning(
            "the rhythm is not one of the training recordings: context doubts up to %.0f %% of the clear events; in "
            "%.0f %% of the recording the evidence of each event decides alone",
            100 * max(doubted),
            100 * sum(number) / n_candidates,
        )
    return detector.decode(Candidates.concatenate(found), np.concatenate(log_odds), thresholds)


def _log_odds_thresholds(threshold, detector):
    """Probabilities to log odds per type; None keeps what was fitted."""
    if threshold is None:
        return None
    values = threshold if isinstance(threshold, dict) else dict.fromkeys(detector.names, threshold)
    require_known(values, detector.names, "event type in threshold")
    out = detector.thresholds.copy()
    for name, value in values.items():
        out[detector.names.index(name)] = log_odds_of(value, "threshold")
    return out


def detect_events_from_sequence(model, sequence, threshold=0.5, apply_refractory=True, device=None):
    """Find the events in one sequence.

    Parameters
    ----------
    model : an event model; the mode that it is in is kept
    sequence : (time, channels) array or tensor, prepared like the training windows
    threshold : probability from which an event counts as detected, one or one for each type
    apply_refractory : see `LSTMEventClassifier.predict_events`
    device : where to compute, the model is moved there; None for where it is

    Returns
    -------
    dict of (events,) arrays : ``detected_events`` (1 where detected), ``event_timings`` (samples from the start of the
        sequence, NaN where not detected), ``event_probs``

    Raises
    ------
    ShapeError : not (time, channels), or another number of channels than the model's
    DataError : NaN, infinity, no numbers
    OptionError : a threshold that is no probability

    Examples
    --------
    >>> from evlib import LSTMEventClassifier
    >>> results = detect_events_from_sequence(LSTMEventClassifier(hidden_size=8), np.zeros((2000, 6)))
    >>> results["event_timings"].shape
    (16,)
    """
    results = batch_inference(model, [sequence], 1, threshold, apply_refractory, device)
    return {name: values[0] for name, values in results.items()}


@few_threads()
def batch_inference(model, sequences, batch_size=32, threshold=0.5, apply_refractory=True, device=None):
    """Find the events in many sequences of any lengths; the result for each is the one it would have alone.

    Parameters
    ----------
    model, threshold, apply_refractory, device : as in `detect_events_from_sequence`
    sequences : (n, time, channels) array, or a list of (time, channels) arrays
    batch_size : sequences computed at once

    Returns
    -------
    dict of (n, events) arrays : as `detect_events_from_sequence`

    Raises
    ------
    ShapeError, DataError, OptionError : as in `detect_events_from_sequence`; no sequence at all; a batch size below 1
    """
    require_int(1, batch_size=batch_size)
    if len(sequences) == 0:
        raise ShapeError("sequences is empty: at least one sequence of shape (time, channels) is needed")
    if device is not None:
        model.to(device)
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(sequences), int(batch_size)):
        windows = [
            _check_sequence(sequence, model.input_size) for sequence in sequences[first : first + int(batch_size)]
        ]
        lengths = torch.tensor([len(window) for window in windows])
        batch = pad_sequence(windows, batch_first=True).to(device)
        parts.append(model.predict_events(batch, threshold, apply_refractory, lengths.to(device)))
    names = ("detected_events", "event_timings", "event_probs")
    return {name: torch.cat(values).cpu().numpy() for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _check_sequence(sequence, channels):
    try:
        sequence = np.asarray(sequence, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"a sequence must be an array of numbers (time, channels): {error}") from error
    if sequence.ndim != 2 or sequence.shape[1] != channels or len(sequence) == 0:
        slip = " (are time and channels transposed?)" if sequence.ndim == 2 and sequence.shape[0] == channels else ""
        raise ShapeError(f"a sequence must have shape (time, {channels}), got {sequence.shape}{slip}")
    if not np.isfinite(sequence).all():
        raise DataError(
            "the sequence holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)"
        )
    return torch.tensor(sequence)
