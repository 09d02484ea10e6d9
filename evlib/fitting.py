"""Fit: recordings and labels in, a detector out.

Both methods learn a template bank from the labelled events, by averaging, re-alignment and Wiener shrinkage; where
signal is unlabelled the bank trains itself further on what it detects. ``method="lstm"`` then trains the context
network on re-mixes of the recordings, and on the labelled recordings themselves where they are labelled completely.
Thresholds are fitted on development data that took no part in that: blocks of the labelled recordings held out in
time, and re-mixes of their own.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from .candidates import explain, find_candidates
from .context_training import train_context
from .detection import Detector
from .errors import DataError, OptionError, ShapeError, UnitError
from .events import Events
from .learning import PRIOR_LOGIT, choose_window, learn_templates, nearest_label, self_train
from .refractory import refractory_samples
from .remix import Remixer, label_examples
from .thresholds import choose_thresholds
from .timebase import duration_to_samples, tolerance_to_samples
from .whitening import estimate_whitener, refine_whitener

METHODS = ("lstm", "matched_filter")
# Held-out blocks: every fifth tenth of a recording is development data.
BLOCKS, DEVELOPMENT_BLOCKS = 10, (3, 8)
# A candidate within this of a label stands for it in development data.
TOLERANCE_S = 0.005
# Events in the noise estimate: subtract them and estimate again, until the spectrum moves by less than 5 %.
WHITENING_ROUNDS, WHITE_ENOUGH, RESIDUAL_S = 4, 0.05, 300.0
# Longer templates are not events but stretches of signal.
MAX_TEMPLATE_S = 1.0
N_REMIXES, N_DEVELOPMENT_REMIXES = 12, 3
# Re-mixed development events weigh like this many real ones per type, when there are real ones.
REMIX_EVENTS = 20.0


def fit(
    pairs,
    method="lstm",
    *,
    refractory_s=2.0,
    seed=0,
    labels_per_type=None,
    self_train=None,
    unlabelled=(),
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
    method : "lstm" (templates and a context network) or "matched_filter" (templates alone, the baseline)
    refractory_s : the least time between events of one type: a number, or a dict name -> seconds
    seed : everything random follows from it: the same seed, the same detector
    labels_per_type : keep only so many labelled events of each type (drawn by ``seed``); the rest of the signal then
        counts as unlabelled, not as free of events
    self_train : learn further from unlabelled signal (what the labels leave open, and ``unlabelled``); default: yes for
        "lstm", no for "matched_filter", whose plain form is the baseline from labelled snippets
    unlabelled : further recordings without labels
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets; False gives the plain average
    tolerance_s : how far a detection may be from a label of the development data to count
    hidden_size, max_epochs : of the context network
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
    if method not in METHODS:
        raise OptionError(f"method must be one of {METHODS}, got {method!r}")
    if self_train is None:
        self_train = method == "lstm"
    whole_numbers = {"seed": (seed, 0), "hidden_size": (hidden_size, 1), "max_epochs": (max_epochs, 1)}
    for name, (value, least) in whole_numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if not (isinstance(tolerance_s, (int, float)) and 0 < tolerance_s <= 1):
        raise OptionError(f"tolerance_s must be seconds between 0 and 1, got {tolerance_s!r} (did you pass milliseconds?)")
    data = _prepare(pairs, unlabelled, labels_per_type, seed, refractory_s)
    with _Stages(progress, 4 + 5 * bool(self_train) + (method == "lstm")) as stages:
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
        if self_train and data.has_unlabelled:
            bank = _self_train(bank, signals, data, shrink, stages)
        stages.next("re-mix")
        remixer = Remixer(bank, signals, data.train, PRIOR_LOGIT, rate)
        longest = max(len(piece.background) for piece in remixer.pieces) / rate
        more = int(np.clip(300 / longest, 1, 4))
        held_out = [remixer.draw(np.random.default_rng([11, seed, k])) for k in range(N_DEVELOPMENT_REMIXES * more)]
        real = real_examples(bank, signals, data.development, tolerance_s)
        timing_error_s = _timing_error(bank, signals, data.train, jitter)
        detector = Detector(
            whitener,
            bank,
            np.zeros(len(data.names)),
            data.refractory,
            PRIOR_LOGIT,
            timing_error_s,
            None,
            tuple(data.recordings[0].channels),
            tuple(data.recordings[0].units),
        )
        history = []
        if method == "lstm":
            train = [remixer.draw(np.random.default_rng([12, seed, k])) for k in range(N_REMIXES * more)]
            shares = np.full(len(train), 1.0 / len(train))
            known = real_examples(bank, signals, data.train, tolerance_s)
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
        stages.next("thresholds")
        detector.thresholds, f1 = _fit_thresholds(detector, held_out, real)
    detector.card = {
        "method": method,
        "seed": int(seed),
        "labels_per_type": labels_per_type,
        "self_train": bool(self_train),
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


@dataclass(eq=False)
class _Data:
    """Checked recordings (labelled ones first, then unlabelled ones) and their labels, split in time."""

    recordings: list
    train: list
    development: list
    names: tuple
    rate: float
    refractory: dict

    @property
    def has_unlabelled(self):
        for recording, train, development in zip(self.recordings, self.train, self.development, strict=True):
            labelled = sum(int((t.complete_spans[:, 1] - t.complete_spans[:, 0]).sum()) for t in (train, development))
            if labelled < recording.n_samples:
                return True
        return False

    def fingerprint(self):
        digest = hashlib.sha256()
        for recording, train in zip(self.recordings, self.train, strict=True):
            digest.update(repr((recording.shape, recording.sampling_rate_hz, self.names)).encode())
            digest.update(np.ascontiguousarray(recording.read(0, min(100_000, recording.n_samples))).tobytes())
            digest.update(train.time_samples.tobytes() + train.type.tobytes())
        return digest.hexdigest()[:16]


def _prepare(pairs, unlabelled, labels_per_type, seed, refractory_s):
    """Check what the caller gave, put labels on the recordings' clock and hold development blocks out."""
    pairs = list(pairs)
    if not pairs:
        raise OptionError("fit needs at least one (recording, events) pair, got an empty list")
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Events) and hasattr(pair[0], "read")):
            raise OptionError(
                "fit takes a list of (Recording, Events) pairs; wrap a single pair in a list: fit([(recording, events)])"
            )
    recordings = [recording for recording, _ in pairs] + list(unlabelled)
    rate, channels = recordings[0].sampling_rate_hz, recordings[0].shape[1]
    for recording in recordings:
        if recording.sampling_rate_hz != rate:
            raise UnitError(
                f"all recordings must have one rate; got {rate:g} and {recording.sampling_rate_hz:g} Hz "
                f"(use recording.resample({rate:g}))"
            )
        if recording.shape[1] != channels:
            raise ShapeError(f"all recordings must have the same channels; got {channels} and {recording.shape[1]}")
        if recording.duration_s < 1.0:
            raise DataError(f"a recording of {recording.duration_s:.3f} s is too short to learn from; at least 1 s is needed")
    names = tuple(dict.fromkeys(name for _, events in pairs for name in events.names))
    if not names:
        raise DataError("the event tables name no event types: there is nothing to learn")
    refractory = _refractory_table(refractory_s, names, rate)
    train, development = [], []
    for number, (recording, events) in enumerate(pairs):
        labels = events.at_rate(rate).with_names(names)
        outside = (labels.sample < 0) | (labels.sample >= recording.n_samples)
        if outside.any():
            first = labels.onset_s[outside][0]
            raise DataError(
                f"{int(outside.sum())} labels lie outside of recording {number} ({recording.duration_s:.3f} s), "
                f"the first at {first:.3f} s (labels of another recording, or times in samples?)"
            )
        whole = np.array([[0, recording.n_samples]])
        labels = replace(
            labels,
            complete_spans=whole if labels.complete_spans is None else np.clip(labels.complete_spans, 0, recording.n_samples),
        )
        if labels_per_type is not None:
            labels = replace(_draw_labels(labels, labels_per_type, seed, number), complete_spans=np.zeros((0, 2), dtype=np.int64))
        kept, held = _hold_out(labels, recording.n_samples)
        train.append(kept)
        development.append(held)
    if labels_per_type is not None:
        train = _limit(train, labels_per_type, len(names))
    for _ in unlabelled:
        nothing = replace(Events.empty(names, rate), complete_spans=np.zeros((0, 2), dtype=np.int64))
        train.append(nothing)
        development.append(nothing)
    if sum(len(table) for table in train) == 0:
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    return _Data(recordings, train, development, names, rate, refractory)


def _refractory_table(refractory_s, names, rate):
    periods = refractory_samples(refractory_s, names, rate)  # checks names and values
    return {name: float(period / rate) for name, period in zip(names, periods, strict=True)}


def _draw_labels(labels, labels_per_type, seed, number):
    """At most ``labels_per_type`` labelled events of each type."""
    if isinstance(labels_per_type, bool) or int(labels_per_type) != labels_per_type or labels_per_type < 1:
        raise OptionError(f"labels_per_type must be a whole number of at least 1, got {labels_per_type!r}")
    order = np.random.default_rng([10, seed, number]).permutation(len(labels))
    return labels[np.sort(order[_rank_in_type(labels.type[order]) < labels_per_type])]


def _rank_in_type(type):
    """(n,) how many rows of the same type stand before each row."""
    order = np.argsort(type, kind="stable")
    first = np.searchsorted(type[order], type[order])
    rank = np.empty(len(type), dtype=np.int64)
    rank[order] = np.arange(len(type)) - first
    return rank


def _limit(tables, labels_per_type, n_types):
    """Over all recordings together, at most ``labels_per_type`` of each type: the first recordings give first."""
    left = np.full(n_types, labels_per_type)
    out = []
    for table in tables:
        kept = table[_rank_in_type(table.type) < left[table.type]]
        left = left - kept.counts()
        out.append(kept)
    return out


def _hold_out(labels, n_samples):
    """Labels for training and for development: blocks of time, only where labelling is complete."""
    edges = np.linspace(0, n_samples, BLOCKS + 1).astype(int)
    held_out = np.column_stack([edges[list(DEVELOPMENT_BLOCKS)], edges[np.add(DEVELOPMENT_BLOCKS, 1)]])
    kept_out = np.column_stack([np.r_[0, held_out[:, 1]], np.r_[held_out[:, 0], n_samples]])
    held = replace(labels, complete_spans=_intersect(labels.complete_spans, held_out))
    kept = replace(labels, complete_spans=_intersect(labels.complete_spans, kept_out))
    in_development = held.is_labelled(labels.sample)
    return kept[~in_development], held[in_development]


def _intersect(spans, others):
    """Spans that lie in both lists, (k, 2)."""
    start = np.maximum(spans[:, None, 0], others[None, :, 0]).ravel()
    stop = np.minimum(spans[:, None, 1], others[None, :, 1]).ravel()
    return np.column_stack([start, stop])[stop > start]


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


def _self_train(bank, signals, data, shrink, stages):
    """Five rounds; held-out blocks stay out: their labels are not known here, and their signal is not used."""
    known = [
        replace(train, complete_spans=_union(train.complete_spans, development.complete_spans))
        for train, development in zip(data.train, data.development, strict=True)
    ]
    return self_train(bank, signals, known, shrink=shrink, progress=lambda: stages.next("self-train"))


def _union(spans, others):
    both = np.concatenate([spans, others])
    return both[np.argsort(both[:, 0], kind="stable")]


def real_examples(bank, signals, labels, tolerance_s):
    """Candidates of the recordings themselves with what the labels say of them."""
    out = []
    for signal, table in zip(signals, labels, strict=True):
        if len(table.complete_spans) == 0:
            continue
        found = find_candidates(bank, lambda a, b, s=signal: s[a:b], len(signal))
        reach = max(1, tolerance_to_samples(tolerance_s, table.sampling_rate_hz))
        out.append(label_examples(found, table, reach + 0.5))
    return out


def _is_complete(examples):
    return bool((examples.weight > examples.target).any())


def _timing_error(bank, signals, labels, jitter):
    """What detections scatter around labels beyond the Cramer-Rao bound, in seconds (robust)."""
    errors, bounds = [], []
    for signal, table in zip(signals, labels, strict=True):
        if len(table) == 0:
            continue
        found = find_candidates(bank, lambda a, b, s=signal: s[a:b], len(signal))
        row, _, distance = nearest_label(found, table, max(2.0, 4 * jitter))
        errors.append(distance)
        bounds.append(1 / (np.maximum(found.amplitude[row], 0.05) ** 2 * bank.timing_information[found.type[row]]))
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
