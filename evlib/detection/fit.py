"""Fit: recordings and labels in, a detector out.

Recordings and labels are checked and development data held out (`evlib.detection.prepare`), noise and templates are
learned (`evlib.detection.templates`), a method trains its network (`evlib.detection.methods`), and thresholds are
chosen on the development data (`evlib.detection.calibrate`).
"""

import logging
from dataclasses import replace
from typing import Any

from ..signals.errors import OptionError, require_choice, require_int, require_seconds
from .detector import Detector
from .methods import METHODS, Options
from .prepare import prepare
from .pretrain import check_encoder
from .templates import LearnedTemplates, is_discovery, whiten_and_learn

# Share of the recordings in which templates do not fit, from which on a fit warns: less may be a few strange noises.
MUCH_CROWDED = 0.01


def fit(
    pairs,
    method: str | None = None,
    *,
    refractory_s: float | dict = 2.0,
    seed: int = 0,
    labels_per_type: int | None = None,
    self_train: bool | None = None,
    unlabelled=(),
    pretrain=None,
    freeze_encoder: bool = False,
    template_s: tuple | None = None,
    shrink: bool = True,
    tolerance_s: float | None = None,
    hidden_size: int | None = None,
    max_epochs: int | None = None,
    match_channels: str = "name",
    progress: bool = True,
) -> Detector:
    """Train a detector of continuous recordings from labelled events.

    Parameters
    ----------
    pairs : list of (Recording, Events), all with one rate and the same channels. Where an event table has
        ``labelled_spans``, nothing is assumed outside of them
    method : "matched_filter" (templates alone, the baseline), "lstm" (templates and a context network, trained on
        hybrid recordings and on what is labelled completely), "frames" (a network that reads the signal itself, trained
        on the labelled events as recorded), "fusion" (templates, context and frames), "event_specific" (a network with
        a template, a path and a head for each type), or "auto" (the default: the best of the first four on development
        data)
    refractory_s : the least time between events of one type: a number, or a dict name -> seconds
    seed : of everything random: the same seed, the same detector
    labels_per_type : keep only this many labelled events of each type (drawn by ``seed``); the rest of the signal then
        counts as unlabelled, not as free of events
    self_train : learn further from unlabelled signal (what the labels leave open, and ``unlabelled``): templates from
        what they find there, and the frame network from what templates are sure of, if they are any good; default: yes,
        but for "matched_filter", the baseline from labelled snippets
    unlabelled : further recordings without labels; of more than 45 minutes of six channels at 2000 Hz, pieces
        that are spread evenly
    pretrain : what to learn from the signal before any label. "discovery", or what :func:`evlib.discover` returned:
        which kinds of events recur, each named by its labels afterwards. A Detector: types without a label are learned
        from what it finds (fine-tuning forgets none). "autoencoder", "variational", "contrastive", "masked", what
        :func:`evlib.pretrain` returned, or the path of an encoder that it saved: the encoder of the frame network, and
        its whitening filter
    freeze_encoder : keep the pretrained encoder as it is and train only the layers behind it (a probe)
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets; False gives the plain average
    tolerance_s : how far a detection may be from a label of the development data to count; default: 5 ms, or more where
        labels scatter more
    hidden_size : units of the network that the method is named for, in each direction; default: 64 ("lstm"), 48
        ("frames"), 32 ("event_specific"); a pretrained encoder brings its own
    max_epochs : of that network; default: 12 ("lstm", "event_specific"), 28 ("frames")
    match_channels : "name": the channels of further recordings are found by the names of the first one's, in
        any order; "position" where they have other names
    progress : show progress bars

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
    from tqdm.auto import tqdm

    method = choose_method(method, pretrain, freeze_encoder)
    self_train = method != "matched_filter" if self_train is None else bool(self_train)
    require_int(0, seed=seed)
    sizes = {"hidden_size": hidden_size, "max_epochs": max_epochs}
    require_int(1, **{name: value for name, value in sizes.items() if value is not None})
    if tolerance_s is not None:
        require_seconds(tolerance_s=tolerance_s)
    data = prepare(pairs, unlabelled, labels_per_type, seed, refractory_s, match_channels)
    discovery, encoder = (pretrain, None) if is_discovery(pretrain) else (None, pretrain)
    if encoder is not None:
        encoder, recordings = check_encoder(encoder, data.recordings)
        data = replace(data, recordings=recordings)
    n_stages = 2 + 5 * self_train + 3 * (method != "matched_filter") + (pretrain is not None)
    with tqdm(total=n_stages, desc="fit", unit="stage", disable=not progress) as bar:

        def advance(stage):
            bar.set_postfix_str(stage)
            bar.update(1)

        whitener = getattr(encoder, "whitener", None)
        how: dict[str, Any] = {"template_s": template_s, "shrink": shrink, "whitener": whitener}
        learned = whiten_and_learn(data, discovery=discovery, self_training=self_train, advance=advance, **how)
        how = {"tolerance_s": tolerance_s, "progress": progress, "advance": advance, **sizes}
        detector = fit_from(learned, method, pretrain=encoder, freeze_encoder=freeze_encoder, **how)
        bar.update(max(bar.total - bar.n, 0))
    detector.metadata.update(labels_per_type=labels_per_type, self_train=self_train)
    if discovery is not None:
        detector.metadata["pretrain"] = "detector" if isinstance(discovery, Detector) else "discovery"
    return detector


def fit_from(learned: LearnedTemplates, method: str, **options) -> Detector:
    """A detector from templates that were learned already: the second half of :func:`fit`.

    Parameters
    ----------
    learned : LearnedTemplates; several detectors may be made from it
    method : as in :func:`fit`
    options : fields of `evlib.detection.methods.Options`

    Raises
    ------
    OptionError : ``time_embedding`` with a method that has no context network
    """
    chosen = Options(**options)
    if chosen.time_embedding is not None and method not in ("lstm", "fusion"):
        raise OptionError(f"time_embedding is an option of the context network, method='lstm'; got method={method!r}")
    crowded = learned.hybrids.crowded_share
    if crowded > MUCH_CROWDED:
        logging.getLogger(__name__).warning(
            "templates do not fit: in %.1f %% of the recordings events vary too much or last too long, and many "
            'templates would explain one event (method="frames" reads the signal itself)',
            100 * crowded,
        )
    return METHODS[method](learned, chosen)


def choose_method(method, pretrain, freeze_encoder) -> str:
    """The method that is meant, or an error for options that do not go together."""
    method = "auto" if method is None else method
    is_encoder = pretrain is not None and not is_discovery(pretrain)
    require_choice(METHODS, method=method)
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
