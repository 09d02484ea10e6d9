"""Fit: recordings and labels in, a detector out.

All methods learn a template bank from the labelled events, by averaging, re-alignment and Wiener shrinkage; where
signal is unlabelled the bank trains itself further on what it detects. ``method="matched_filter"`` stops there.
``"lstm"`` trains a context network on re-mixes of the recordings, and on the labelled recordings themselves where they
are labelled completely. ``"frames"`` trains a network that reads the signal itself on the labelled events as recorded,
from scratch or from an encoder that was pretrained without labels. ``"fusion"`` hears both. ``"auto"``, the default,
builds what the data can carry and keeps what is best on development data. ``"event_specific"`` trains a network that
carries the templates inside. Thresholds are fitted on development data that took no part in training
(`evlib.detection.prepare`, `evlib.detection.development`).
"""

from pathlib import Path

from ..signals.errors import OptionError, require_int, require_seconds
from . import methods
from .detector import Detector
from .learned import is_discovery, lay_groundwork
from .prepare import prepare
from .pretrain import PRETEXTS, check_encoder

METHODS = ("auto", "lstm", "matched_filter", "frames", "fusion", "event_specific")


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
    tolerance_s=None,
    hidden_size=None,
    max_epochs=None,
    progress=True,
    log_dir=None,
) -> Detector:
    """Train a detector of continuous recordings from labelled events.

    Parameters
    ----------
    pairs : list of (Recording, Events), all with one rate and the same channels. Where an event table has
        ``labelled_spans``, nothing is assumed outside of them
    method : "auto" (the default: the best of the others but the last, by development data), "matched_filter" (templates
        alone, the baseline), "lstm" (templates and a context network), "frames" (a network that reads the signal
        itself), "fusion" (templates, context and frames) or "event_specific" (a network with a template, a path and a
        head for each type)
    refractory_s : the least time between events of one type: a number, or a dict name -> seconds
    seed : everything random follows from it: the same seed, the same detector
    labels_per_type : keep only so many labelled events of each type (drawn by ``seed``); the rest of the signal then
        counts as unlabelled, not as free of events
    self_train : learn further from unlabelled signal (what the labels leave open, and ``unlabelled``): templates from
        what they find there, and the frame network from what they are sure of, if they are any good; default: yes, but
        for "matched_filter", whose plain form is the baseline from labelled snippets
    unlabelled : further recordings without labels
    pretrain : what to learn from the signal before any label is looked at. "discovery", or what :func:`evlib.discover`
        returned: which kinds of events recur, each named by its labels afterwards. A Detector: kinds without a label
        are learned from what it finds (fine-tuning forgets none). "autoencoder", "variational",
        "contrastive", "masked", what :func:`evlib.pretrain` returned, or the path of an encoder that it saved: the
        encoder of the frame network, and the whitening filter that it has heard through
    freeze_encoder : keep the pretrained encoder as it is and train what stands on it only (a probe)
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets; False gives the plain average
    tolerance_s : how far a detection may be from a label of the development data to count; default: 5 ms, or more where
        labels scatter more
    hidden_size : units of the network that the method is named for, in each direction; default: 64 ("lstm"), 48
        ("frames"), 32 ("event_specific"); a pretrained encoder brings its own
    max_epochs : of that network; default: 12 ("lstm", "event_specific"), 28 ("frames")
    progress : show progress bars
    log_dir : folder for TensorBoard's logs of the context network; default: none are written

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
        self_train = method != "matched_filter"
    require_int(0, seed=seed)
    require_int(
        1, **{name: v for name, v in {"hidden_size": hidden_size, "max_epochs": max_epochs}.items() if v is not None}
    )
    if tolerance_s is not None:
        require_seconds(tolerance_s=tolerance_s)
    data = prepare(pairs, unlabelled, labels_per_type, seed, refractory_s)
    discovery, encoder = (pretrain, None) if is_discovery(pretrain) else (None, pretrain)
    if encoder is not None:
        encoder = check_encoder(encoder, data.recordings)
    n_stages = 3 + 5 * bool(self_train) + 2 * (method != "matched_filter") + (pretrain is not None)
    with _Stages(progress, n_stages) as stages:
        ground = lay_groundwork(
            data,
            discovery=discovery,
            self_training=self_train,
            template_s=template_s,
            shrink=shrink,
            whitener=getattr(encoder, "whitener", None),
            seed=seed,
            advance=stages.next,
        )
        detector = fit_from(
            ground,
            method,
            pretrain=encoder,
            freeze_encoder=freeze_encoder,
            seed=seed,
            tolerance_s=tolerance_s,
            hidden_size=hidden_size,
            max_epochs=max_epochs,
            progress=progress,
            log_dir=log_dir,
            advance=stages.next,
        )
    detector.metadata |= {"labels_per_type": labels_per_type, "self_train": bool(self_train)}
    if discovery is not None:
        detector.metadata["pretrain"] = "detector" if isinstance(discovery, Detector) else "discovery"
    return detector


def fit_from(
    ground,
    method,
    *,
    pretrain=None,
    freeze_encoder=False,
    seed=0,
    tolerance_s=None,
    hidden_size=None,
    max_epochs=None,
    n_windows=None,
    keep_templates=True,
    time_embedding=None,
    progress=True,
    log_dir=None,
    advance=lambda stage: None,
) -> Detector:
    """A detector on templates that were learned already: the second half of :func:`fit`.

    Parameters
    ----------
    ground : LearnedTemplates; several detectors may stand on it
    advance : called with the name of each stage
    method, pretrain, freeze_encoder, seed, tolerance_s, hidden_size, max_epochs, progress, log_dir : as in :func:`fit`;
        ``pretrain`` names an encoder or is one
    keep_templates : False lets the templates of an event-specific model start from noise, to see what they are worth
    time_embedding : how the context network is told of the times between events, see `ContextLSTM`
    n_windows : windows of re-mixes that an event-specific model learns from; default: those of :func:`train_classifier`
    """
    if time_embedding is not None and method not in ("lstm", "fusion"):
        raise OptionError(f"time_embedding is an option of the context network, method='lstm'; got method={method!r}")
    methods.warn_of_crowds(ground)
    options = {"seed": seed, "progress": progress, "advance": advance}
    own = {"hidden_size": hidden_size, "max_epochs": max_epochs}

    def lstm(**sizes):
        return methods.with_context(
            ground, tolerance_s, time_embedding=time_embedding, log_dir=log_dir, **sizes, **options
        )

    def frames(teacher, **sizes):
        teacher = teacher if ground.metadata["self_train"] else None
        return methods.with_frames(
            ground, tolerance_s, teacher=teacher, pretrain=pretrain, freeze=freeze_encoder, **sizes, **options
        )

    if method == "event_specific":
        windows = {"n_windows": n_windows, "keep_templates": keep_templates}
        detector = methods.event_specific(ground, tolerance_s, **windows, **own, **options)
    elif method == "lstm":
        detector = lstm(**own)
    elif method == "frames":
        detector = frames(methods.teacher_of(ground, tolerance_s, seed), **own)
    elif method == "fusion":
        base = lstm()
        detector = methods.fused(ground, base, frames(base, **own), seed)
    elif method == "auto":
        detector = methods.best_of(ground, lstm, lambda teacher: frames(teacher, **own), tolerance_s, seed)
    else:
        detector = methods.finished(
            ground, methods.matched_filter(ground), "matched_filter", tolerance_s, seed, advance=advance
        )
    return detector


def choose_method(method, pretrain, freeze_encoder):
    """The method that is meant, or an error for options that do not go together."""
    is_encoder = pretrain is not None and not is_discovery(pretrain)
    if method is None:
        method = "auto"
    if method == "classifier":
        raise OptionError(
            "method='classifier' is gone: it learned from re-mixes of templates; take method='frames', which "
            "learns from "
            "labelled events as they were recorded"
        )
    if method not in METHODS:
        raise OptionError(f"method must be one of {METHODS}, got {method!r}")
    is_name = isinstance(pretrain, str) and pretrain in (*PRETEXTS, "discovery")
    if isinstance(pretrain, str | Path) and not is_name and not Path(pretrain).is_file():
        raise OptionError(
            f"pretrain must be one of {', '.join(PRETEXTS)}, discovery, or the path of an encoder that "
            "evlib.pretrain saved; "
            f"got {str(pretrain)!r}"
        )
    if is_encoder and method not in ("auto", "frames", "fusion"):
        raise OptionError(
            f"method={method!r} finds its candidates with templates and has no encoder of the signal to pretrain; use "
            'method="frames", or pretrain="discovery"'
        )
    if freeze_encoder and not is_encoder:
        raise OptionError(
            "freeze_encoder=True needs a pretrained encoder: pretrain=... (an untrained one would stay as it is)"
        )
    return method


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
