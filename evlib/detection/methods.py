"""The methods of :func:`evlib.fit`: each is a function of learned templates and options that returns a `Detector`.

Each trains its own network, and `calibrated` sets thresholds, timing errors and metadata from development data.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..networks.context import UNLIMITED
from ..signals.clock import distance_to_own
from ..signals.streams import stream
from ..templates.learn import PRIOR_LOGIT
from ..training.context import train_context
from ..training.event_specific import train_classifier
from ..training.frames import EPOCHS, LOOKED_THROUGH, NARROWEST_FRAMES, FrameLabels, train_frames
from . import calibrate
from .candidates import join
from .detector import Detector
from .durations import durations_vary, learn_durations
from .prepare import FEW_LABELS, add_events
from .pretrain import Pretrained, frame_samples, network_resolution, pretrain
from .rhythm import doubted_share
from .templates import LearnedTemplates

# Hidden units: of the LSTM in each direction; of each half of the frame network's encoder; of the event-specific model,
# whose heads grow with the square, for each type.
HIDDEN_SIZE = {"event_specific": 32, "frames": 48, "lstm": 64}
MAX_EPOCHS = {"event_specific": 12, "frames": EPOCHS, "lstm": 12}
# Hybrid recordings of full length that the context network learns from, of each kind of rhythm.
N_HYBRIDS = 12
# Log odds that context may take away and add where it is bounded. Where types look alike only context can tell them
# apart, however strong the evidence for either, and it is not bounded.
VETO, BOOST = 2.0, 4.0
# A rhythm is strange where context doubts this many times the share of clear candidates that it doubts in the rhythm of
# the training recordings, and at least this share.
STRANGE_TIMES, STRANGE_SHARE = 2.0, 0.1
# The event-specific model reads windows of this many template lengths and at least this many seconds, but no more than
# the refractory period.
WINDOW_TEMPLATES, SHORTEST_WINDOW_S = 4, 0.1
# Method "auto" trains a network that reads the signal where this share of the types has enough labels for it.
SHARE_OF_TYPES = 0.5
# Log odds of templates and of frames are multiplied by these before they are added: of five pairs the best on a
# simulated frame with fixed and with varying shapes. The most that templates can say balances a network that finds
# nothing.
WEIGHTS = (0.3, 1.0)
# What templates and frames find within this many frames is one event.
SAME_FRAMES = 2.5
# A template's time is taken where the network's is within this many median errors of the network.
EXACT_SCATTERS = 5.0
# Frames around a held-out label that are not learned from, and around an event, in which another candidate of its type
# is its echo.
LABEL_FRAMES = 10
# A teacher's candidates with these log odds count as labels. It must have this F1 on development data to teach, and for
# a context network to be worth training.
SURE_LOG_ODDS, GOOD_TEACHER = 2.5, 0.5
# A method is better than a simpler one if its F1 is higher by this many standard errors.
CLEARLY = 1.0
# Method "auto" trains no network that reads the signal, which takes longer than all else, where the F1 is within this
# many standard errors of 1: nothing could be gained that development data would show.
NOTHING_TO_GAIN = 1.5


@dataclass(frozen=True)
class Options:
    """How a method trains.

    Parameters
    ----------
    pretrain, freeze_encoder, tolerance_s, hidden_size, max_epochs, progress : as in :func:`evlib.fit`;
        ``pretrain`` is a pretext or a checked encoder
    n_windows : windows in an epoch of the event-specific model; default: those of `train_classifier`
    keep_templates : False lets the templates of the event-specific model start from noise, to see what they are worth
    time_embedding : how the context network represents the times between events, see `ContextLSTM`
    advance : called with the name of each stage
    """

    pretrain: str | Pretrained | None = None
    freeze_encoder: bool = False
    tolerance_s: float | None = None
    hidden_size: int | None = None
    max_epochs: int | None = None
    n_windows: int | None = None
    keep_templates: bool = True
    time_embedding: str | None = None
    progress: bool = True
    advance: Callable = lambda stage: None

    def training(self, method: str, seed: int) -> dict:
        """Arguments that the training functions share, with the method's defaults."""
        return {
            "hidden_size": self.hidden_size or HIDDEN_SIZE[method],
            "max_epochs": self.max_epochs or MAX_EPOCHS[method],
            "seed": seed,
            "progress": self.progress,
        }


def template_detector(learned: LearnedTemplates, **options) -> Detector:
    """A matched filter with the learned templates, not calibrated; ``options`` are further fields of the detector."""
    data, first = learned.data, learned.data.recordings[0]
    fields: dict[str, Any] = {"prior_logit": PRIOR_LOGIT, "channels": first.channels, "units": first.units}
    fields |= {"durations": learn_durations(data.train, len(data.names))} | options
    return Detector(learned.whitener, learned.bank, np.zeros(len(data.names)), data.refractory, **fields)


def calibrated(
    learned: LearnedTemplates, detector: Detector, held_out: calibrate.HeldOut, thresholds=None, **metadata
) -> Detector:
    """The detector with what its candidates in development data say: thresholds, unless they are given, timing errors
    and F1."""
    data = learned.data
    if thresholds is None:
        thresholds = calibrate.best_thresholds(detector, held_out)
    scale = calibrate.timing_scale(detector, held_out, thresholds)
    error_s = calibrate.timing_error_s(detector, held_out.found, data.train, learned.jitter, scale)
    _, f1 = calibrate.f1_scores(detector, held_out, thresholds)
    metadata = learned.metadata | {
        "method": detector.method,
        "seed": int(data.seed),
        "crowded_share": learned.hybrids.crowded_share,
        "pretrain": None,
        "freeze_encoder": False,
        "pretext": None,
        "tolerance_s": float(held_out.tolerance_s),
        "development_f1": {name: float(value) for name, value in zip(data.names, f1, strict=True)},
        "development_events": held_out.n_real,
        "history": [],
        **metadata,
    }
    return replace(detector, thresholds=thresholds, timing_scale=scale, timing_error_s=error_s, metadata=metadata)


def matched_filter(learned: LearnedTemplates, options: Options) -> Detector:
    """Templates alone."""
    options.advance("calibrate")
    detector, scattered_s = template_detector(learned), calibrate.TOLERATED_SIGMAS * learned.jitter / learned.data.rate
    tolerance_s = options.tolerance_s or max(calibrate.TOLERANCE_S, scattered_s)
    return calibrated(learned, detector, calibrate.find_held_out(detector, learned, tolerance_s))


def lstm(learned: LearnedTemplates, options: Options) -> Detector:
    """Templates and a context network."""
    data, hybrids, filter_alone = learned.data, learned.hybrids, template_detector(learned)
    options.advance("make hybrid recordings")
    held_out = calibrate.find_held_out(filter_alone, learned, options.tolerance_s or calibrate.TOLERANCE_S)
    train = [
        hybrids.draw(stream("hybrid recordings for training", data.seed, k, strange), strange=strange)
        for k in range(hybrids.enough(N_HYBRIDS))
        for strange in hybrids.rhythms
    ]
    labelled = [e for e in calibrate.label_all(held_out.found, data.train, held_out.tolerance_s) if e.complete]
    options.advance("train context network")
    network, history = train_context(
        train + labelled,
        held_out.hybrid + [examples for examples in held_out.real if examples.weight.sum() > 0],
        len(data.names),
        data.rate,
        PRIOR_LOGIT,
        # Labelled signal counts as much as all hybrid recordings together: it alone shows how events really vary.
        shares=np.r_[np.full(len(train), 1.0 / len(train)), np.full(len(labelled), 1.0 / max(len(labelled), 1))],
        time_embedding=options.time_embedding,
        **options.training("lstm", data.seed),
    )
    detector, limits, thresholds = replace(filter_alone, network=network), (UNLIMITED, UNLIMITED), None
    if True in hybrids.rhythms:
        # In a rhythm that was never seen context has nothing to say: thresholds are those of the filter alone.
        limits, thresholds = (VETO, BOOST), calibrate.best_thresholds(filter_alone, held_out)
        network.limit(*limits)
        home = [examples.candidates for examples in held_out.hybrid[:: len(hybrids.rhythms)]]
        doubted = float(np.mean([doubted_share(filter_alone.log_odds(c), detector.log_odds(c)) for c in home]))
        detector = replace(detector, most_doubted=max(STRANGE_TIMES * doubted, STRANGE_SHARE))
    # Context has its limits, or no effect at all if it brings nothing on development data.
    f1 = {}
    for each in ((0.0, 0.0), limits):
        network.limit(*each)
        chosen = calibrate.best_thresholds(detector, held_out) if thresholds is None else thresholds
        f1[each], _ = calibrate.f1_scores(detector, held_out, chosen)
    network.limit(*max(f1, key=f1.__getitem__))
    metadata = {"veto": float(network.veto), "boost": float(network.boost), "history": history}
    return calibrated(learned, detector, held_out, thresholds, **metadata)


def frames(learned: LearnedTemplates, options: Options) -> Detector:
    """A network that reads the signal itself, taught by the matched filter where that is good enough."""
    teacher = None
    if learned.metadata["self_train"]:
        teacher = matched_filter(learned, options)
        if _compared({"teacher": teacher}, learned)["teacher"][0] < GOOD_TEACHER:
            teacher = None
    return taught_frames(learned, options, teacher)


def taught_frames(learned: LearnedTemplates, options: Options, teacher: Detector | None) -> Detector:
    """A network that reads the signal itself.

    ``teacher`` : with self-training, what it finds for sure counts as labelled where recordings are labelled in part
    """
    data, hop, pretrained = learned.data, network_resolution(learned.data.rate), options.pretrain
    training = options.training("frames", data.seed)
    if pretrained is not None:
        options.advance("pretrain encoder")
    if isinstance(pretrained, str):
        sizes = {name: training[name] for name in ("seed", "hidden_size", "progress")}
        pretrained = pretrain(data.recordings, pretrained, whitened=learned.signals, **sizes)
    options.advance("train frame network")
    labels = frame_labels(learned, teacher if learned.metadata["self_train"] else None)
    training |= {"encoder": getattr(pretrained, "encoder", None), "freeze": options.freeze_encoder}
    network, history, sigma = train_frames(*labels, hop, data.rate, learned.jitter, **training)
    detector = template_detector(learned, frames=network, weights=(0.0, 1.0, 0.0), prior_logit=0.0)
    options.advance("calibrate")
    tolerance_s = options.tolerance_s or _tolerance_s(sigma, hop, data.rate)
    held_out = calibrate.find_held_out(detector, learned, tolerance_s)
    reach = LABEL_FRAMES * hop
    scale = calibrate.logistic_scale(held_out, lambda e: e.candidates.frame, lambda e: _without_echoes(e, reach))
    metadata = {"freeze_encoder": bool(options.freeze_encoder), "history": history}
    if pretrained is not None:
        metadata |= {"pretrain": str(pretrained.metadata.get("pretext")), "pretext": pretrained.metadata}
    return calibrated(learned, replace(detector, weights=(0.0, *scale)), held_out, **metadata)


def frame_labels(learned: LearnedTemplates, teacher: Detector | None = None) -> tuple[list, list]:
    """What is known of each recording for training, and for development: two lists of FrameLabels.

    Where labels leave a recording open, what the ``teacher`` is sure of counts as labelled, and what it doubts is not
    learned from.
    """
    data, train, held_out = learned.data, [], []
    hop = network_resolution(data.rate)
    reach, ends = LABEL_FRAMES * hop, durations_vary(data.train, hop / data.rate)
    for signal, known, held in zip(learned.signals, data.signal_train, data.development, strict=True):
        single = held.time_samples[~held.is_labelled(held.sample)]
        if len(held.labelled_spans) + len(single):
            held_out.append(_frame_labels(data, ends, signal, held))
        if len(held.labelled_spans) and not len(known.labelled_spans) + len(known):
            continue  # held out as a whole
        hidden, options = [held.labelled_spans, single[:, None] + [-reach, reach]], {}
        if teacher is not None and np.diff(known.labelled_spans).sum() < len(signal):
            known, doubtful = _taught(data, teacher, signal, known)
            hidden.append(doubtful[:, None] + [-reach, reach])
            options = {"elsewhere": LOOKED_THROUGH}
        train.append(_frame_labels(data, ends, signal, known, np.concatenate(hidden), **options))
    return train, held_out


def _frame_labels(data, ends, signal, table, *hidden, **options):
    table = table[np.argsort(table.time_samples, kind="stable")]
    length = table.duration_s * data.rate if ends else None
    labels = signal, table.time_samples, table.type, table.labelled_spans, data.apart_samples
    return FrameLabels(*labels, *hidden, length=length, **options)


def _taught(data, teacher, signal, known):
    """The labels and what the teacher is sure of beside them, and the times (n,) of what it doubts."""
    found = teacher.candidates_in(signal)
    odds = teacher.log_odds(found)
    new = ~known.is_labelled(np.floor(found.time + 0.5).astype(int)) & (found.time >= 0) & (found.time < len(signal))
    new &= distance_to_own(found.time, found.type, known.time_samples, known.type) >= data.apart_samples[found.type]
    sure = new & teacher.keep(found, odds) & (odds > SURE_LOG_ODDS)
    doubtful = new & ~sure & (odds > -SURE_LOG_ODDS)
    return add_events(known, found.time[sure], found.type[sure]), found.time[doubtful]


def _without_echoes(examples, reach):
    """(n,) weights, 0 for false candidates within ``reach`` of a true one of their type, which gives way to it."""
    time, type, true = examples.candidates.time, examples.candidates.type, examples.target > 0
    return np.where(~true & (distance_to_own(time, type, time[true], type[true]) <= reach), 0, examples.weight)


def _tolerance_s(sigma, hop, rate):
    """Seconds within which a candidate stands for a label, from the widths (E,) in frames that training arrived at."""
    width = float(np.median(sigma))
    if width <= 1.01 * NARROWEST_FRAMES:
        return max(calibrate.TOLERANCE_S, 1.0 / rate)
    tolerance_s = calibrate.TOLERATED_SIGMAS * width * hop / rate
    return float(np.clip(tolerance_s, calibrate.TOLERANCE_S, calibrate.LONGEST_TOLERANCE_S))


def fusion(learned: LearnedTemplates, options: Options) -> Detector:
    """Templates, context and frames."""
    base = lstm(learned, replace(options, hidden_size=None, max_epochs=None))
    return fused(learned, base, taught_frames(learned, options, base))


def fused(learned: LearnedTemplates, base: Detector, frame_detector: Detector) -> Detector:
    """Templates (with their context, if ``base`` has one) and frames: their log odds are added."""
    tolerance_s = frame_detector.metadata["tolerance_s"]
    same_s = max(tolerance_s, SAME_FRAMES * frame_detector.frame_samples / learned.data.rate)
    exact_s = _exact_s(learned, base, frame_detector, same_s, tolerance_s)
    detector = replace(
        base, frames=frame_detector.frames, weights=(*WEIGHTS, 0.0), same_event_s=same_s, exact_s=exact_s
    )
    metadata = {name: frame_detector.metadata[name] for name in ("pretrain", "pretext", "freeze_encoder", "history")}
    metadata["context_history"] = base.metadata["history"]
    return calibrated(learned, detector, calibrate.find_held_out(detector, learned, tolerance_s), **metadata)


def _exact_s(learned, base, frame_detector, same_s, tolerance_s):
    """How near a peak must lie for its template's time to be taken: always, never, or by the network's own scatter.

    The choice with the smallest errors from labels is taken: an oscillation away, a template is wrong and a peak is
    not.
    """
    data, rate = learned.data, learned.data.rate
    reach = 2 * same_s * rate  # times that are moved to another peak are wrong, not lost
    templates, peaks = (calibrate.find_held_out(one, learned, tolerance_s).found for one in (base, frame_detector))
    own, _ = calibrate.label_errors(peaks, data.train, reach, frame_detector)
    choices = {same_s, 0.0} | ({min(EXACT_SCATTERS * np.median(np.abs(own)) / rate, same_s)} if len(own) else set())
    errors = {}
    for exact_s in sorted(choices, reverse=True):
        joined = [
            None if t is None else join(t, p, np.zeros(len(t)), data.names, rate, same_s * rate, exact_s * rate)
            for t, p in zip(templates, peaks, strict=True)
        ]
        found, _ = calibrate.label_errors(joined, data.train, reach, base)
        errors[exact_s] = np.abs(found).mean() if len(found) else np.inf
    return min(errors, key=errors.__getitem__)


def auto(learned: LearnedTemplates, options: Options) -> Detector:
    """The best method on development data, with the table of what was compared in its metadata.

    Templates first, then what may be better; of two that are not clearly different the simpler one is kept.
    """
    best = "matched_filter"
    counts = sum(table.counts() for table in learned.data.train)
    tried = {best: matched_filter(learned, options)}
    f1 = _compared(tried, learned)
    # Hybrid recordings are made of templates: where those explain nothing, there is nothing to learn from them.
    if f1[best][0] >= GOOD_TEACHER:
        tried["lstm"] = lstm(learned, replace(options, hidden_size=None, max_epochs=None))
        best = _clearly_best(_compared(tried, learned, real_only=False), best, ["lstm"])
        f1 = _compared(tried, learned)
    learnable = (counts >= FEW_LABELS).mean() >= SHARE_OF_TYPES
    if learnable and f1[best][0] + NOTHING_TO_GAIN * f1[best][1] < 1:
        tried["frames"] = taught_frames(learned, options, tried[best] if f1[best][0] >= GOOD_TEACHER else None)
        tried[f"fusion with {best}"] = fused(learned, tried[best], tried["frames"])
        f1 = _compared(tried, learned, tried["frames"].metadata["tolerance_s"])
        best = _clearly_best(f1, best, [f"fusion with {best}", "frames"])
    order = sorted(tried, key=lambda name: -f1[name][0])
    compared = [{"method": name, "f1": f1[name][0], "kept": name == best} for name in order]
    return replace(tried[best], metadata=tried[best].metadata | {"compared": compared})


def _clearly_best(f1, best, others):
    """The best of the others, if it is clearly better than ``best``."""
    other = max(others, key=lambda name: f1[name][0])
    return other if f1[other][0] > f1[best][0] + CLEARLY * f1[best][1] else best


def _compared(tried, learned, tolerance_s=None, real_only=True):
    """F1 of each detector on development data and its standard error; on labels alone where there are enough.

    Where events overlap this is the mean over the recordings as they are and the same events one at a time.
    """
    within = {name: tolerance_s or detector.metadata["tolerance_s"] for name, detector in tried.items()}
    held_out = {name: calibrate.find_held_out(one, learned, within[name]) for name, one in tried.items()}
    # Where few events are labelled, the detector that finds them with the fewest others shows how many there are.
    share = max(calibrate.label_share(detector, held_out[name]) for name, detector in tried.items())
    # Where hybrid recordings say nothing about one of them, none is judged by them.
    enough = [one.n_real >= calibrate.ENOUGH_EVENTS or not one.hybrid for one in held_out.values()]
    scores = {}
    for name, detector in tried.items():
        n_real = held_out[name].n_real
        f1, _ = calibrate.f1_scores(detector, held_out[name], real_only=real_only and any(enough), share=share)
        isolated = calibrate.find_isolated(detector, learned, within[name])
        if isolated is not None:
            f1 = (f1 + calibrate.f1_scores(detector, isolated)[0]) / 2
        n = n_real + (0 if real_only else calibrate.HYBRID_EVENTS * len(detector.names))
        scores[name] = float(f1), float(np.sqrt(f1 * (1 - f1) / max(n, 1.0)))
    return scores


def event_specific(learned: LearnedTemplates, options: Options) -> Detector:
    """A network of windows that holds the templates, trained on hybrid recordings."""
    options.advance("train event-specific model")
    rate, bank = learned.data.rate, learned.bank
    # Some templates long, and no longer than the shortest refractory period.
    longest_s = min([period for period in learned.data.refractory.values() if period > 0], default=1.0)
    window_s = min(max(WINDOW_TEMPLATES * bank.length / rate, SHORTEST_WINDOW_S), longest_s)
    window = max(4, int(window_s * rate) // 4 * 4)
    network, history = train_classifier(
        _hybrid_source(learned, "training"),
        _hybrid_source(learned, "development"),
        len(learned.data.names),
        window,
        frame_samples(rate),
        bank,
        keep_templates=options.keep_templates,
        n_windows=options.n_windows,
        **options.training("event_specific", learned.data.seed),
    )
    # Its logits are log odds already: no prior is taken off.
    detector = template_detector(learned, classifier=network, classifier_window=window, prior_logit=0.0)
    options.advance("calibrate")
    held_out = calibrate.find_held_out(detector, learned, options.tolerance_s or calibrate.TOLERANCE_S)
    # Windows teach it other odds than those of its candidates: in a window a type is rare, and present only as a whole.
    scale = calibrate.logistic_scale(held_out, lambda e: detector.log_odds(e.candidates))
    return calibrated(learned, replace(detector, calibration=scale), held_out, history=history)


def _hybrid_source(learned, purpose):
    """A function that gives another hybrid recording at each call."""
    count = itertools.count()
    purpose = f"hybrid recordings for {purpose}"
    return lambda: learned.hybrids.mix(stream(purpose, learned.data.seed, next(count)))[:2]


# The method of each name, in the order of error messages.
METHODS = {
    "auto": auto,
    "lstm": lstm,
    "matched_filter": matched_filter,
    "frames": frames,
    "fusion": fusion,
    "event_specific": event_specific,
}
