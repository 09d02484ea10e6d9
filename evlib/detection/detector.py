"""Continuous detection with a window classifier: windows that overlap by half, each answering for its middle.

Presence x softmax-over-time is exact where a type occurs at most once, so a window is short. An event whose onset lies
in the middle half of a window is that window's to report; the halves tile the recording, and what two neighbours
report twice is left to the refractory rule. Windows start at whole multiples of the hop from the start of the
recording.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..networks.classifier import evaluating
from ..networks.frames import LEVEL_FRAMES
from ..networks.threads import few_threads
from ..scoring.refractory import decode_refractory
from ..signals.clock import split_time
from ..signals.errors import DataError, OptionError, ShapeError, UnitError, log_odds_of, require_int
from ..signals.events import Events
from ..signals.files import replace_file
from ..signals.recording import cut
from ..signals.refractory import Refractory
from ..templates.bank import TemplateBank
from ..templates.pursue import Candidates, find_candidates
from ..templates.whiten import Whitener
from .fusion import CERTAIN, weigh

BATCH = 256
# Probability below which a window's answer is not worth a look.
LEAST_PROBABILITY = 0.001


def window_candidates(model, read, n_samples, window, block=1 << 17, advance=None) -> Candidates:
    """The most likely occurrence of each type in each window, as candidates with log odds.

    Parameters
    ----------
    model : an event model on whitened signal
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    window : samples in a window, a multiple of 4
    block : samples in memory at a time; changes nothing in the result
    advance : called with the number of samples that are done
    """
    hop = window // 2
    # The first window begins before the recording, so that its middle covers the first samples.
    starts = np.arange(-window // 4, n_samples - window // 4, hop)
    per_block = max(1, block // hop)
    parts = []
    for first in range(0, len(starts), per_block):
        mine = starts[first : first + per_block]
        low, high = int(mine[0]), int(mine[-1]) + window
        signal = read(max(low, 0), min(high, n_samples))
        for k in range(0, len(mine), BATCH):
            some = mine[k : k + BATCH]
            parts.append(_answers(model, cut(signal, some - max(low, 0), window), some, window))
        if advance is not None:
            advance(min(int(mine[-1]) + window // 4 + hop, n_samples) - (int(mine[0]) + window // 4))
    found = Candidates.concatenate(parts)
    return found[(found.time >= 0) & (found.time <= n_samples - 1)]


def _answers(model, windows, starts, window):
    """Candidates of some windows (N, window, C) that begin at ``starts``: onsets in the middle half only."""
    with evaluating(model):
        output = model(torch.from_numpy(windows))
        time = model.times(output).numpy().astype(np.float64)
    logit = output.event_logits.numpy().astype(np.float64)
    keep = (time >= window / 4) & (time < 3 * window / 4) & (logit > np.log(LEAST_PROBABILITY))
    row, type = np.nonzero(keep)
    value = logit[row, type]
    zeros = np.zeros(len(row))
    return Candidates(time[row, type] + starts[row], type, value, value, value, zeros + 1.0, zeros)


# --- Continuous detection with a frame network: its peaks, and what it says of given times.


# Frames of a tile that it answers for, and on either side beyond them: as far as the level of the signal is taken from.
TILE_FRAMES, HALO_FRAMES = 3072, LEVEL_FRAMES
# A peak with less than this log odds is not worth a look: one in four hundred.
LEAST_LOGIT = -6.0
# A peak is the greatest of its type within this many frames to either side; its time is a mean over as many.
PEAK_FRAMES = 2


def read_frames(network, read, n_samples, advance=None):
    """Go through a recording: yields (first frame, logits (F, E), times (F, E)) of one tile after the other.

    Parameters
    ----------
    network : FrameNetwork
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    advance : called with the number of samples that are done

    ``times`` are samples from the start of the recording at which an event that belongs to the frame begins.
    """
    hop = network.resolution
    n_frames = -(-n_samples // hop)
    for first in range(0, n_frames, TILE_FRAMES):
        last = min(first + TILE_FRAMES, n_frames)
        low, high = max(first - HALO_FRAMES, 0), min(last + HALO_FRAMES, n_frames)
        signal = np.ascontiguousarray(read(low * hop, min(high * hop, n_samples)), dtype=np.float32)
        with evaluating(network):
            logits, offsets = (
                part[0].numpy()[first - low : last - low] for part in network(torch.from_numpy(signal)[None])
            )
        middle = (np.arange(first, last) * hop + (hop - 1) / 2)[:, None]
        yield first, logits.astype(np.float64), middle + offsets.astype(np.float64) * hop
        if advance is not None:
            advance(min(last * hop, n_samples) - first * hop)


def frame_candidates(network, read, n_samples, beside=None, advance=None):
    """Peaks of a frame network as candidates, and what it says of those of templates.

    Parameters
    ----------
    network, read, n_samples, advance : as in `read_frames`
    beside : Candidates of templates that are to be judged too, or None

    Returns
    -------
    Candidates : of the network alone, with its logit as ``llr``, ``alone``, ``margin`` and ``frame``
    frame_logit : (len(beside),) the logit of its type in the frame of each of ``beside``, None without
    """
    parts, edge = [], None
    at = None if beside is None else np.full(len(beside), LEAST_LOGIT)
    hop, width = network.resolution, PEAK_FRAMES
    for first, logits, times in read_frames(network, read, n_samples, advance=advance):
        # The last frames of the tile before decide whether the first ones here are peaks.
        if edge is not None:
            logits, times, first = (
                np.concatenate([edge[0], logits]),
                np.concatenate([edge[1], times]),
                first - len(edge[0]),
            )
        whole = (first + len(logits)) * hop >= n_samples
        parts.append(_peaks(logits, times, first, edge is None, whole))
        if at is not None:
            low = 0 if edge is None else (first + width) * hop
            high = n_samples if whole else (first + len(logits) - width) * hop
            rows = slice(
                *np.searchsorted(beside.time, [low if edge is not None else -np.inf, np.inf if whole else high])
            )
            frame = np.clip((beside.time[rows] // hop).astype(int) - first, 0, len(logits) - 1)
            at[rows] = np.maximum(logits[frame, beside.type[rows]], LEAST_LOGIT)
        edge = logits[-2 * width :], times[-2 * width :]
    return Candidates.concatenate(parts), at


def _peaks(logits, times, first, is_start, is_end):
    """Local maxima of a tile; those in its first and last frames are the neighbours' to report."""
    n, width = len(logits), PEAK_FRAMES
    low, high = 0 if is_start else width, n if is_end else n - width
    frame, type = np.nonzero(logits[low:high] > LEAST_LOGIT)
    frame += low
    near = frame[:, None] + np.arange(-width, width + 1)
    inside = (near >= 0) & (near < n)
    near = np.clip(near, 0, n - 1)
    around = np.where(inside, logits[near, type[:, None]], -np.inf)
    # Of equal neighbours the first is the peak.
    top = (around[:, width] >= around.max(1, initial=-np.inf)) & (
        around[:, width] > around[:, :width].max(1, initial=-np.inf)
    )
    frame, type, near, around = frame[top], type[top], near[top], around[top]
    share = np.where(np.isfinite(around), 1 / (1 + np.exp(-around)), 0)
    time = (times[near, type[:, None]] * share).sum(1) / np.maximum(share.sum(1), 1e-12)
    value, zeros = logits[frame, type], np.zeros(len(frame))
    found = Candidates(time, type, value, value, value, zeros + 1.0, zeros, value)
    return found[np.lexsort((type, time))]


# --- Detection: a recording in, events out. One detector type for all methods, one file on disk.


# Files of format 1 hold no frame network.
FORMAT, READABLE = 2, (1, 2)
# An amplitude below this says nothing about its event's time.
LEAST_AMPLITUDE = 0.05
# The network reads this many candidates at a time, which bounds memory, and this many more on either side: by then its
# LSTM has forgotten where it began, and windows change nothing.
WINDOW_CANDIDATES, HALO_CANDIDATES = 8192, 512
# Evidence from these log odds on is clear; context doubts it where it takes away at least so much. So many clear
# candidates tell whether a rhythm is strange.
CLEAR, DOUBTED, TELLING = 3.0, 0.4, 25


@dataclass(eq=False)
class Detector:
    """Everything that turns a recording into events; made by :func:`evlib.fit`, kept by :meth:`save`.

    ``thresholds`` (E,) are log odds; a candidate is kept at or over the one of its type. ``refractory_s`` is a dict
    name -> seconds. The stated ``sigma_s`` of a time is the Cramer-Rao bound times ``timing_scale``, and
    ``timing_error_s`` of the labels' own scatter. ``calibration``, slope and offset, turns the log odds of an
    event-specific model into such as held on development data. ``frames`` is a FrameNetwork; ``weights``
    (`evlib.detection.fusion`) say what templates and frames are worth, ``same_event_s`` how far apart what they find of
    one event may be, ``exact_s`` how near a network's peak must lie for the template's time to be taken.
    ``most_doubted``: where context doubts a greater share of clear candidates, the rhythm is one that training did not
    hold, and evidence alone decides. ``metadata`` says where the detector comes from (method, options, seed, data hash,
    development F1).
    """

    whitener: Whitener
    bank: TemplateBank
    thresholds: np.ndarray
    refractory_s: dict
    prior_logit: float
    timing_error_s: float = 0.0
    network: object = None
    channels: tuple = ()
    units: tuple = ()
    metadata: dict = field(default_factory=dict)
    classifier: object = None
    classifier_window: int = 0
    timing_scale: float = 1.0
    calibration: tuple = (1.0, 0.0)
    frames: object = None
    weights: tuple = (1.0, 0.0, 0.0)
    same_event_s: float = 0.005
    exact_s: float = 0.0
    most_doubted: float = 1.0

    @property
    def names(self):
        """Event names."""
        return self.bank.names

    @property
    def sampling_rate_hz(self):
        """The rate of the recordings that the detector was made for."""
        return self.whitener.sampling_rate_hz

    @property
    def method(self):
        """ "lstm", "matched_filter", "frames", "fusion" or "event_specific"."""
        if self.classifier is not None:
            return "event_specific"
        if self.frames is not None:
            return "fusion" if self.hears_templates else "frames"
        return "matched_filter" if self.network is None else "lstm"

    @property
    def hears_templates(self):
        """Whether anything hinges on the templates."""
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

    def check(self, recording):
        """Refuse a recording that this detector cannot read, in words."""
        if recording.sampling_rate_hz != self.sampling_rate_hz:
            raise UnitError(
                f"the recording has {recording.sampling_rate_hz:g} Hz, the detector was trained at "
                f"{self.sampling_rate_hz:g} Hz; "
                f"if resampling is wanted, say so: recording.resample({self.sampling_rate_hz:g})"
            )
        if recording.shape[1] != len(self.whitener.taps):
            raise ShapeError(
                f"the recording has {recording.shape[1]} channels, the detector was trained on "
                f"{len(self.whitener.taps)}: "
                f"{', '.join(self.channels)}"
            )

    def candidates(self, recording, block=None, advance=None) -> Candidates:
        """Everything that may be an event, before any threshold."""
        self.check(recording)
        return self.find(lambda start, stop: self.whitener(recording, start, stop), recording.n_samples, block, advance)

    def find(self, read, n_samples, block=None, advance=None) -> Candidates:
        """Candidates of whitened signal, of which ``read(start, stop)`` gives (stop - start, C)."""
        options = {} if block is None else {"block": block}
        if self.classifier is not None:
            return window_candidates(
                self.classifier, read, n_samples, self.classifier_window, advance=advance, **options
            )
        if self.frames is None:
            return find_candidates(self.bank, read, n_samples, advance=advance, **options)
        from .fusion import join

        templates = find_candidates(self.bank, read, n_samples, **options) if self.hears_templates else None
        peaks, logit = frame_candidates(self.frames, read, n_samples, templates, advance)
        if templates is None:
            return peaks
        reach = self.same_event_s * self.sampling_rate_hz
        exact = self.exact_s * self.sampling_rate_hz
        return join(templates, peaks, logit, self.names, self.sampling_rate_hz, reach, exact)

    def find_in(self, whitened):
        """Candidates of whitened signal (n, C) in memory."""
        return self.find(lambda start, stop: whitened[start:stop], len(whitened))

    @property
    def frame_samples(self):
        """Samples that the time of a candidate is good to: a frame of the network that reads the signal, else 1."""
        if self.frames is not None:
            return self.frames.resolution
        return 1 if self.classifier is None else self.classifier.timing_resolution_samples

    @property
    def grid_samples(self):
        """Samples at whose multiples the network that reads the signal begins anew; 1 without one."""

        return max(self.classifier_window, 1) if self.frames is None else TILE_FRAMES * self.frames.resolution

    def log_odds(self, candidates, say=False):
        """(n,) log odds that each candidate is an event; ``say`` in the log where the rhythm is strange."""
        if self.frames is None:
            return self.template_odds(candidates, say)
        if not self.hears_templates:
            return weigh(self.weights, np.zeros(len(candidates)), candidates.frame)
        return weigh(self.weights, self.template_odds(candidates, say), candidates.frame)

    def template_odds(self, candidates, say=False):
        """(n,) log odds by templates and their context; minus infinity where only the frame network has a candidate."""
        seen = candidates.llr > -np.inf
        odds = np.full(len(candidates), -np.inf)
        odds[seen] = self._template_odds(candidates[seen], say)
        return odds

    def _template_odds(self, candidates, say):
        slope, offset = self.calibration
        out = slope * (candidates.llr - self.prior_logit) + offset
        if self.network is None:
            return out
        strange, worst = 0, 0.0
        for start in range(0, len(candidates), WINDOW_CANDIDATES):
            stop = min(start + WINDOW_CANDIDATES, len(candidates))
            low, high = max(start - HALO_CANDIDATES, 0), min(stop + HALO_CANDIDATES, len(candidates))
            odds = self._window_log_odds(candidates, low, high)[start - low : stop - low]
            doubted = doubted_share(out[start:stop], odds)
            if doubted > self.most_doubted:
                strange, worst = strange + stop - start, max(worst, doubted)
            else:
                out[start:stop] = odds
        if say and strange:
            logging.getLogger(__name__).warning(
                "a rhythm that training did not hold: context doubts up to %.0f %% of the clear events; in %.0f "
                "%% of the "
                "recording the evidence of each event decides alone",
                100 * worst,
                100 * strange / len(candidates),
            )
        return out

    def _window_log_odds(self, candidates, low, high):
        """Network output for candidates [low, high), whose features see as far beyond as rhythm reaches."""
        import torch

        from ..networks.context import RHYTHM_RANGE_S, context_features, relative_evidence
        from ..networks.threads import few_threads

        reach = (RHYTHM_RANGE_S[1] + 1) * self.sampling_rate_hz
        first, last = np.searchsorted(candidates.time, candidates.time[[low, high - 1]] + [-reach, reach])
        first, last = min(first, max(low - 1, 0)), max(last, min(high + 1, len(candidates)))
        features = context_features(candidates[first:last], self.sampling_rate_hz, self.prior_logit)[
            low - first : high - first
        ]
        with few_threads(), torch.inference_mode():
            llr = relative_evidence(candidates.llr[low:high], self.prior_logit)
            inputs = (features, llr, candidates.type[low:high])
            return (
                self.network.eval()(*(torch.from_numpy(value)[None] for value in inputs))[0].numpy().astype(np.float64)
            )

    def timing_bound(self, candidates):
        """(n,) Cramer-Rao bound of the time of each candidate, in samples."""
        information = self.bank.timing_information[candidates.type]
        return 1 / (np.maximum(candidates.amplitude, LEAST_AMPLITUDE) * np.sqrt(information))

    def keep(self, candidates, log_odds, thresholds=None):
        """Which candidates are over their threshold, in the best choice that the refractory rule allows."""
        thresholds = (
            self.thresholds if thresholds is None else np.broadcast_to(np.asarray(thresholds, float), len(self.names))
        )
        rise = log_odds - thresholds[candidates.type]
        period = Refractory(self.refractory_s, self.names).samples(self.sampling_rate_hz)
        return decode_refractory(candidates.time, candidates.type, rise + 1e-9 * (rise >= 0), period)[0]

    def decode(self, candidates, log_odds=None, thresholds=None) -> Events:
        """The events among candidates, see `keep`."""
        log_odds = self.log_odds(candidates) if log_odds is None else log_odds
        keep = self.keep(candidates, log_odds, thresholds)
        kept = candidates[keep]
        bound_s = self.timing_scale * self.timing_bound(kept) / self.sampling_rate_hz
        return Events(
            *split_time(kept.time),
            kept.type,
            self.names,
            self.sampling_rate_hz,
            score=1 / (1 + np.exp(-np.clip(log_odds[keep], -500, 500))),
            sigma_s=np.hypot(bound_s, self.timing_error_s),
        )

    def save(self, path):
        """Write a checkpoint that rebuilds the detector alone; nothing in it is ever executed when it is read."""
        import torch

        tensors = {
            "templates": self.bank.templates,
            "taps": self.whitener.taps,
            "center": self.whitener.center,
            "thresholds": self.thresholds,
        }
        content = {
            "format": FORMAT,
            "kind": "evlib detector",
            "tensors": {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()},
            "before": int(self.bank.before),
            "names": list(self.names),
            "amplitude_spread": float(self.bank.amplitude_spread),
            "log_rate": self.bank.log_rate.tolist(),
            "trust": float(self.bank.evidence_scale),
            "sampling_rate_hz": float(self.sampling_rate_hz),
            "refractory_s": {str(name): float(value) for name, value in self.refractory_s.items()},
            "prior_logit": float(self.prior_logit),
            "timing_error_s": float(self.timing_error_s),
            "timing_scale": float(self.timing_scale),
            "calibration": [float(value) for value in self.calibration],
            "channels": list(self.channels),
            "units": list(self.units),
            "metadata": self.metadata,
            "network": _plain(self.network),
            "classifier": _plain(self.classifier),
            "classifier_window": int(self.classifier_window),
            "frames": _plain(self.frames),
            "weights": [float(value) for value in self.weights],
            "same_event_s": float(self.same_event_s),
            "exact_s": float(self.exact_s),
            "most_doubted": float(self.most_doubted),
        }
        with replace_file(path) as temporary:
            torch.save(content, temporary)


def doubted_share(evidence, odds):
    """Share of the clear candidates from which context takes something; 0 where few are clear.

    >>> doubted_share(np.full(60, 5.0), np.repeat([4.0, 7.0], 30))
    0.5
    """
    clear = (evidence > CLEAR) & (evidence < CERTAIN)
    return float((odds[clear] < evidence[clear] - DOUBTED).mean()) if clear.sum() >= TELLING else 0.0


def _plain(model):
    return (
        None if model is None else {"class": type(model).__name__, "config": model.config, "state": model.state_dict()}
    )


def _rebuilt(kinds, stored):
    """A model in evaluation mode from its arguments and weights; it must be of one of the ``kinds``."""
    if stored is None:
        return None
    model = {kind.__name__: kind for kind in kinds}[stored["class"]](**stored["config"])
    model.load_state_dict(stored["state"])
    return model.eval()


def load_detector(path) -> Detector:
    """Read a detector written by :meth:`Detector.save`.

    Only numbers and names are read (``weights_only=True``): a file that would run code is refused.
    """
    import torch

    from ..networks.context import UNLIMITED, ContextLSTM
    from ..networks.event_specific import EventSpecificClassifier
    from ..networks.frames import FrameNetwork

    path = Path(path)
    if not path.is_file():
        raise DataError(f"no detector at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged and for hostile files
        raise DataError(
            f"{path} is not a detector that can be read safely: damaged, no checkpoint, or it holds code "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != "evlib detector":
        raise DataError(
            f"{path} is a checkpoint, but not of an evlib detector (evlib.training.checkpoints.load_checkpoint "
            "reads those of single models)"
        )
    if content.get("format") not in READABLE:
        raise DataError(f"{path} has format {content.get('format')!r}; this version of evlib reads formats {READABLE}")
    if (content.get("classifier") or {}).get("class") == "LSTMEventClassifier":
        raise DataError(
            f"{path} is a detector of method 'classifier', which evlib no longer has; fit it anew with "
            "method='frames', a "
            "network that reads the signal and learns from labelled events as recorded"
        )
    if content["format"] == 1 and content.get("network"):
        for bound in ("veto", "boost"):
            content["network"]["state"].setdefault(bound, torch.tensor(UNLIMITED))
    try:
        tensors = {name: value.numpy() for name, value in content["tensors"].items()}
        return Detector(
            Whitener(tensors["taps"], tensors["center"], content["sampling_rate_hz"]),
            TemplateBank(
                tensors["templates"],
                content["before"],
                tuple(content["names"]),
                content["amplitude_spread"],
                content["log_rate"],
                content["trust"],
            ),
            tensors["thresholds"],
            content["refractory_s"],
            content["prior_logit"],
            content["timing_error_s"],
            _rebuilt([ContextLSTM], content["network"]),
            tuple(content["channels"]),
            tuple(content["units"]),
            content["metadata"],
            _rebuilt([EventSpecificClassifier], content["classifier"]),
            content["classifier_window"],
            content["timing_scale"],
            tuple(content["calibration"]),
            _rebuilt([FrameNetwork], content.get("frames")),
            tuple(content.get("weights", (1.0, 0.0, 0.0))),
            content.get("same_event_s", 0.005),
            content.get("exact_s", 0.0),
            content.get("most_doubted", 1.0),
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path} is an incomplete detector: {error}") from error


def detect(detector, recording, threshold=None, block_s=60.0, progress=False) -> Events:
    """Find events in a recording of any length, in bounded memory.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    recording : Recording at the detector's rate (a different rate is refused; ``recording.resample`` changes it)
    threshold : probability 0 < p < 1 for all types, or a dict name -> p; default: the fitted threshold of each type
    block_s : seconds of signal in memory at a time; changes nothing in the result
    progress : show a progress bar

    Returns
    -------
    Events with ``score`` (probability) and ``sigma_s`` (expected standard deviation of the time)
    """
    from tqdm.auto import tqdm

    thresholds = _log_odds_thresholds(threshold, detector)
    if not np.isfinite(block_s) or block_s <= 0:
        raise OptionError(f"block_s must be a positive number of seconds, got {block_s!r}")
    block = max(int(block_s * detector.sampling_rate_hz), 4 * detector.bank.length)
    with tqdm(total=recording.n_samples, unit="sample", unit_scale=True, desc="detect", disable=not progress) as bar:
        found = detector.candidates(recording, block, advance=bar.update)
    return detector.decode(found, detector.log_odds(found, say=True), thresholds)


def _log_odds_thresholds(threshold, detector):
    """Probabilities to log odds per type; None keeps what was fitted."""
    if threshold is None:
        return None
    values = threshold if isinstance(threshold, dict) else dict.fromkeys(detector.names, threshold)
    unknown = sorted(set(values) - set(detector.names))
    if unknown:
        raise OptionError(f"threshold names unknown event types {unknown}; the detector knows {list(detector.names)}")
    out = detector.thresholds.copy()
    for name, value in values.items():
        out[detector.names.index(name)] = log_odds_of(value, "threshold")
    return out


# --- Events in single windows, the original's way. For continuous recordings use ``evlib.detect``.


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
