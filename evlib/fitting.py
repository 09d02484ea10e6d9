"""Fit: recordings and labels in, a detector out.

All methods learn a template bank from the labelled events, by averaging, re-alignment and Wiener shrinkage; where
signal is unlabelled the bank trains itself further on what it detects. ``method="lstm"`` then trains the context
network on re-mixes of the recordings, and on the labelled recordings themselves where they are labelled completely;
``method="classifier"`` trains a classifier of short windows of the signal itself on such re-mixes, from scratch or from
an encoder that was pretrained without labels; ``method="event_specific"`` one that carries the templates inside.
Thresholds are fitted on development data that took no part in that:
blocks of the labelled recordings held out in time, and re-mixes of their own.
"""

import itertools
import logging
from pathlib import Path

import numpy as np

from .classifier_training import train_classifier
from .context_training import train_context
from .detection import Detector
from .errors import OptionError
from .groundwork import is_discovery, lay_groundwork
from .learning import PRIOR_LOGIT, nearest_label
from .options import check_short, check_whole
from .pretraining import PRETEXTS, check_encoder, encoder_for, frame_samples
from .remix import label_examples
from .thresholds import choose_thresholds
from .timebase import tolerance_to_samples
from .training_data import prepare

METHODS = ("lstm", "matched_filter", "classifier", "event_specific")
# LSTM units in each direction; the heads of the event-specific model grow with their square, for each type.
HIDDEN_SIZE = {"lstm": 64, "matched_filter": 64, "classifier": 64, "event_specific": 32}
# A candidate within this of a label stands for it in development data.
TOLERANCE_S = 0.005
N_REMIXES, N_DEVELOPMENT_REMIXES = 12, 3
# Re-mixed development events weigh like this many real ones per type, when there are real ones.
REMIX_EVENTS = 20.0
# Shares of errors that are to lie within one and 1.96 stated standard deviations; so many errors are needed to tell.
COVERAGE, COVERED_SIGMAS, LEAST_ERRORS = (0.6827, 0.95), (1.0, 1.96), 50
# Where templates do not fit so large a share of the recordings, the fit says so: less may be a few strange noises.
MUCH_CROWDED = 0.01
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
    hidden_size=None,
    max_epochs=12,
    progress=True,
    logger=False,
) -> Detector:
    """Train a detector of continuous recordings from labelled events.

    Parameters
    ----------
    pairs : list of (Recording, Events), all with one rate and the same channels. Where an event table has
        ``complete_spans``, nothing is assumed outside of them
    method : "lstm" (templates and a context network; the default), "matched_filter" (templates alone, the baseline),
        "classifier" (a network that reads the signal itself; the default where ``pretrain`` is an encoder) or
        "event_specific" (such a network with a template, a path and a head for each type)
    refractory_s : the least time between events of one type: a number, or a dict name -> seconds
    seed : everything random follows from it: the same seed, the same detector
    labels_per_type : keep only so many labelled events of each type (drawn by ``seed``); the rest of the signal then
        counts as unlabelled, not as free of events
    self_train : learn further from unlabelled signal (what the labels leave open, and ``unlabelled``); default: yes for
        "lstm" and "event_specific", no for "matched_filter", whose plain form is the baseline from labelled snippets
    unlabelled : further recordings without labels
    pretrain : what to learn from the signal before any label is looked at. "discovery", or what :func:`evlib.discover`
        returned: which kinds of events recur, each named by its labels afterwards. A Detector: kinds without a label are
        learned from what it finds (fine-tuning forgets none). "autoencoder", "variational",
        "contrastive", what :func:`evlib.pretrain` returned, or the path of an encoder that it saved: the encoder of the
        classifier
    freeze_encoder : keep the pretrained encoder as it is and train what stands on it only (a probe)
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets; False gives the plain average
    tolerance_s : how far a detection may be from a label of the development data to count
    hidden_size : LSTM units of the network in each direction; default: 64, for "event_specific" 32; a pretrained encoder
        brings its own
    max_epochs : of the network
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
    method = choose_method(method, pretrain, freeze_encoder)
    if self_train is None:
        self_train = method in ("lstm", "event_specific")
    hidden_size = HIDDEN_SIZE[method] if hidden_size is None else hidden_size
    check_whole(0, seed=seed)
    check_whole(1, hidden_size=hidden_size, max_epochs=max_epochs)
    check_short(tolerance_s=tolerance_s)
    data = prepare(pairs, unlabelled, labels_per_type, seed, refractory_s)
    discovery, encoder = (pretrain, None) if is_discovery(pretrain) else (None, pretrain)
    if encoder is not None:
        encoder = check_encoder(encoder, data.recordings)
    n_stages = 3 + 5 * bool(self_train) + (method != "matched_filter") + (pretrain is not None)
    with _Stages(progress, n_stages) as stages:
        ground = lay_groundwork(
            data,
            discovery=discovery,
            self_training=self_train,
            template_s=template_s,
            shrink=shrink,
            seed=seed,
            advance=stages.next,
        )
        detector = fit_on(
            ground,
            method,
            pretrain=encoder,
            freeze_encoder=freeze_encoder,
            seed=seed,
            tolerance_s=tolerance_s,
            hidden_size=hidden_size,
            max_epochs=max_epochs,
            progress=progress,
            logger=logger,
            advance=stages.next,
        )
    detector.card |= {"labels_per_type": labels_per_type, "self_train": bool(self_train)}
    if discovery is not None:
        detector.card["pretrain"] = "detector" if isinstance(discovery, Detector) else "discovery"
    return detector


def fit_on(
    ground,
    method,
    *,
    pretrain=None,
    freeze_encoder=False,
    seed=0,
    tolerance_s=TOLERANCE_S,
    hidden_size=64,
    max_epochs=12,
    n_windows=None,
    keep_templates=True,
    time_embedding=None,
    progress=True,
    logger=False,
    advance=lambda stage: None,
) -> Detector:
    """A detector on templates that were learned already: the second half of :func:`fit`.

    Parameters
    ----------
    ground : Groundwork; several detectors may stand on it
    advance : called with the name of each stage
    method, pretrain, freeze_encoder, seed, tolerance_s, hidden_size, max_epochs, progress, logger : as in :func:`fit`;
        ``pretrain`` names an encoder or is one
    keep_templates : False lets the templates of an event-specific model start from noise, to see what they are worth
    time_embedding : how the context network is told of the times between events, see `ContextLSTM`
    n_windows : windows of re-mixes that a classifier learns from; default: those of :func:`train_classifier`
    """
    if time_embedding is not None and method != "lstm":
        raise OptionError(f"time_embedding is an option of the context network, method='lstm'; got method={method!r}")
    data, remixer = ground.data, ground.remixer
    advance("re-mix")
    if remixer.crowded_share > MUCH_CROWDED:
        logging.getLogger(__name__).warning(
            "templates do not fit: in %.1f %% of the recordings events vary too much or last too long, and many templates "
            'would explain one event (method="classifier" reads the signal itself)',
            100 * remixer.crowded_share,
        )
    channels, units = tuple(data.recordings[0].channels), tuple(data.recordings[0].units)
    thresholds = np.zeros(len(data.names))
    detector = Detector(ground.whitener, ground.bank, thresholds, data.refractory, PRIOR_LOGIT, channels=channels, units=units)
    history, pretext = [], None
    options = {"seed": seed, "max_epochs": max_epochs, "progress": progress}
    if method in ("classifier", "event_specific"):
        if pretrain is not None:
            advance("pretrain encoder")
            pretrain, pretext = encoder_for(pretrain, ground.signals, data.recordings, seed, hidden_size, progress)
        advance("train classifier")
        detector.classifier_window = _classifier_window(detector)
        detector.prior_logit = 0.0  # its logits are log odds already
        detector.classifier, history = train_classifier(
            *(_mixes(remixer, number, seed) for number in (12, 11)),
            len(data.names),
            detector.classifier_window,
            frame_samples(data.rate),
            encoder=pretrain,
            freeze=freeze_encoder,
            bank=ground.bank if method == "event_specific" else None,
            keep_templates=keep_templates,
            hidden_size=hidden_size,
            n_windows=n_windows,
            **options,
        )
    held_out = [
        remixer.draw(np.random.default_rng([11, seed, k]), detector.find_in) for k in range(remixer.enough(N_DEVELOPMENT_REMIXES))
    ]
    # What the recordings themselves hold, looked for once, and only where labels say something of it.
    parts = zip(ground.signals, data.train, data.development, strict=True)
    found = [detector.find_in(s) if len(t) + len(t.complete_spans) + len(h.complete_spans) else None for s, t, h in parts]
    real = real_examples(found, data.development, tolerance_s)
    if method == "lstm":
        train = [remixer.draw(np.random.default_rng([12, seed, k])) for k in range(remixer.enough(N_REMIXES))]
        known = real_examples(found, data.train, tolerance_s)
        known = [examples for examples in known if _is_complete(examples)]
        advance("train network")
        detector.network, history = train_context(
            train + known,
            held_out + [examples for examples in real if examples.weight.sum() > 0],
            len(data.names),
            data.rate,
            PRIOR_LOGIT,
            # Labelled signal is worth as much as all re-mixes together: it alone knows how events really vary.
            shares=np.r_[np.full(len(train), 1.0 / len(train)), np.full(len(known), 1.0 / max(len(known), 1))],
            hidden_size=hidden_size,
            time_embedding=time_embedding,
            logger=logger,
            **options,
        )
    advance("thresholds")
    if detector.classifier is not None:
        detector.calibration = _calibration(detector, held_out + real)
    logits = [detector.log_odds(examples.candidates) for examples in held_out + real]
    detector.thresholds, f1 = _fit_thresholds(detector, logits, held_out, real)
    detector.timing_scale = _timing_scale(detector, logits, held_out + real)
    detector.timing_error_s = _timing_error(detector, found, data.train, ground.jitter)
    detector.card = ground.card | {
        "method": method,
        "seed": int(seed),
        "pretrain": None if pretext is None else str(pretext.get("pretext")),
        "freeze_encoder": bool(freeze_encoder),
        "pretext": pretext,
        "development_f1": {name: float(value) for name, value in zip(data.names, f1, strict=True)},
        "development_events": float(sum(examples.target.sum() + examples.n_missed.sum() for examples in real)),
        "history": history,
        "crowded_share": remixer.crowded_share,
    }
    return detector


def choose_method(method, pretrain, freeze_encoder):
    """The method that is meant, or an error for options that do not go together."""
    is_encoder = pretrain is not None and not is_discovery(pretrain)
    if method is None:
        method = "classifier" if is_encoder else "lstm"
    if method not in METHODS:
        raise OptionError(f"method must be one of {METHODS}, got {method!r}")
    is_name = isinstance(pretrain, str) and pretrain in (*PRETEXTS, "discovery")
    if isinstance(pretrain, str | Path) and not is_name and not Path(pretrain).is_file():
        raise OptionError(
            f"pretrain must be one of {', '.join(PRETEXTS)}, discovery, or the path of an encoder that evlib.pretrain saved; "
            f"got {str(pretrain)!r}"
        )
    if is_encoder and method != "classifier":
        raise OptionError(
            f"method={method!r} finds its candidates with templates and has no encoder of the signal to pretrain; use "
            'method="classifier", or pretrain="discovery"'
        )
    if freeze_encoder and not is_encoder:
        raise OptionError("freeze_encoder=True needs a pretrained encoder: pretrain=... (an untrained one would stay as it is)")
    return method


def _classifier_window(detector):
    """Samples in a window of the classifier: some templates long, and no longer than the shortest refractory period."""
    rate = detector.sampling_rate_hz
    longest = min([period for period in detector.refractory_s.values() if period > 0], default=1.0)
    return max(4, int(min(max(WINDOW_TEMPLATES * detector.bank.length / rate, SHORTEST_WINDOW_S), longest) * rate) // 4 * 4)


def _mixes(remixer, number, seed):
    """A function that gives another re-mix at each call."""
    count = itertools.count()
    return lambda: remixer.mix(np.random.default_rng([number, seed, next(count)]))[:2]


def real_examples(found, labels, tolerance_s):
    """Candidates of recordings with what the labels say of them, where those are complete anywhere."""
    return [
        label_examples(candidates, table, max(1, tolerance_to_samples(tolerance_s, table.sampling_rate_hz)) + 0.5)
        for candidates, table in zip(found, labels, strict=True)
        if len(table.complete_spans)
    ]


def _is_complete(examples):
    return bool((examples.weight > examples.target).any())


def _calibration(detector, development):
    """Slope and offset that make the log odds of development candidates as true as they say (Platt's logistic fit).

    Templates state likelihood ratios, and the context network is trained on candidates as they come; windows, in which
    a type is rare and present only as a whole, teach a classifier other odds than those of its candidates.
    """
    from sklearn.linear_model import LogisticRegression

    logit = np.concatenate([detector.log_odds(examples.candidates) for examples in development])
    target, weight = (np.concatenate([getattr(e, name) for e in development]) for name in ("target", "weight"))
    known = weight > 0
    if len(np.unique(target[known])) < 2:
        return 1.0, 0.0
    model = LogisticRegression(C=10.0).fit(logit[known, None], target[known] > 0.5, weight[known])
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)


def _timing_scale(detector, logits, development):
    """What the Cramer-Rao bound must be multiplied with to cover 68 and 95 % of the errors of detections.

    Overlaps and doubtful events err by more than the bound, some by a whole oscillation: one factor cannot serve both
    levels exactly, so it is the geometric mean of the two.
    """
    ratios = []
    for logit, examples in zip(logits, development, strict=True):
        kept = logit >= detector.thresholds[examples.candidates.type]
        kept &= np.isfinite(examples.error)
        ratios.append(np.abs(examples.error[kept]) / detector.timing_bound(examples.candidates[kept]))
    ratios = np.concatenate(ratios) if ratios else np.zeros(0)
    if len(ratios) < LEAST_ERRORS:
        return 1.0
    return float(np.sqrt(np.prod(np.quantile(ratios, COVERAGE) / COVERED_SIGMAS)))


def _timing_error(detector, found, labels, jitter):
    """What detections scatter around labels beyond what they should, in seconds (robust)."""
    errors, bounds = [], []
    for candidates, table in zip(found, labels, strict=True):
        if len(table) == 0:
            continue
        row, _, distance = nearest_label(candidates, table, max(2.0, 4 * jitter, 2 * detector.frame_samples))
        errors.append(distance)
        bounds.append(detector.timing_scale * detector.timing_bound(candidates[row]))
    errors = np.concatenate(errors) if errors else np.zeros(0)
    if len(errors) < 5:
        return 0.0
    scatter = np.median(np.abs(errors)) / 0.6745
    return float(np.sqrt(max(scatter**2 - np.median(np.concatenate(bounds)) ** 2, 0.0)) / labels[0].sampling_rate_hz)


def _fit_thresholds(detector, logits, held_out, real):
    """Best thresholds on held-out blocks and held-out re-mixes; the re-mixes weigh little where there is real data."""
    n_types = len(detector.names)
    n_real = sum(float(examples.target.sum()) for examples in real)
    n_remixed = sum(float(examples.target.sum()) for examples in held_out)
    share = min(1.0, REMIX_EVENTS * n_types / max(n_remixed, 1.0)) if n_real else 1.0
    type, target, weight, missed = [], [], [], np.zeros(n_types)
    for examples, factor in [(e, share) for e in held_out] + [(e, 1.0) for e in real]:
        type.append(examples.candidates.type)
        target.append(examples.target)
        weight.append(examples.weight * factor)
        missed += examples.n_missed * factor
    return choose_thresholds(*(np.concatenate(values) for values in (logits, type, target, weight)), missed)


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
