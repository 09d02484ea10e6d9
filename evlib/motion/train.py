"""Training encoders of motion: first without labels (hide and tell, tell apart), then with the words of labels.

`pretrain_motion` is the first stage, `align_motion` the second; each gives back a `MotionModel`, which knows how
windows become its patches and which text encoder its words come from.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..networks.classifier import evaluating
from ..networks.pretext import MaskedPatchModel
from ..networks.transformer import MAX_PATCHES, SIZES, make_batch, patch_samples, summarise_tokens
from ..signals.errors import DataError, OptionError
from ..training.batches import patch_range
from ..training.checkpoints import load_checkpoint, save_checkpoint
from ..training.masked import MaskedPretextLoss, fit_patches, masked_losses
from .align import AlignmentLoss, TextAlignedModel
from .labels import label_words
from .words import text_encoder

WINDOWS_AT_ONCE = 256
# Patches in the length of one when windows are summarised: whatever recurs then lies in the middle of some patch.
OVERLAP = 4


def aligned_losses(model, loss_fn, batch):
    """The losses of one batch of `MotionBatches` with words."""
    losses = loss_fn(
        model(batch), model.prototypes(batch["text"]), batch["label_text"], batch["group"], model.log_scale
    )
    return losses | {f"alignment_loss/{batch['set_name']}": losses["alignment_loss"]}


@dataclass(frozen=True, eq=False)
class MotionModel:
    """A model of motion, how windows become its patches, and where it comes from.

    Attributes
    ----------
    model : `MaskedPatchModel` or `TextAlignedModel`
    patch_s : seconds of a patch, a number or a dict by the name of the data set
    text : the text encoder of channels and labels
    history : losses of each epoch
    metadata : what it was trained on, and how: ``text_encoder`` among it
    """

    model: nn.Module
    patch_s: object
    text: object
    history: list
    metadata: dict

    @property
    def encoder(self):
        """The `DualBranchEncoder`."""
        return self.model.encoder

    def batches(self, windows, overlap=1):
        """The batches of some windows, in their order; patches overlap ``overlap`` times, where there is room for so
        many."""
        choices = patch_range(self.patch_s, windows)
        patch_s, rate = choices[len(choices) // 2], windows.sampling_rate_hz
        length = patch_samples(patch_s, rate)
        room = -(-(windows.x.shape[1] - length) // (MAX_PATCHES - 1))
        channel_text = self.text(windows.descriptions)
        for part in torch.from_numpy(windows.x).split(WINDOWS_AT_ONCE):
            yield make_batch(part, rate, patch_s, channel_text, max(length // overlap, room, 1) / rate)

    def embed(self, windows, channels=False):
        """(windows, numbers) array: the mean of all tokens, or with ``channels`` more of each channel side by side.

        The latter, mean, maximum and deviation over overlapping patches
        (`evlib.networks.transformer.summarise_tokens`), tells more, but only compares windows with the same channels.
        """
        read = summarise_tokens if channels else lambda tokens: tokens.mean((1, 2))  # no window is padded
        with evaluating(self.encoder):
            return torch.cat(
                [read(self.encoder(batch)) for batch in self.batches(windows, OVERLAP if channels else 1)]
            ).numpy()

    def vectors(self, windows):
        """(windows, 384) array: each window in the space of words (`TextAlignedModel` only)."""
        self._check_aligned()
        with evaluating(self.model):
            return torch.cat([self.model(batch) for batch in self.batches(windows)]).numpy()

    def scores(self, windows, labels):
        """(windows, labels) array: how near each window is to the words of each label (`TextAlignedModel` only)."""
        self._check_aligned()
        text = self.text(labels)
        with evaluating(self.model):
            return torch.cat([self.model.scores(batch, text) for batch in self.batches(windows)]).numpy()

    def _check_aligned(self):
        if not isinstance(self.model, TextAlignedModel):
            raise OptionError("words need a model that was aligned with them: align_motion(...)")

    def untrained(self, seed=0):
        """The same with random weights in place of what was learnt: what pretraining must beat."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MaskedPatchModel(**self.encoder.config).eval()
        return replace(
            self, model=model, history=[], metadata={"stage": 0, "seed": seed, "text_encoder": self.text.name}
        )

    def save(self, path):
        """Write model, patches and metadata; `load_motion_model` reads them."""
        save_checkpoint(path, self.model, self.metadata, patch_s=self.patch_s)


def load_motion_model(path, text=None):
    """Read what `MotionModel.save` has written; ``text`` as in `pretrain_motion`, by default the encoder it was trained
    with.

    Raises
    ------
    DataError : no such file, or one that does not hold a model of motion
    """
    model, checkpoint = load_checkpoint(path)
    metadata, patch_s = checkpoint.get("metadata"), checkpoint.get("patch_s")
    if not isinstance(metadata, dict) or patch_s is None or not isinstance(model, MaskedPatchModel | TextAlignedModel):
        raise DataError(f"{path} holds no model of motion, as MotionModel.save writes it")
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise DataError(f"the weights in {path} hold NaN or infinity")
    text = text or text_encoder(metadata.get("text_encoder"))
    if text.name != metadata.get("text_encoder"):
        raise OptionError(
            f"{path} was trained with the text encoder {metadata.get('text_encoder')!r}, not {text.name!r}"
        )
    return MotionModel(model, patch_s, text, [], metadata)


def pretrain_motion(
    train,
    development,
    patch_s,
    *,
    size="nano",
    text=None,
    mask_ratio=0.5,
    strength="weak",
    rotate=False,
    reconstruction_weight=1.0,
    contrastive_weight=0.1,
    neighbours=0,
    **options,
) -> MotionModel:
    """Stage 1: train an encoder on windows without labels.

    Parameters
    ----------
    train, development : lists of `MotionWindows`; other people in each
    patch_s : seconds of a patch: a number, (least, most, step), or a dict of either by the name of the data set
    size : of the encoder, see `evlib.networks.transformer.SIZES`
    text : text encoder of the channels' descriptions; default: the sentence encoder where it is installed
    mask_ratio : share of hidden patches
    strength, rotate : of the other view, see `evlib.training.batches.motion_views`
    reconstruction_weight, contrastive_weight : 0 leaves a loss out
    neighbours : 0 contrasts patches with themselves in another view. More contrasts windows with windows at most so
        many rows away, which mostly show the same activity: for windows in the order of recording, with a contrastive
        weight of 1
    options : as in `evlib.training.masked.fit_patches`

    Returns
    -------
    MotionModel with the weights of the least raw development loss

    Raises
    ------
    OptionError, DataError : see the messages
    """
    if size not in SIZES:
        raise OptionError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if not contrastive_weight:
        if neighbours:
            raise OptionError("neighbours are contrasted: they need a contrastive_weight above 0")
        strength = "none"  # no other view is looked at
    if mask_ratio is None:
        raise OptionError("stage 1 hides something: mask_ratio must lie strictly between 0 and 1, got None")
    text = text or text_encoder()
    if contrastive_weight and (alone := [one.name for one in train if len(np.unique(one.sources)) < 2]):
        raise DataError(
            f"{', '.join(alone)}: windows of one session are not contrasted; give more, or contrastive_weight=0"
        )
    loss = MaskedPretextLoss(reconstruction_weight, contrastive_weight, level="window" if neighbours else "patch")
    batches = {"mask_ratio": mask_ratio, "strength": strength, "rotate": rotate, "view": bool(contrastive_weight)}
    batches |= {"neighbours": neighbours}
    metadata = {
        "stage": 1,
        "size": size,
        "reconstruction_weight": reconstruction_weight,
        "contrastive_weight": contrastive_weight,
    }

    def build():
        return MaskedPatchModel(**SIZES[size])

    found = fit_patches(
        masked_losses, build, loss, train, development, patch_s, text, batches, metadata | batches, **options
    )
    model, history, metadata = found
    return MotionModel(model, patch_s, text, history, metadata)


def align_motion(
    start,
    train,
    development,
    *,
    num_prototypes=3,
    soft_weight=0.5,
    queue_size=256,
    usage_weight=1.0,
    strength="weak",
    rotate=False,
    patch_s=None,
    freeze=False,
    **options,
) -> MotionModel:
    """Stage 2: bring windows near the words of their labels.

    Parameters
    ----------
    start : `MotionModel` of stage 1, whose encoder, patches and text encoder are taken over
    train, development : lists of `MotionWindows` with labels
    num_prototypes : of each label
    soft_weight, queue_size, usage_weight : see `evlib.motion.align.AlignmentLoss`
    strength, rotate : how windows are changed in training
    patch_s : other patches than those of ``start``, as (least, most, step) for a random length
    freeze : leave the encoder as it is
    options : as in `evlib.training.masked.fit_patches`
    """
    config = start.encoder.config
    loss = AlignmentLoss(config["text_size"], queue_size, soft_weight, usage_weight)
    batches = {"strength": strength, "rotate": rotate, "words": label_words}
    metadata = {"stage": 2, "num_prototypes": num_prototypes, "soft_weight": soft_weight, "queue_size": queue_size}
    metadata |= {
        "usage_weight": usage_weight,
        "freeze": freeze,
        "labels": sorted({str(k) for one in train for k in one.labels}),
    }

    def build():
        model = TextAlignedModel(**config, num_prototypes=num_prototypes)
        model.encoder.load_state_dict(start.encoder.state_dict())
        model.encoder.requires_grad_(not freeze)
        return model

    patch_s = start.patch_s if patch_s is None else patch_s
    found = fit_patches(
        aligned_losses, build, loss, train, development, patch_s, start.text, batches, metadata, **options
    )
    model, history, metadata = found
    return MotionModel(model, patch_s, start.text, history, metadata)
