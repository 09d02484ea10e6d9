"""One function for each method of `evlib.fitting`: a groundwork in, a finished detector out.

Each trains what is its own and hands the detector to `finished`, where development data have their say.
"""

import itertools
import logging
from dataclasses import replace

import numpy as np

from . import development
from .classifier_training import train_classifier
from .context_training import train_context
from .detection import Detector
from .frame_training import EPOCHS, FrameLabels, train_frames
from .fusion import learn_weights
from .learning import PRIOR_LOGIT
from .models.context import LARGEST_VETO
from .pretraining import encoder_for, frame_samples
from .training_data import FEW_LABELS

# Units of the network: of the LSTM in each direction; of each half of a frame; the heads of the event-specific model grow
# with the square, for each type.
HIDDEN_SIZE = {"event_specific": 32, "frames": 48, "lstm": 64}
N_REMIXES = 12
# Log odds that context may be allowed to take away, and the difference in F1 that does not count between them.
VETOES, EQUAL_F1 = (0.0, 1.0, 2.0, 4.0, LARGEST_VETO), 0.001
# The event-specific model reads windows of so many template lengths, at least so many seconds, at most the refractory period.
WINDOW_TEMPLATES, SHORTEST_WINDOW_S = 4, 0.1
# Up to this rate a frame of the frame network is one sample; above, its frames are those of the encoders.
SAMPLES_AS_FRAMES_HZ = 400.0
# Where templates do not fit so large a share of the recordings, the fit says so: less may be a few strange noises.
MUCH_CROWDED = 0.01
# Where so many kinds of ten have enough labels to be learned from the signal itself, auto tries it.
SHARE_OF_KINDS = 0.5
# Detections of the frame network are looked for this far from a label to see how labels scatter, at most.
SCATTER_S, SCATTER_LOGIT = 1.0, -2.0
# A network that reads the signal must be ahead of templates by more than this in F1 before they are not listened to.
CLEARLY_BETTER = 0.05


def matched_filter(ground):
    """The matched filter of the groundwork, its thresholds still open."""
    data, crowded = ground.data, ground.remixer.crowded_share
    if crowded > MUCH_CROWDED:
        logging.getLogger(__name__).warning(
            "templates do not fit: in %.1f %% of the recordings events vary too much or last too long, and many templates "
            'would explain one event (method="frames" reads the signal itself)',
            100 * crowded,
        )
    channels, units = tuple(data.recordings[0].channels), tuple(data.recordings[0].units)
    thresholds = np.zeros(len(data.names))
    return Detector(ground.whitener, ground.bank, thresholds, data.refractory, PRIOR_LOGIT, channels=channels, units=units)


def finished(ground, detector, method, tolerance_s, seed, advance=lambda stage: None, judged=None, **card):
    """The detector with what development data say of it."""
    advance("thresholds")
    data = ground.data
    if tolerance_s is None:
        tolerance_s = max(development.TOLERANCE_S, development.TOLERATED_SIGMAS * ground.jitter / data.rate)
    judged = development.look(detector, ground, seed, tolerance_s) if judged is None else judged
    thresholds, f1 = development.fit_thresholds(detector, judged)
    detector = replace(detector, thresholds=thresholds)
    detector = replace(detector, timing_scale=development.timing_scale(detector, judged))
    detector.timing_error_s = development.timing_error(detector, judged.found, data.train, ground.jitter)
    detector.card = ground.card | {
        "method": method,
        "seed": int(seed),
        "crowded_share": ground.remixer.crowded_share,
        "pretrain": None,
        "freeze_encoder": False,
        "pretext": None,
        "tolerance_s": float(tolerance_s),
        "development_f1": {name: float(value) for name, value in zip(data.names, f1, strict=True)},
        "development_events": judged.n_real,
        "history": [],
        **card,
    }
    return detector


def with_context(ground, tolerance_s, *, hidden_size=None, max_epochs=None, seed, progress, advance, **options):
    """Templates and a context network."""
    data, remixer, detector = ground.data, ground.remixer, matched_filter(ground)
    advance("re-mix")
    tolerance_s = development.TOLERANCE_S if tolerance_s is None else tolerance_s
    judged = development.look(detector, ground, seed, tolerance_s)
    draws = [(k, strange) for k in range(remixer.enough(N_REMIXES)) for strange in (0, 1)]
    train = [remixer.draw(np.random.default_rng([12, seed, k, strange]), strange=bool(strange)) for k, strange in draws]
    known = [
        examples for examples in development.real_examples(judged.found, data.train, tolerance_s, None) if _is_complete(examples)
    ]
    advance("train network")
    detector.network, history = train_context(
        train + known,
        judged.remixed + [examples for examples in judged.real if examples.weight.sum() > 0],
        len(data.names),
        data.rate,
        PRIOR_LOGIT,
        # Labelled signal is worth as much as all re-mixes together: it alone knows how events really vary.
        shares=np.r_[np.full(len(train), 1.0 / len(train)), np.full(len(known), 1.0 / max(len(known), 1))],
        hidden_size=hidden_size or HIDDEN_SIZE["lstm"],
        max_epochs=max_epochs or 12,
        seed=seed,
        progress=progress,
        **options,
    )
    _choose_veto(detector, judged)
    return finished(
        ground, detector, "lstm", tolerance_s, seed, advance, judged, history=history, veto=float(detector.network.veto)
    )


def _choose_veto(detector, judged):
    """The least that context must be allowed to take away for the best F1 on development data; 0 leaves the filter as it is."""
    f1 = []
    for veto in VETOES:
        detector.network.veto.fill_(veto)
        thresholds, _ = development.fit_thresholds(detector, judged)
        f1.append(development.development_f1(replace(detector, thresholds=thresholds), judged))
    best = next(k for k, value in enumerate(f1) if value >= max(f1) - EQUAL_F1)
    detector.network.veto.fill_(VETOES[best])


def with_frames(ground, tolerance_s, *, pretrain, freeze, hidden_size=None, max_epochs=None, seed, progress, advance):
    """A network that reads the signal itself."""
    data, pretext = ground.data, None
    hop = frame_samples(data.rate) if data.rate > SAMPLES_AS_FRAMES_HZ else 1
    hidden_size = hidden_size or HIDDEN_SIZE["frames"]
    if pretrain is not None:
        advance("pretrain encoder")
        pretrain, pretext = encoder_for(pretrain, ground.signals, data.recordings, seed, hidden_size, progress)
    advance("train frame network")
    options = {"hidden_size": hidden_size, "max_epochs": max_epochs or EPOCHS, "seed": seed, "progress": progress}
    labels = frame_labels(ground)
    network, history, _ = train_frames(*labels, hop, data.rate, ground.jitter, encoder=pretrain, freeze=freeze, **options)
    detector = replace(matched_filter(ground), frames=network, weights=(0.0, 1.0, 0.0), prior_logit=0.0)
    if tolerance_s is None:
        tolerance_s = _scatter(detector, ground)
    judged = development.look(detector, ground, seed, tolerance_s)
    detector.weights = _weights(detector, judged)
    card = {"pretrain": pretext and str(pretext.get("pretext")), "pretext": pretext, "freeze_encoder": bool(freeze)}
    return finished(ground, detector, "frames", tolerance_s, seed, advance, judged, history=history, **card)


def frame_labels(ground):
    """What is known of each recording for training, and for development: two lists of FrameLabels."""
    data, train, held = ground.data, [], []
    moment = 10 * max(1.0, data.rate / SAMPLES_AS_FRAMES_HZ)
    for signal, known, unseen in zip(ground.signals, data.signal_train, data.development, strict=True):
        if len(unseen.complete_spans):
            time = np.argsort(unseen.time_samples, kind="stable")
            events = unseen.time_samples[time], unseen.type[time]
            held.append(FrameLabels(signal, *events, unseen.complete_spans, data.apart_samples))
        if len(unseen.complete_spans) and not len(known.complete_spans) + len(known):
            continue  # held out as a whole
        apart = unseen.time_samples[~unseen.is_labelled(unseen.sample)]
        hidden = np.concatenate([unseen.complete_spans, apart[:, None] + [-moment, moment]])
        time = np.argsort(known.time_samples, kind="stable")
        train.append(
            FrameLabels(signal, known.time_samples[time], known.type[time], known.complete_spans, data.apart_samples, hidden)
        )
    return train, held


def _scatter(detector, ground):
    """The tolerance that labels need, by what the network finds around them."""
    data = ground.data
    tables = [
        held if len(held.complete_spans) or len(held) else train
        for held, train in zip(data.development, data.signal_train, strict=True)
    ]
    if not sum(map(len, data.development)):
        tables = data.signal_train
    found = [detector.find_in(signal) if len(table) else None for signal, table in zip(ground.signals, tables, strict=True)]
    found = [c if c is None else c[c.frame > SCATTER_LOGIT] for c in found]
    reach = min(SCATTER_S * data.rate, max(data.apart_samples.min() / 2, data.rate * development.TOLERANCE_S))
    errors, _ = development.label_errors(found, tables, reach, detector)
    return development.tolerance_of(errors, data.rate, max(development.TOLERANCE_S, 1.5 * detector.frames.resolution / data.rate))


def _weights(detector, judged):
    """What templates and frames are worth to each other."""
    examples = judged.real if judged.n_real >= development.ENOUGH_EVENTS else judged.examples
    template_odds = [
        detector.template_odds(e.candidates) if detector.hears_templates else np.zeros(len(e.candidates)) for e in examples
    ]
    columns = ([getattr(e, name) for e in examples] for name in ("target", "weight"))
    frame = np.concatenate([e.candidates.frame for e in examples])
    return learn_weights(np.concatenate(template_odds), frame, *map(np.concatenate, columns), detector.hears_templates)


def fused(ground, base, frames, seed):
    """Templates (with their context, if ``base`` has one) and frames, weighed on development data."""
    tolerance_s = frames.card["tolerance_s"]
    detector = replace(base, frames=frames.frames, weights=(1.0, 1.0, 0.0), same_event_s=tolerance_s)
    found = [base.find_in(signal) if len(t) else None for signal, t in zip(ground.signals, ground.data.train, strict=True)]
    reach = tolerance_s * ground.data.rate
    scatter = []
    for one, candidates in ((base, found), (frames, development.look(frames, ground, seed, tolerance_s).found)):
        errors, _ = development.label_errors(candidates, ground.data.train, reach, one)
        scatter.append(np.median(np.abs(errors)) if len(errors) else np.inf)
    detector.frame_times = bool(scatter[1] < scatter[0])
    judged = development.look(detector, ground, seed, tolerance_s)
    detector.weights = _weights(detector, judged)
    card = {name: frames.card[name] for name in ("pretrain", "pretext", "freeze_encoder")}
    card |= {"history": frames.card["history"], "context_history": base.card["history"]}
    return finished(ground, detector, "fusion", tolerance_s, seed, judged=judged, **card)


def best_of(ground, lstm, frames, tolerance_s, seed):
    """What the data can carry, compared on development data; the best is kept, and the table of what was compared."""
    counts = sum(table.counts() for table in ground.data.train)
    learnable = (counts >= FEW_LABELS).mean() >= SHARE_OF_KINDS
    tried = {}
    if learnable:
        tried["frames"] = frames()
        tolerance_s = tried["frames"].card["tolerance_s"]
    tried["matched_filter"] = finished(ground, matched_filter(ground), "matched_filter", tolerance_s, seed)
    judge = _judge(ground, tolerance_s, seed)
    f1 = {name: judge(detector) for name, detector in tried.items()}
    # Re-mixes are made of templates: where those explain nothing, there is nothing to learn from them.
    if not learnable or f1["matched_filter"] > f1["frames"] - CLEARLY_BETTER:
        tried["lstm"] = lstm()
    if learnable:
        for base in [name for name in ("matched_filter", "lstm") if name in tried]:
            tried[f"fusion with {base}"] = fused(ground, tried[base], tried["frames"], seed)
    f1 = {name: f1.get(name) or judge(detector) for name, detector in tried.items()}
    order = sorted(tried, key=f1.get, reverse=True)
    best = tried[order[0]]
    best.card["compared"] = [{"method": name, "f1": float(f1[name])} for name in order]
    return best


def _judge(ground, tolerance_s, seed):
    """A function that gives the F1 of a detector on development data, all detectors judged alike."""
    tolerance_s = development.TOLERANCE_S if tolerance_s is None else tolerance_s

    def judge(detector):
        judged = development.look(detector, ground, seed, tolerance_s)
        return development.development_f1(detector, judged, real_only=judged.n_real >= development.ENOUGH_EVENTS)

    return judge


def event_specific(ground, tolerance_s, *, n_windows, keep_templates, hidden_size, max_epochs, seed, progress, advance):
    """A network of windows that carries the templates inside, trained on re-mixes."""
    advance("train classifier")
    detector = matched_filter(ground)
    detector.classifier_window = _classifier_window(detector)
    detector.prior_logit = 0.0  # its logits are log odds already
    detector.classifier, history = train_classifier(
        *(_mixes(ground.remixer, number, seed) for number in (12, 11)),
        len(ground.data.names),
        detector.classifier_window,
        frame_samples(ground.data.rate),
        bank=ground.bank,
        keep_templates=keep_templates,
        hidden_size=hidden_size or HIDDEN_SIZE["event_specific"],
        n_windows=n_windows,
        seed=seed,
        max_epochs=max_epochs or 12,
        progress=progress,
    )
    tolerance_s = development.TOLERANCE_S if tolerance_s is None else tolerance_s
    judged = development.look(detector, ground, seed, tolerance_s)
    detector.calibration = development.calibration(detector, judged)
    return finished(ground, detector, "event_specific", tolerance_s, seed, advance, judged, history=history)


def _classifier_window(detector):
    """Samples in a window of the classifier: some templates long, and no longer than the shortest refractory period."""
    rate = detector.sampling_rate_hz
    longest = min([period for period in detector.refractory_s.values() if period > 0], default=1.0)
    return max(4, int(min(max(WINDOW_TEMPLATES * detector.bank.length / rate, SHORTEST_WINDOW_S), longest) * rate) // 4 * 4)


def _mixes(remixer, number, seed):
    """A function that gives another re-mix at each call."""
    count = itertools.count()
    return lambda: remixer.mix(np.random.default_rng([number, seed, next(count)]))[:2]


def _is_complete(examples):
    return bool((examples.weight > examples.target).any())
