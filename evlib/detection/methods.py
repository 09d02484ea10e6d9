"""One function for each method of `evlib.detection.fit`: a groundwork in, a finished detector out.

Each trains what is its own and hands the detector to `finished`, where development data have their say.
"""

import itertools
import logging
from dataclasses import replace

import numpy as np

from ..networks.context import UNLIMITED
from ..signals.clock import distance_to_own, split_time
from ..signals.events import Events
from ..templates.learn import PRIOR_LOGIT
from ..training.context import train_context
from ..training.event_specific import train_classifier
from ..training.frames import EPOCHS, LOOKED_THROUGH, NARROWEST_FRAMES, FrameLabels, train_frames
from . import development
from .detector import Detector, doubted_share
from .fusion import WORTH, join, learn_scale
from .prepare import FEW_LABELS
from .pretrain import encoder_for, network_resolution
from .pretrain_windows import frame_samples

# Units of the network: of the LSTM in each direction; of each half of a frame; the heads of the event-specific model
# grow with the square, for each type.
HIDDEN_SIZE = {"event_specific": 32, "frames": 48, "lstm": 64}
N_REMIXES = 12
# Log odds that context may take away and add where it is bounded. Where kinds look alike it has to tell them apart,
# however strong the evidence for either.
VETO, BOOST = 2.0, 4.0
# A rhythm is strange where context doubts more than so many times the clear candidates that it doubts in the rhythm
# that was found, and at least such a share.
STRANGE_TIMES, STRANGE_SHARE = 2.0, 0.1
# The event-specific model reads windows of so many template lengths, at least so many seconds, at most the refractory
# period.
WINDOW_TEMPLATES, SHORTEST_WINDOW_S = 4, 0.1
# Where templates do not fit so large a share of the recordings, the fit says so: less may be a few strange noises.
MUCH_CROWDED = 0.01
# Where so many kinds of ten have enough labels to be learned from the signal itself, auto tries it.
SHARE_OF_KINDS = 0.5
# What templates and frames find within so many frames is one event.
SAME_FRAMES = 2.5
# Between a template's time and the network's, so many median errors of the network are nothing strange.
EXACT_SCATTERS = 5.0
# Frames around a single held-out label that are not learned from, and around an event, in which a second candidate is
# its echo.
LABEL_FRAMES = 10
# From these log odds on a teacher is sure; it may teach, and context be learned, where its F1 on development data is at
# least so.
SURE_LOG_ODDS, GOOD_TEACHER = 2.5, 0.5
# Who is ahead by less than so many standard errors of the F1 is not clearly better, and the simpler one is kept.
CLEARLY = 1.0
# Who lies no more than so many standard errors below 1 leaves nothing to win that could be seen: a network that reads
# the signal is not trained then, which takes longer than all else.
NOTHING_TO_WIN = 1.5


def warn_of_crowds(ground):
    """Say in the log where templates do not fit."""
    crowded = ground.remixer.crowded_share
    if crowded > MUCH_CROWDED:
        logging.getLogger(__name__).warning(
            "templates do not fit: in %.1f %% of the recordings events vary too much or last too long, and many "
            "templates "
            'would explain one event (method="frames" reads the signal itself)',
            100 * crowded,
        )


def matched_filter(ground):
    """The matched filter of the groundwork, its thresholds still open."""
    data = ground.data
    channels, units = tuple(data.recordings[0].channels), tuple(data.recordings[0].units)
    thresholds = np.zeros(len(data.names))
    return Detector(
        ground.whitener, ground.bank, thresholds, data.refractory, PRIOR_LOGIT, channels=channels, units=units
    )


def finished(
    ground, detector, method, tolerance_s, seed, advance=lambda stage: None, judged=None, thresholds=None, **metadata
):
    """The detector with what development data say of it, its thresholds too if they are not given."""
    advance("thresholds")
    data = ground.data
    if tolerance_s is None:
        tolerance_s = max(development.TOLERANCE_S, development.TOLERATED_SIGMAS * ground.jitter / data.rate)
    judged = development.look(detector, ground, seed, tolerance_s) if judged is None else judged
    if thresholds is None:
        thresholds, _ = development.fit_thresholds(detector, judged)
    detector = replace(detector, thresholds=thresholds)
    f1 = development.f1_by_type(detector, judged)
    detector = replace(detector, timing_scale=development.timing_scale(detector, judged))
    detector.timing_error_s = development.timing_error(detector, judged.found, data.train, ground.jitter)
    detector.metadata = ground.metadata | {
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
        **metadata,
    }
    return detector


def with_context(ground, tolerance_s, *, hidden_size=None, max_epochs=None, seed, progress, advance, **options):
    """Templates and a context network."""
    data, remixer, detector = ground.data, ground.remixer, matched_filter(ground)
    advance("re-mix")
    tolerance_s = development.TOLERANCE_S if tolerance_s is None else tolerance_s
    judged = development.look(detector, ground, seed, tolerance_s)
    draws = [(k, strange) for k in range(remixer.enough(N_REMIXES)) for strange in remixer.rhythms]
    train = [remixer.draw(np.random.default_rng([12, seed, k, strange]), strange=strange) for k, strange in draws]
    known = [
        examples
        for examples in development.real_examples(judged.found, data.train, tolerance_s, None)
        if _is_complete(examples)
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
    limits, thresholds = (UNLIMITED, UNLIMITED), None
    if True in remixer.rhythms:
        # In a rhythm that was never seen context has nothing to say: what holds then is what holds for the filter
        # alone.
        limits, evidence = (VETO, BOOST), matched_filter(ground)
        thresholds, _ = development.fit_thresholds(evidence, judged)
        detector.network.limit(*limits)
        home = [examples.candidates for examples in judged.remixed[:: len(remixer.rhythms)]]
        doubted = np.mean([doubted_share(evidence.log_odds(c), detector.log_odds(c)) for c in home])
        detector.most_doubted = max(STRANGE_TIMES * doubted, STRANGE_SHARE)
    _limit_context(detector, judged, limits, thresholds)
    bounds = {"veto": float(detector.network.veto), "boost": float(detector.network.boost), "history": history}
    return finished(ground, detector, "lstm", tolerance_s, seed, advance, judged, thresholds, **bounds)


def _limit_context(detector, judged, limits, thresholds):
    """Let context say so much, or nothing, which leaves the filter as it is, if it brings nothing on development
    data."""
    f1 = {}
    for each in ((0.0, 0.0), limits):
        detector.network.limit(*each)
        chosen = development.fit_thresholds(detector, judged)[0] if thresholds is None else thresholds
        f1[each] = development.development_f1(replace(detector, thresholds=chosen), judged)
    detector.network.limit(*max(f1, key=f1.get))


def with_frames(
    ground, tolerance_s, *, teacher=None, pretrain, freeze, hidden_size=None, max_epochs=None, seed, progress, advance
):
    """A network that reads the signal itself."""
    data, pretext = ground.data, None
    hop = network_resolution(data.rate)
    hidden_size = hidden_size or HIDDEN_SIZE["frames"]
    if pretrain is not None:
        advance("pretrain encoder")
        pretrain, pretext = encoder_for(pretrain, ground.signals, data.recordings, seed, hidden_size, progress)
    advance("train frame network")
    options = {"hidden_size": hidden_size, "max_epochs": max_epochs or EPOCHS, "seed": seed, "progress": progress}
    labels = frame_labels(ground, teacher)
    network, history, sigma = train_frames(
        *labels, hop, data.rate, ground.jitter, encoder=pretrain, freeze=freeze, **options
    )
    # The network alone is heard; its thresholds are still open.
    detector = replace(matched_filter(ground), frames=network, weights=(0.0, 1.0, 0.0), prior_logit=0.0)
    if tolerance_s is None:
        tolerance_s = _tolerance(sigma, hop, data.rate)
    judged = development.look(detector, ground, seed, tolerance_s)
    detector.weights = _frame_weights(detector, judged)
    metadata = {"pretrain": pretext and str(pretext.get("pretext")), "pretext": pretext, "freeze_encoder": bool(freeze)}
    return finished(ground, detector, "frames", tolerance_s, seed, advance, judged, history=history, **metadata)


def teacher_of(ground, tolerance_s, seed):
    """The matched filter, if it is good enough to teach what it finds where nothing is labelled; else None."""
    if not ground.metadata["self_train"]:
        return None
    detector = finished(ground, matched_filter(ground), "matched_filter", tolerance_s, seed)
    return detector if _scores({"teacher": detector}, ground, seed)["teacher"][0] >= GOOD_TEACHER else None


def frame_labels(ground, teacher=None):
    """What is known of each recording for training, and for development: two lists of FrameLabels.

    Where labels leave a recording open, what the ``teacher`` (a Detector) is sure of counts as labelled, and what it
    doubts is not learned from.
    """
    data, train, held = ground.data, [], []
    moment = LABEL_FRAMES * network_resolution(data.rate)
    for signal, known, unseen in zip(ground.signals, data.signal_train, data.development, strict=True):
        if len(unseen.labelled_spans):
            held.append(_frame_labels(data, signal, unseen, unseen.labelled_spans))
            if not len(known.labelled_spans) + len(known):
                continue  # held out as a whole
        alone = unseen.time_samples[~unseen.is_labelled(unseen.sample)]
        if len(alone):  # single labels: their surroundings tell how far peaks lie from them
            held.append(_frame_labels(data, signal, unseen, unseen.labelled_spans))
        hidden = [unseen.labelled_spans, alone[:, None] + [-moment, moment]]
        options = {}
        if teacher is not None and (known.labelled_spans[:, 1] - known.labelled_spans[:, 0]).sum() < len(signal):
            known, doubtful = _taught(data, teacher, signal, known)
            hidden.append(doubtful[:, None] + [-moment, moment])
            options = {"elsewhere": LOOKED_THROUGH}
        train.append(_frame_labels(data, signal, known, known.labelled_spans, np.concatenate(hidden), **options))
    return train, held


def _frame_labels(data, signal, table, spans, *hidden, **options):
    order = np.argsort(table.time_samples, kind="stable")
    return FrameLabels(
        signal, table.time_samples[order], table.type[order], spans, data.apart_samples, *hidden, **options
    )


def _taught(data, teacher, signal, known):
    """The labels and what the teacher is sure of beside them, and the times (n,) of what it doubts."""
    found = teacher.find_in(signal)
    odds = teacher.log_odds(found)
    kept = teacher.keep(found, odds)
    new = ~known.is_labelled(np.floor(found.time + 0.5).astype(int)) & (found.time >= 0) & (found.time < len(signal))
    new &= distance_to_own(found.time, found.type, known.time_samples, known.type) >= data.apart_samples[found.type]
    sure = new & kept & (odds > SURE_LOG_ODDS)
    doubtful = new & ~sure & (odds > -SURE_LOG_ODDS)
    time, type = np.r_[known.time_samples, found.time[sure]], np.r_[known.type, found.type[sure]]
    table = Events(*split_time(time), type, known.names, known.sampling_rate_hz, labelled_spans=known.labelled_spans)
    return table, found.time[doubtful]


def _frame_weights(detector, judged):
    """The weights of a detector that hears the network alone, by which its log odds are true."""
    examples, moment = judged.examples, LABEL_FRAMES * detector.frame_samples
    weight = np.concatenate([np.where(_is_echo(e, moment), 0, e.weight) for e in examples])
    target, logit = (
        np.concatenate(values) for values in zip(*((e.target, e.candidates.frame) for e in examples), strict=True)
    )
    return (0.0, *learn_scale(logit, target, weight))


def _is_echo(examples, moment):
    """(n,) booleans: false candidates within a moment of a true one of their type; they always give way to it."""
    time, type, true = examples.candidates.time, examples.candidates.type, examples.target > 0
    return ~true & (distance_to_own(time, type, time[true], type[true]) <= moment)


def fused(ground, base, frames, seed):
    """Templates (with their context, if ``base`` has one) and frames, their log odds added up."""
    tolerance_s = frames.metadata["tolerance_s"]
    same_s = max(tolerance_s, SAME_FRAMES * frames.frames.resolution / ground.data.rate)
    exact_s = _exact(ground, base, frames, same_s, tolerance_s, seed)
    detector = replace(base, frames=frames.frames, weights=(*WORTH, 0.0), same_event_s=same_s, exact_s=exact_s)
    metadata = {name: frames.metadata[name] for name in ("pretrain", "pretext", "freeze_encoder")}
    metadata |= {"history": frames.metadata["history"], "context_history": base.metadata["history"]}
    return finished(ground, detector, "fusion", tolerance_s, seed, **metadata)


def _exact(ground, base, frames, same_s, tolerance_s, seed):
    """How near a peak must lie for its template's time to be taken: always, never, or by the network's own scatter.

    What brings times nearest to labels is taken; an oscillation away, a template is wrong and a peak is not.
    """
    data, rate = ground.data, ground.data.rate
    reach = 2 * same_s * rate  # times that are moved to another peak are wrong, not lost
    templates, peaks = (development.look(one, ground, seed, tolerance_s).found for one in (base, frames))
    own, _ = development.label_errors(peaks, data.train, reach, frames)
    choices = {same_s, 0.0} | ({min(EXACT_SCATTERS * np.median(np.abs(own)) / rate, same_s)} if len(own) else set())
    errors = {}
    for exact_s in sorted(choices, reverse=True):
        joined = [
            None if t is None else join(t, p, np.zeros(len(t)), data.names, rate, same_s * rate, exact_s * rate)
            for t, p in zip(templates, peaks, strict=True)
        ]
        found, _ = development.label_errors(joined, data.train, reach, base)
        errors[exact_s] = np.abs(found).mean() if len(found) else np.inf
    return min(errors, key=errors.get)


def _tolerance(sigma, hop, rate):
    """Seconds within which an estimate stands for a label, by the widths (E,) that training has found."""
    width = float(np.median(sigma))
    if width <= 1.01 * NARROWEST_FRAMES:
        return max(development.TOLERANCE_S, 1.0 / rate)
    return float(
        np.clip(
            development.TOLERATED_SIGMAS * width * hop / rate, development.TOLERANCE_S, development.LONGEST_TOLERANCE_S
        )
    )


def best_of(ground, lstm, frames, tolerance_s, seed):
    """What the data can carry, compared on development data; the best is kept, and the table of what was compared.

    Templates first, then what may be better; of two that are not clearly different the simpler one is kept.
    """
    counts = sum(table.counts() for table in ground.data.train)
    learnable = (counts >= FEW_LABELS).mean() >= SHARE_OF_KINDS
    best = "matched_filter"
    tried = {best: finished(ground, matched_filter(ground), best, tolerance_s, seed)}
    f1 = _scores(tried, ground, seed)
    # Re-mixes are made of templates: where those explain nothing, there is nothing to learn from them.
    if f1[best][0] >= GOOD_TEACHER:
        tried["lstm"] = lstm()
        best = _ahead(_scores(tried, ground, seed, real_only=False), best, ["lstm"])
        f1 = _scores(tried, ground, seed)
    if learnable and f1[best][0] + NOTHING_TO_WIN * f1[best][1] < 1:
        tried["frames"] = frames(tried[best] if f1[best][0] >= GOOD_TEACHER else None)
        tried[f"fusion with {best}"] = fused(ground, tried[best], tried["frames"], seed)
        f1 = _scores(tried, ground, seed, tried["frames"].metadata["tolerance_s"])
        best = _ahead(f1, best, [f"fusion with {best}", "frames"])
    order = sorted(tried, key=lambda name: -f1[name][0])
    tried[best].metadata["compared"] = [{"method": name, "f1": f1[name][0], "kept": name == best} for name in order]
    return tried[best]


def _ahead(f1, best, others):
    """The best of the others, if it is clearly better than ``best``."""
    other = max(others, key=lambda name: f1[name][0])
    return other if f1[other][0] > f1[best][0] + CLEARLY * f1[best][1] else best


def _scores(tried, ground, seed, tolerance_s=None, real_only=True):
    """F1 of each on development data and its standard error; on real data alone where there are enough.

    Where events overlap this is the mean over the recordings as they are and the same events one at a time.
    """
    within = {name: tolerance_s or detector.metadata["tolerance_s"] for name, detector in tried.items()}
    judged = {name: development.look(detector, ground, seed, within[name]) for name, detector in tried.items()}
    # Where few events are labelled, who finds them with the fewest other detections tells how many there are.
    share = max(development.label_share(detector, judged[name]) for name, detector in tried.items())
    scores = {}
    for name, detector in tried.items():
        n_real = judged[name].n_real
        f1 = development.development_f1(
            detector, judged[name], real_only and n_real >= development.ENOUGH_EVENTS, share
        )
        alone = development.look_alone(detector, ground, within[name])
        if alone is not None:
            f1 = (f1 + development.development_f1(detector, alone)) / 2
        n = n_real + (0 if real_only else development.REMIX_EVENTS * len(detector.names))
        scores[name] = float(f1), float(np.sqrt(f1 * (1 - f1) / max(n, 1.0)))
    return scores


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
        ground.bank,
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
    return max(
        4, int(min(max(WINDOW_TEMPLATES * detector.bank.length / rate, SHORTEST_WINDOW_S), longest) * rate) // 4 * 4
    )


def _mixes(remixer, number, seed):
    """A function that gives another re-mix at each call."""
    count = itertools.count()
    return lambda: remixer.mix(np.random.default_rng([number, seed, next(count)]))[:2]


def _is_complete(examples):
    return bool((examples.weight > examples.target).any())
