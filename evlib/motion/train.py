"""Training encoders of motion in two stages: first on windows without labels, then with the words of their labels.

`pretrain_motion` is the first stage, `align_motion` the second. Both return a `MotionModel`, which holds the network,
the length of its patches and the text encoder that its words come from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..networks.classifier import evaluating
from ..networks.pretext import MaskedPatchModel
from ..networks.seeds import seeded
from ..networks.transformer import (
    MAX_PATCHES,
    SIZES,
    DualBranchEncoder,
    HashedWords,
    make_batch,
    patch_samples,
    summarise_tokens,
)
from ..signals.errors import DataError, OptionError, require, require_choice, require_list
from ..signals.streams import stream
from ..training.batches import patch_range
from ..training.checkpoints import load_checkpoint, save_checkpoint
from ..training.masked import MaskedPretextLoss, fit_patches, masked_losses
from ..training.windows import Windows
from .align import AlignmentLoss, TextAlignedModel
from .labels import label_words
from .units import standard_units, warn_without_gravity
from .words import SentenceEncoder, text_encoder

# Windows that are encoded at a time, which bounds memory.
WINDOWS_AT_ONCE = 256
# One in so many people is held out; the learning rate of the second stage, which changes an encoder that has learned.
HELD_OUT, ALIGNING_LR = 5, 1e-3
# Patches begin a quarter of their length apart where windows are summarised, so that each event lies well inside one.
OVERLAP = 4


def aligned_losses(model: TextAlignedModel, loss_fn: AlignmentLoss, batch: dict) -> dict:
    """The losses of one batch of `MotionBatches` with words."""
    prototypes = model.prototypes(batch["text"])
    losses = loss_fn(model(batch), prototypes, batch["label_text"], batch["group"], model.log_scale)
    return losses | {f"alignment_loss/{batch['set_name']}": losses["alignment_loss"]}


@dataclass(frozen=True, eq=False)
class MotionModel:
    """A network for motion, how windows become its patches, and where it comes from.

    Attributes
    ----------
    model : the network of the first stage (`MaskedPatchModel`) or of the second (`TextAlignedModel`), or another one
        with an ``encoder``
    patch_s : seconds of a patch, a number or a dict by the name of the data set
    text : the text encoder of channels and labels
    history : losses of each epoch
    metadata : the data and options that it was trained with, ``text_encoder`` among them
    """

    model: Any
    patch_s: float | tuple | dict
    text: HashedWords | SentenceEncoder
    history: list
    metadata: dict

    @property
    def encoder(self) -> DualBranchEncoder:
        """The encoder of the network."""
        return self.model.encoder

    def batches(self, windows: Windows, overlap: int = 1) -> Iterator[dict]:
        """The batches of some windows in their order, in the units of the training (`standard_units`); patches overlap
        ``overlap`` times, or less where they would be more than the encoder takes."""
        windows = standard_units(windows)
        warn_without_gravity(windows)
        yield from self.patches(windows, overlap)

    def patches(self, windows: Windows, overlap: int = 1) -> Iterator[dict]:
        """As `batches`, of windows that are in the units of the training."""
        choices = patch_range(self.patch_s, windows)
        patch_s, rate = choices[len(choices) // 2], windows.sampling_rate_hz
        length = patch_samples(patch_s, rate)
        least = -(-(windows.x.shape[1] - length) // (MAX_PATCHES - 1))
        channel_text = self.text(list(windows.descriptions))
        for part in torch.from_numpy(windows.x).split(WINDOWS_AT_ONCE):
            yield make_batch(part, rate, patch_s, channel_text, max(length // overlap, least, 1) / rate)

    def embed(self, windows: Windows, channels: bool = False) -> np.ndarray:
        """(windows, features): the mean of all tokens, or with ``channels`` a summary of each channel side by side.

        The summary is mean, maximum and standard deviation over overlapping patches
        (`evlib.networks.transformer.summarise_tokens`). It holds more, but only windows with the same channels compare.
        """
        read = summarise_tokens if channels else lambda tokens: tokens.mean((1, 2))  # no window is padded
        return self._read(lambda batch: read(self.encoder(batch)), windows, OVERLAP if channels else 1)

    def vectors(self, windows: Windows) -> np.ndarray:
        """(windows, 384): each window in the space of words (`TextAlignedModel` only)."""
        return self._read(self.aligned, windows)

    def scores(self, windows: Windows, labels: Sequence[str] | Mapping[str, Sequence[str]]) -> np.ndarray:
        """(windows, labels): similarity of each window and the words of each label (`TextAlignedModel` only).

        ``labels`` may give synonyms, as ``{"running": ["jogging", "on a treadmill"]}``: the nearest of a label counts.
        """
        require_list(labels=list(labels) if isinstance(labels, Mapping) else labels)
        more = labels if isinstance(labels, Mapping) else {}
        words = [[label, *more.get(label, ())] for label in labels]
        model, text = self.aligned, self.text([word for some in words for word in some])
        found = self._read(lambda batch: model.scores(batch, text), windows)
        return np.maximum.reduceat(found, np.cumsum([0, *map(len, words[:-1])]), axis=1)

    def predict(self, windows: Windows, labels: Sequence[str] | Mapping[str, Sequence[str]] = ()) -> np.ndarray:
        """(windows,) the nearest of some words for each window, by default of the labels of the training; ``labels`` as
        in `scores`."""
        labels = labels or self.metadata["labels"]
        return np.array(list(labels))[self.scores(windows, labels).argmax(axis=1)]

    def _read(self, read, windows, overlap=1):
        with evaluating(self.model):
            found = torch.cat([read(batch) for batch in self.batches(windows, overlap)]).numpy()
        message = f"{windows.name}: the network gives no finite numbers (windows far out of range, or a damaged model)"
        require(np.isfinite(found).all(), DataError, message)
        return found

    @property
    def aligned(self) -> TextAlignedModel:
        """The network of the second stage.

        Raises
        ------
        OptionError : there was no second stage
        """
        if not isinstance(self.model, TextAlignedModel):
            raise OptionError("words need a model that was aligned with them: align_motion(...)")
        return self.model

    def untrained(self, seed: int = 0) -> "MotionModel":
        """The same architecture with random weights, which pretraining must beat."""
        with seeded(seed):
            model = MaskedPatchModel(**self.encoder.config).eval()
        metadata = {"stage": 0, "seed": seed, "text_encoder": self.text.name}
        return replace(self, model=model, history=[], metadata=metadata)

    def save(self, path: str | Path):
        """Write network, patches and metadata; `load_motion_model` reads them."""
        save_checkpoint(path, self.model, self.metadata, patch_s=self.patch_s)


def load_motion_model(path: str | Path, text=None) -> MotionModel:
    """Read what `MotionModel.save` has written; ``text``: the text encoder, by default the one of training.

    Raises
    ------
    DataError : no such file, or one that does not hold a model of motion
    OptionError : another text encoder than that of training
    """
    return read_motion_model(path, text)[0]


def read_motion_model(
    path: str | Path, text=None, kinds=("MaskedPatchModel", "TextAlignedModel"), what="model of motion"
) -> tuple[MotionModel, dict]:
    """As `load_motion_model`, of networks of some ``kinds``; and all that the file holds."""
    model, content = load_checkpoint(path, kinds=kinds, what=what)
    metadata, patch_s = content.get("metadata"), content.get("patch_s")
    name = metadata.get("text_encoder") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or patch_s is None:
        raise DataError(f"{path} holds no {what}, as its save writes it")
    text = text or text_encoder(name)
    if text.name != name:
        raise OptionError(f"{path} was trained with the text encoder {name!r}, not {text.name!r}")
    return MotionModel(model, patch_s, text, [], metadata), content


def pretrain_motion(
    train: list[Windows],
    development: list[Windows],
    patch_s,
    *,
    size: str = "nano",
    text=None,
    mask_ratio: float = 0.5,
    strength: str = "weak",
    rotate: bool = False,
    reconstruction_weight: float = 1.0,
    contrastive_weight: float = 0.1,
    neighbours: int = 0,
    **options,
) -> MotionModel:
    """Stage 1: train an encoder on windows without labels.

    Parameters
    ----------
    train, development : lists of `Windows` of different people
    patch_s : seconds of a patch: a number, (least, most, step), or a dict of either by the name of the data set
    size : of the encoder, see `evlib.networks.transformer.SIZES`
    text : text encoder of the channels' descriptions; default: the sentence encoder where it is installed
    mask_ratio : share of hidden patches
    strength, rotate : of the other view, see `evlib.training.batches.motion_views`
    reconstruction_weight, contrastive_weight : weights of the two losses; 0 leaves a loss out
    neighbours : 0 contrasts patches with another view of themselves. A larger number contrasts each window with one at
        most that many rows away, which mostly shows the same activity: for windows in the order of recording, with a
        contrastive weight of 1
    options : as in `evlib.training.masked.fit_patches`

    Returns
    -------
    MotionModel with the weights of the lowest raw development loss

    Raises
    ------
    OptionError : an unknown size, an option outside its range, options that contradict each other
    DataError : windows that are too few or too short, one session where several are contrasted
    """
    require_choice(SIZES, size=size)
    train, development = _in_standard_units("train", train), _in_standard_units("development", development)
    if neighbours and not contrastive_weight:
        raise OptionError("neighbours are contrasted: they need a contrastive_weight above 0")
    if mask_ratio is None:
        raise OptionError("stage 1 hides something: mask_ratio must lie strictly between 0 and 1, got None")
    if contrastive_weight and (alone := [one.name for one in train if len(np.unique(one.sources)) < 2]):
        hint = "give more, or contrastive_weight=0"
        raise DataError(f"{', '.join(alone)}: windows of one session are not contrasted; {hint}")
    loss = MaskedPretextLoss(reconstruction_weight, contrastive_weight, level="window" if neighbours else "patch")
    weights = {"reconstruction_weight": reconstruction_weight, "contrastive_weight": contrastive_weight}
    batches = {"mask_ratio": mask_ratio, "strength": strength if contrastive_weight else "none", "rotate": rotate}
    batches |= {"view": bool(contrastive_weight), "neighbours": neighbours}
    metadata = {"stage": 1, "size": size, **weights, **batches}
    text = text or text_encoder()

    def build():
        return MaskedPatchModel(**SIZES[size])

    sets = (train, development, patch_s, text)
    model, history, metadata = fit_patches(masked_losses, build, loss, *sets, batches, metadata, **options)
    return MotionModel(model, patch_s, text, history, metadata)


def _in_standard_units(name, sets):
    """A list of Windows in the units that models read; ``name`` is that of the argument."""
    fits = isinstance(sets, list | tuple) and sets and all(isinstance(one, Windows) for one in sets)
    hint = "put a single one into brackets: [windows]" if isinstance(sets, Windows) else f"got {type(sets).__name__}"
    require(fits, DataError, f"{name} must be a list of Windows ({hint})")
    return list(map(standard_units, sets))


def align_motion(
    start: MotionModel,
    train: list[Windows],
    development: list[Windows],
    *,
    num_prototypes: int = 3,
    soft_weight: float = 0.5,
    queue_size: int = 256,
    usage_weight: float = 1.0,
    strength: str = "weak",
    rotate: bool = False,
    rates: bool = True,
    patch_s=None,
    freeze: bool = False,
    **options,
) -> MotionModel:
    """Stage 2: bring windows near the words of their labels.

    Parameters
    ----------
    start : `MotionModel` of stage 1, whose encoder, patches and text encoder are taken over
    train, development : lists of `Windows` with labels
    num_prototypes : of each label
    soft_weight, queue_size, usage_weight : see `evlib.motion.align.AlignmentLoss`
    strength, rotate : how windows are augmented in training, see `evlib.training.batches.motion_views`
    rates : some windows are seen as a sensor of a lower rate shows them, so that other sensors are understood
    patch_s : other patches than those of ``start``, as (least, most, step) for a random length
    freeze : keep the encoder as it is
    options : as in `evlib.training.masked.fit_patches`
    """
    config, patch_s = start.encoder.config, start.patch_s if patch_s is None else patch_s
    loss = AlignmentLoss(config["text_size"], queue_size, soft_weight, usage_weight)
    batches = {"strength": strength, "rotate": rotate, "rates": rates, "words": label_words}
    train, development = _in_standard_units("train", train), _in_standard_units("development", development)
    weights = {"soft_weight": soft_weight, "queue_size": queue_size, "usage_weight": usage_weight}
    metadata: dict = {"stage": 2, "num_prototypes": num_prototypes, **weights, "freeze": freeze}
    metadata["labels"] = sorted({str(label) for one in train for label in one.labels})

    def build():
        model = TextAlignedModel(**config, num_prototypes=num_prototypes)
        model.encoder.load_state_dict(start.encoder.state_dict())
        model.encoder.requires_grad_(not freeze)
        return model

    sets = (train, development, patch_s, start.text)
    model, history, metadata = fit_patches(aligned_losses, build, loss, *sets, batches, metadata, **options)
    return MotionModel(model, patch_s, start.text, history, metadata)


def fit_motion(
    windows: Windows | list[Windows],
    patch_s=1.28,
    *,
    epochs: tuple = (12, 40),
    aligning_lr: float = ALIGNING_LR,
    seed: int = 0,
    **options,
) -> MotionModel:
    """Both stages at once: a model that recognises activities by words, from labelled windows.

    A fifth of the people is held out, to say which epoch is the best; where nobody says who is who, the last fifth of
    the windows.

    Parameters
    ----------
    windows : `Windows` with labels, of one data set or a list of several
    patch_s : seconds of a patch, see `pretrain_motion`
    epochs : of the first stage and of the second
    aligning_lr : learning rate of the second stage
    seed : of weights, batches, and of who is held out
    options : of `pretrain_motion`

    Raises
    ------
    DataError : windows without labels, of a single person

    Examples
    --------
    >>> from evlib.motion.windows import make_motion
    >>> people = make_motion(n_people=5, windows_per_activity=2, activities=("walking", "lying"))
    >>> model = fit_motion(people, epochs=(1, 1))
    >>> model.predict(people).shape
    (20,)
    """
    sets = _in_standard_units("windows", [windows] if isinstance(windows, Windows) else windows)
    for one in sets:
        require(len(one.labels), DataError, f"{one.name}: words are learned from labels, and there are none")
    parts = [held_out(one, seed) for one in sets]
    train, development = [
        [one[rows] for one, rows in zip(sets, some, strict=True)] for some in zip(*parts, strict=True)
    ]
    if "contrastive_weight" not in options:
        # Windows are told from those of other sessions.
        several = all(len(np.unique(one.sources)) > 1 for one in train)
        options |= {"neighbours": 1, "contrastive_weight": 1.0} if several else {"contrastive_weight": 0.0}
    first = pretrain_motion(train, development, patch_s, max_epochs=epochs[0], seed=seed, **options)
    return align_motion(first, train, development, max_epochs=epochs[1], lr=aligning_lr, seed=seed)


def held_out(windows: Windows, seed: int = 0) -> list:
    """Rows to learn from, and rows of a fifth of the people; of the last fifth where nobody says who is who.

    >>> [len(part) for part in held_out(Windows("a", np.zeros((10, 50, 1)), 50.0, ("ecg",)))]
    [8, 2]
    """
    if not len(windows.groups):
        return np.split(np.arange(len(windows)), [len(windows) * (HELD_OUT - 1) // HELD_OUT])
    people = np.unique(windows.groups)
    hint = "one person is held out: leave the groups away where there is a single one"
    require(len(people) > 1, DataError, f"{windows.name}: windows of two people at least are wanted ({hint})")
    out = stream("people held out", seed).permutation(people)[: max(1, len(people) // HELD_OUT)]
    return [np.flatnonzero(~np.isin(windows.groups, out)), np.flatnonzero(np.isin(windows.groups, out))]
