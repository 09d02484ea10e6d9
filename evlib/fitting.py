"""Fit: recordings and labels in, a detector out.

All methods learn a template bank from the labelled events, by averaging, re-alignment and Wiener shrinkage; where
signal is unlabelled the bank trains itself further on what it detects. ``method="lstm"`` then trains the context
network on re-mixes of the recordings, and on the labelled recordings themselves where they are labelled completely;
``method="classifier"`` trains a classifier of short windows of the signal itself on such re-mixes, from scratch or from
an encoder that was pretrained without labels. Thresholds are fitted on development data that took no part in that:
blocks of the labelled recordings held out in time, and re-mixes of their own.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from .candidates import explain
from .classifier_training import train_classifier
from .context_training import train_context
from .detection import Detector
from .discovery import Discovery, discover_in, find_kinds, name_kinds
from .errors import OptionError
from .events import Events
from .learning import PRIOR_LOGIT, choose_window, learn_templates, nearest_label, self_train
from .pretraining import PRETEXTS, encoder_for, frame_samples
from .remix import Remixer, label_examples
from .thresholds import choose_thresholds
from .timebase import duration_to_samples, tolerance_to_samples
from .training_data import prepare
from .whitening import estimate_whitener, refine_whitener

METHODS = ("lstm", "matched_filter", "classifier")
# A candidate within this of a label stands for it in development data.
TOLERANCE_S = 0.005
# Events in the noise estimate: subtract them and estimate again, until the spectrum moves by less than 5 %.
WHITENING_ROUNDS, WHITE_ENOUGH, RESIDUAL_S = 4, 0.05, 300.0
# Longer templates are not events but stretches of signal.
MAX_TEMPLATE_S = 1.0
N_REMIXES, N_DEVELOPMENT_REMIXES = 12, 3
# Re-mixed development events weigh like this many real ones per type, when there are real ones.
REMIX_EVENTS = 20.0
# A discovered event this close to a labelled one of its type is that event.
SAME_EVENT_S = 0.02
# The classifier reads windows of so many template lengths, at least so many seconds, at most the refractory period.
WINDOW_TEMPLATES, SHORTEST_WINDOW_S = 4, 0.1


def fit(
    pairs,
    method=None,
    *,
    refractory_s=2.0,
    seed=0,
    labels_per_type=None,
    self_train=None,
    unlabelled=(),
    pretrain=None,
    freeze_encoder=False,
    template_s=None,
    shrink=True,
    tolerance_s=TOLERANCE_S,
    hidden_size=64,
    max_epochs=12,
    progress=True,
    logger=False,
) -> Detector:
    """Train a detector of continuous recordings from labelled events.

    Parameters
    ----------
    pairs : list of (Recording, Events), all with one rate and the same channels. Where an event table has
        ``complete_spans``, nothing is assumed outside of them
    method : "lstm" (templates and a context network; the default), "matched_filter" (templates alone, the baseline) or
        "classifier" (a network that reads the signal itself; the default where ``pretrain`` is an encoder)
    refractory_s : the least time between events of one type: a number, or a dict name -> seconds
    seed : everything random follows from it: the same seed, the same detector
    labels_per_type : keep only so many labelled events of each type (drawn by ``seed``); the rest of the signal then
        counts as unlabelled, not as free of events
    self_train : learn further from unlabelled signal (what the labels leave open, and ``unlabelled``); default: yes for
        "lstm", no for "matched_filter", whose plain form is the baseline from labelled snippets
    unlabelled : further recordings without labels
    pretrain : what to learn from the signal before any label is looked at. "discovery", or what :func:`evlib.discover`
        returned: which kinds of events recur, each named by its labels afterwards. "autoencoder", "variational",
        "contrastive", what :func:`evlib.pretrain` returned, or the path of an encoder that it saved: the encoder of the
        classifier
    freeze_encoder : keep the pretrained encoder as it is and train what stands on it only (a probe)
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets; False gives the plain average
    tolerance_s : how far a detection may be from a label of the development data to count
    hidden_size, max_epochs : of the network; a pretrained encoder brings its own hidden size
    progress : show progress bars
    logger : a Lightning logger, or True for its default

    Returns
    -------
    Detector, see :func:`evlib.detect`

    Raises
    ------
    OptionError, DataError, ShapeError, UnitError : see the messages

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=30.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> len(evlib.detect(detector, recording)) > 0.9 * len(reference)
    True
    """
    method = _method(method, pretrain, freeze_encoder)
    if self_train is None:
        self_train = method == "lstm"
    whole_numbers = {"seed": (seed, 0), "hidden_size": (hidden_size, 1), "max_epochs": (max_epochs, 1)}
    for name, (value, least) in whole_numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if not (isinstance(tolerance_s, (int, float)) and 0 < tolerance_s <= 1):
        raise OptionError(f"tolerance_s must be seconds between 0 and 1, got {tolerance_s!r} (did you pass milliseconds?)")
    data = prepare(pairs, unlabelled, labels_per_type, seed, refractory_s)
    with _Stages(progress, 4 + 5 * bool(self_train) + (method != "matched_filter") + (pretrain is not None)) as stages:
        stages.next("whiten and learn templates")
        rate, whitener = data.rate, estimate_whitener(data.recordings)
        for attempt in range(WHITENING_ROUNDS):
            signals = [whitener(recording) for recording in data.recordings]
            window = choose_window(signals, data.train, rate) if template_s is None else _given_window(template_s, rate)
            bank, jitter, _ = learn_templates(signals, data.train, *window, rate, shrink=shrink)
            if attempt == WHITENING_ROUNDS - 1:
                break
            refined = refine_whitener(whitener, _residuals(bank, signals, rate))
            if refined.change < WHITE_ENOUGH:
                break
            whitener = refined
        if _is_discovery(pretrain):
            stages.next("discover recurring kinds")
            seen = _with_discovered(pretrain, data, signals, window[1] / rate if template_s else None, seed)
            window = choose_window(signals, seen, rate) if template_s is None else window
            bank, jitter, _ = learn_templates(signals, seen, *window, rate, shrink=shrink)
        if self_train and data.has_unlabelled:
            bank = _self_train(bank, signals, data, shrink, template_s is None, stages)
        stages.next("re-mix")
        remixer = Remixer(bank, signals, data.train, PRIOR_LOGIT, rate)
        longest = max(len(piece.background) for piece in remixer.pieces) / rate
        more = int(np.clip(300 / longest, 1, 4))
        held_out = [remixer.draw(np.random.default_rng([11, seed, k])) for k in range(N_DEVELOPMENT_REMIXES * more)]
        detector = Detector(
            whitener,
            bank,
            np.zeros(len(data.names)),
            data.refractory,
            PRIOR_LOGIT,
            0.0,
            None,
            tuple(data.recordings[0].channels),
            tuple(data.recordings[0].units),
        )
        real = real_examples(detector.find, signals, data.development, tolerance_s)
        history, pretext = [], None
        if method == "lstm":
            train = [remixer.draw(np.random.default_rng([12, seed, k])) for k in range(N_REMIXES * more)]
            shares = np.full(len(train), 1.0 / len(train))
            known = real_examples(detector.find, signals, data.train, tolerance_s)
            known = [examples for examples in known if _is_complete(examples)]
            # Labelled signal is worth as much as all re-mixes together: it alone knows how events really vary.
            shares = np.r_[shares, np.full(len(known), 1.0 / max(len(known), 1))]
            stages.next("train network")
            detector.network, history = train_context(
                train + known,
                held_out + [examples for examples in real if examples.weight.sum() > 0],
                len(data.names),
                rate,
                PRIOR_LOGIT,
                shares=shares,
                hidden_size=hidden_size,
                seed=seed,
                max_epochs=max_epochs,
                progress=progress,
                logger=logger,
            )
        elif method == "classifier":
            encoder = None
            if pretrain is not None and not _is_discovery(pretrain):
                stages.next("pretrain encoder")
                encoder, pretext = encoder_for(pretrain, signals, data.recordings, seed, hidden_size, progress)
            stages.next("train classifier")
            longest_window = min([period for period in data.refractory.values() if period > 0], default=1.0)
            window_s = min(max(WINDOW_TEMPLATES * bank.length / rate, SHORTEST_WINDOW_S), longest_window)
            detector.classifier_window = max(4, int(window_s * rate) // 4 * 4)
            detector.prior_logit = 0.0  # its logits are log odds already
            detector.classifier, history = train_classifier(
                *(_mixes(remixer, number, seed) for number in (12, 11)),
                len(data.names),
                detector.classifier_window,
                frame_samples(rate),
                encoder=encoder,
                freeze=freeze_encoder,
                hidden_size=hidden_size,
                seed=seed,
                max_epochs=max_epochs,
                progress=progress,
            )
            held_out = [remixer.draw(np.random.default_rng([11, seed, k]), detector.find_in) for k in range(len(held_out))]
            real = real_examples(detector.find, signals, data.development, tolerance_s)
        stages.next("thresholds")
        detector.timing_error_s = _timing_error(detector, signals, data.train, jitter)
        detector.thresholds, f1 = _fit_thresholds(detector, held_out, real)
    detector.card = {
        "method": method,
        "seed": int(seed),
        "labels_per_type": labels_per_type,
        "self_train": bool(self_train),
        "pretrain": pretrain if pretrain is None else "discovery" if _is_discovery(pretrain) else str(pretext["pretext"]),
        "freeze_encoder": bool(freeze_encoder),
        "pretext": pretext,
        "shrink": bool(shrink),
        "n_labelled": {name: int(n) for name, n in zip(data.names, sum(t.counts() for t in data.train), strict=True)},
        "duration_s": float(sum(recording.duration_s for recording in data.recordings)),
        "development_f1": {name: float(value) for name, value in zip(data.names, f1, strict=True)},
        "development_events": float(sum(examples.target.sum() + examples.n_missed.sum() for examples in real)),
        "label_jitter_s": float(jitter / rate),
        "data_hash": data.fingerprint(),
        "history": history,
    }
    return detector


def _method(method, pretrain, freeze_encoder):
    """The method that is meant, or an error for options that do not go together."""
    is_encoder = pretrain is not None and not _is_discovery(pretrain)
    if method is None:
        method = "classifier" if is_encoder else "lstm"
    if method not in METHODS:
        raise OptionError(f"method must be one of {METHODS}, got {method!r}")
    if isinstance(pretrain, str) and pretrain not in (*PRETEXTS, "discovery") and not Path(pretrain).is_file():
        raise OptionError(
            f"pretrain must be one of {', '.join(PRETEXTS)}, discovery, or the path of an encoder that evlib.pretrain saved; "
            f"got {pretrain!r}"
        )
    if is_encoder and method != "classifier":
        raise OptionError(
            f"method={method!r} finds its candidates with templates and has no encoder of the signal to pretrain; use "
            'method="classifier", or pretrain="discovery"'
        )
    if freeze_encoder and not is_encoder:
        raise OptionError("freeze_encoder=True needs a pretrained encoder: pretrain=... (an untrained one would stay as it is)")
    return method


def _mixes(remixer, number, seed):
    """A function that gives another re-mix at each call."""
    count = itertools.count()
    return lambda: remixer.mix(np.random.default_rng([number, seed, next(count)]))[:2]


def _is_discovery(pretrain):
    return isinstance(pretrain, Discovery) or (isinstance(pretrain, str) and pretrain == "discovery")


def _with_discovered(pretrain, data, signals, event_s, seed):
    """The training labels and, where nothing is labelled, what recurs there under the names that labels give it."""
    shortest = min(data.refractory.values())
    if isinstance(pretrain, Discovery):
        tables = [find_kinds(pretrain.bank, signal, data.rate, shortest) for signal in signals]
    else:
        options = {} if event_s is None else {"event_s": event_s}
        _, tables = discover_in(signals, data.rate, None, shortest, seed=seed, **options)
    kind, offset = name_kinds(data.train, tables)
    out = []
    for found, train, held in zip(tables, data.train, data.development, strict=True):
        for e in np.flatnonzero(kind >= 0):
            time = found.time_samples[found.type == kind[e]] + offset[e]
            sample = np.floor(time + 0.5).astype(np.int64)
            known = train.is_labelled(sample) | held.is_labelled(sample)
            own = train.time_samples[train.type == e]
            if len(own):
                near = np.clip(np.searchsorted(own, time), 1, max(len(own) - 1, 1))
                gap = np.minimum(np.abs(time - own[near - 1]), np.abs(time - own[np.minimum(near, len(own) - 1)]))
                known |= gap < SAME_EVENT_S * data.rate
            train = _add(train, time[~known], e)
        out.append(train)
    return out


def _add(table, time, type):
    """A label table with more events of one type."""
    time = np.r_[table.time_samples, time]
    sample = np.floor(time + 0.5).astype(np.int64)
    types = np.r_[table.type, np.full(len(time) - len(table), type)]
    return Events(sample, time - sample, types, table.names, table.sampling_rate_hz, complete_spans=table.complete_spans)


def _given_window(template_s, rate):
    try:
        before_s, after_s = (float(value) for value in template_s)
    except (TypeError, ValueError):
        raise OptionError(f"template_s is (seconds before, seconds after the onset), got {template_s!r}") from None
    if not (0 <= before_s <= MAX_TEMPLATE_S and 4 / rate <= after_s <= MAX_TEMPLATE_S):
        raise OptionError(
            f"template_s is (seconds before, seconds after the onset), at least 4 samples and at most {MAX_TEMPLATE_S:g} s "
            f"each; got {template_s!r}"
        )
    before = duration_to_samples(before_s, rate)
    return before, before + duration_to_samples(after_s, rate) + 1


def _residuals(bank, signals, rate):
    """What is left of the signals without their events, from the beginning of each (a few minutes tell the spectrum)."""
    longest = int(RESIDUAL_S * rate / len(signals)) + 4 * bank.length
    return [explain(bank, signal[:longest])[1] for signal in signals]


def _self_train(bank, signals, data, shrink, widen, stages):
    """Five rounds; held-out blocks stay out: their labels are not known here, and their signal is not used."""
    known = [
        replace(train, complete_spans=_union(train.complete_spans, development.complete_spans))
        for train, development in zip(data.train, data.development, strict=True)
    ]
    return self_train(bank, signals, known, shrink=shrink, widen=widen, progress=lambda: stages.next("self-train"))


def _union(spans, others):
    both = np.concatenate([spans, others])
    return both[np.argsort(both[:, 0], kind="stable")]


def real_examples(find, signals, labels, tolerance_s):
    """Candidates of the recordings themselves with what the labels say of them; ``find`` as :meth:`Detector.find`."""
    out = []
    for signal, table in zip(signals, labels, strict=True):
        if len(table.complete_spans) == 0:
            continue
        found = find(lambda a, b, s=signal: s[a:b], len(signal))
        reach = max(1, tolerance_to_samples(tolerance_s, table.sampling_rate_hz))
        out.append(label_examples(found, table, reach + 0.5))
    return out


def _is_complete(examples):
    return bool((examples.weight > examples.target).any())


def _timing_error(detector, signals, labels, jitter):
    """What detections scatter around labels beyond the Cramer-Rao bound, in seconds (robust)."""
    errors, bounds = [], []
    for signal, table in zip(signals, labels, strict=True):
        if len(table) == 0:
            continue
        found = detector.find_in(signal)
        row, _, distance = nearest_label(found, table, max(2.0, 4 * jitter, 2 * detector.frame_samples))
        errors.append(distance)
        bounds.append(1 / (np.maximum(found.amplitude[row], 0.05) ** 2 * detector.bank.timing_information[found.type[row]]))
    errors = np.concatenate(errors) if errors else np.zeros(0)
    if len(errors) < 5:
        return 0.0
    scatter = np.median(np.abs(errors)) / 0.6745
    return float(np.sqrt(max(scatter**2 - np.median(np.concatenate(bounds)), 0.0)) / labels[0].sampling_rate_hz)


def _fit_thresholds(detector, held_out, real):
    """Best thresholds on held-out blocks and held-out re-mixes; the re-mixes weigh little where there is real data."""
    n_types = len(detector.names)
    n_real = sum(float(examples.target.sum()) for examples in real)
    n_remixed = sum(float(examples.target.sum()) for examples in held_out)
    share = min(1.0, REMIX_EVENTS * n_types / max(n_remixed, 1.0)) if n_real else 1.0
    logit, type, target, weight, missed = [], [], [], [], np.zeros(n_types)
    for examples, factor in [(e, share) for e in held_out] + [(e, 1.0) for e in real]:
        logit.append(detector.log_odds(examples.candidates))
        type.append(examples.candidates.type)
        target.append(examples.target)
        weight.append(examples.weight * factor)
        missed += examples.n_missed * factor
    return choose_thresholds(*(np.concatenate(values) for values in (logit, type, target, weight)), missed)


class _Stages:
    """A progress bar over the stages of a fit."""

    def __init__(self, progress, total):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, desc="fit", unit="stage", disable=not progress)

    def __enter__(self):
        self.first = True
        return self

    def next(self, name):
        if not self.first:
            self.bar.update(1)
        self.first = False
        self.bar.set_postfix_str(name)

    def __exit__(self, *error):
        self.bar.update(self.bar.total - self.bar.n if error[0] is None else 0)
        self.bar.close()
