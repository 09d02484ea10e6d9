"""Training encoders of motion: first without labels (hide and tell, tell apart), then with the words of labels.

`pretrain_motion` is the first stage, `align_motion` the second; each gives back a `MotionModel`, which knows how windows become
its patches and which text encoder its words come from.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .alignment import AlignmentLoss
from .checkpoints import latest_checkpoint, load_checkpoint, remember_run, save_checkpoint
from .errors import DataError, OptionError
from .event_output import evaluating
from .losses import masked_mean, nt_xent
from .models import MaskedPatchModel, TextAlignedModel
from .motion_batches import MotionBatches, patch_range
from .options import check_whole
from .patch_encoder import SIZES, log_spectrum, summarise_tokens
from .patches import MAX_PATCHES, make_batch, patch_samples
from .text import text_encoder
from .training import Trainer

# What a hidden patch of a walk looked like is mostly its phase, which nobody can know.
PART_WEIGHTS = {"shape": 0.1, "stats": 1.0, "spectrum": 1.0}
TEMPERATURE = 0.2
WEIGHT_DECAY = 1e-2
WARM_UP = 0.1
WINDOWS_AT_ONCE = 256
# Patches in the length of one when windows are summarised: whatever recurs then lies in the middle of some patch.
OVERLAP = 4


class MaskedPretextLoss(nn.Module):
    """How badly hidden tokens are told, and patches told apart: each divided by its own running mean, so that both count.

    ``raw_loss`` is the weighted sum before that division. It compares between epochs, and trainers choose by it; the running
    means only move in training. Losses of one data set are named ``raw_loss/<set>``.

    Parameters
    ----------
    reconstruction_weight, contrastive_weight : a weight of 0 leaves a loss out
    temperature : of the contrast
    decay : of the running means
    parts : weights of what is told of a hidden token: its shape, stats and spectrum
    level : "patch" or "window", what has to be known again in the other view; a window is the mean of its patches

    Raises
    ------
    OptionError : negative weights, both 0, a temperature that is not positive, an unknown level
    """

    monitor = "raw_loss"

    def __init__(
        self,
        reconstruction_weight=1.0,
        contrastive_weight=0.1,
        temperature=TEMPERATURE,
        decay=0.99,
        parts=PART_WEIGHTS,
        level="patch",
    ):
        super().__init__()
        if min(reconstruction_weight, contrastive_weight) < 0 or reconstruction_weight + contrastive_weight == 0:
            raise OptionError(f"want weights of at least 0, not both 0; got {reconstruction_weight!r}, {contrastive_weight!r}")
        if not temperature > 0 or not 0 <= decay < 1:
            raise OptionError(f"want temperature > 0 and decay in [0, 1), got {temperature!r} and {decay!r}")
        if level not in ("patch", "window"):
            raise OptionError(f"level must be patch or window, got {level!r}")
        self.level = level
        self.weights = {"reconstruction": float(reconstruction_weight), "contrastive": float(contrastive_weight)}
        self.temperature, self.decay, self.parts = float(temperature), float(decay), dict(parts)
        self.register_buffer("running_mean", torch.full((2,), torch.nan))

    def forward(self, told, view, batch):
        """The losses of a batch of `MotionBatches`; ``told`` and ``view`` are what the model says of it and of its other view."""
        losses = {}
        if self.weights["reconstruction"]:
            losses["reconstruction"] = reconstruction_loss(told, batch, self.parts)
        if self.weights["contrastive"]:
            losses["contrastive"] = self._contrast(told["projection"], view["projection"], batch)
        none = torch.zeros((), device=batch["input"].device)
        now = torch.stack([losses[name].detach() if name in losses else none for name in self.weights])
        if self.training:
            first = self.running_mean.isnan()
            self.running_mean = torch.where(first, now, self.decay * self.running_mean + (1 - self.decay) * now)
        scale = self.running_mean.where(~self.running_mean.isnan(), now).clamp(min=1e-6)
        total = sum(self.weights[name] * loss / scale[list(self.weights).index(name)] for name, loss in losses.items())
        raw = sum(self.weights[name] * loss.detach() for name, loss in losses.items())
        named = {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        return {"total_loss": total, "raw_loss": raw, f"raw_loss/{batch['set_name']}": raw} | named

    def _contrast(self, told, view, batch):
        """How badly patches or windows are known again, among those of other sessions: 0 if a batch holds no other."""
        valid = batch["patch_mask"]
        if bool((batch["source"] == batch["source"][0]).all()):
            return 0.0 * told.sum()
        if self.level == "patch":
            source = batch["source"][:, None].expand_as(valid)[valid]
            return nt_xent(told[valid], view[valid], self.temperature, source)
        weight = valid[..., None] / valid.sum(1)[:, None, None]
        windows = [nn.functional.normalize((patches * weight).sum(1), dim=-1) for patches in (told, view)]
        return nt_xent(*windows, self.temperature, batch["source"])


def reconstruction_loss(told, batch, parts=PART_WEIGHTS):
    """Mean squared error over the hidden tokens of channels that were not dropped: shape, stats and spectrum, weighed."""
    patches = batch["truth"]["input"].transpose(2, 3)
    counted = batch["hidden"] & ~batch["dropped"][:, None]
    truth = {"shape": patches, "stats": batch["truth"]["stats"], "spectrum": log_spectrum(patches)}
    return sum(
        weight * masked_mean((told[name].float() - truth[name].float()).square().mean(-1), counted)
        for name, weight in parts.items()
    )


def masked_losses(model, loss_fn, batch):
    """The losses of one batch of `MotionBatches` with masks."""
    view = model(batch["view"]) if loss_fn.weights["contrastive"] else None
    return loss_fn(model(batch, batch["hidden"]), view, batch)


def aligned_losses(model, loss_fn, batch):
    """The losses of one batch of `MotionBatches` with words."""
    losses = loss_fn(model(batch), model.prototypes(batch["text"]), batch["label_text"], batch["group"], model.log_scale)
    return losses | {f"alignment_loss/{batch['set_name']}": losses["alignment_loss"]}


class MaskedTrainer(Trainer):
    """`Trainer` of a `MaskedPatchModel`."""

    batch_losses = staticmethod(masked_losses)


class AlignmentTrainer(Trainer):
    """`Trainer` of a `TextAlignedModel`."""

    batch_losses = staticmethod(aligned_losses)


@dataclass(frozen=True, eq=False)
class MotionModel:
    """A model of motion, how windows become its patches, and where it comes from.

    Attributes
    ----------
    model : `MaskedPatchModel` or `TextAlignedModel`
    patch_s : seconds of a patch, a number or a dict by the name of the data set
    text : the text encoder of channels and labels
    history : losses of each epoch
    card : what it was trained on, and how: ``text_encoder`` among it
    """

    model: nn.Module
    patch_s: object
    text: object
    history: list
    card: dict

    @property
    def encoder(self):
        """The `DualBranchEncoder`."""
        return self.model.encoder

    def batches(self, windows, overlap=1):
        """The batches of some windows, in their order; patches overlap ``overlap`` times, where there is room for so many."""
        choices = patch_range(self.patch_s, windows)
        patch_s, rate = choices[len(choices) // 2], windows.sampling_rate_hz
        length = patch_samples(patch_s, rate)
        room = -(-(windows.x.shape[1] - length) // (MAX_PATCHES - 1))
        channel_text = self.text(windows.descriptions)
        for part in torch.from_numpy(windows.x).split(WINDOWS_AT_ONCE):
            yield make_batch(part, rate, patch_s, channel_text, max(length // overlap, room, 1) / rate)

    def embed(self, windows, channels=False):
        """(windows, numbers) array: the mean of all tokens, or with ``channels`` more of each channel side by side.

        The latter, mean, maximum and deviation over overlapping patches (`evlib.patch_encoder.summarise_tokens`), tells more,
        but only compares windows with the same channels.
        """
        read = summarise_tokens if channels else lambda tokens: tokens.mean((1, 2))  # no window is padded
        with evaluating(self.encoder):
            return torch.cat([read(self.encoder(batch)) for batch in self.batches(windows, OVERLAP if channels else 1)]).numpy()

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
        return replace(self, model=model, history=[], card={"stage": 0, "seed": seed, "text_encoder": self.text.name})

    def save(self, path):
        """Write model, patches and card; `load_motion_model` reads them."""
        save_checkpoint(path, self.model, None, epoch=len(self.history), global_step=0, patch_s=self.patch_s, card=self.card)


def load_motion_model(path, text=None):
    """Read what `MotionModel.save` has written; ``text`` as in `pretrain_motion`, by default the encoder it was trained with.

    Raises
    ------
    DataError : no such file, or one that does not hold a model of motion
    """
    model, checkpoint = load_checkpoint(path)
    card, patch_s = checkpoint.get("card"), checkpoint.get("patch_s")
    if not isinstance(card, dict) or patch_s is None or not isinstance(model, MaskedPatchModel | TextAlignedModel):
        raise DataError(f"{path} holds no model of motion, as MotionModel.save writes it")
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise DataError(f"the weights in {path} hold NaN or infinity")
    text = text or text_encoder(card.get("text_encoder"))
    if text.name != card.get("text_encoder"):
        raise OptionError(f"{path} was trained with the text encoder {card.get('text_encoder')!r}, not {text.name!r}")
    return MotionModel(model, patch_s, text, [], card)


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
    size : of the encoder, see `evlib.patch_encoder.SIZES`
    text : text encoder of the channels' descriptions; default: the sentence encoder where it is installed
    mask_ratio : share of hidden patches
    strength, rotate : of the other view, see `evlib.motion_batches.motion_views`
    reconstruction_weight, contrastive_weight : 0 leaves a loss out
    neighbours : 0 contrasts patches with themselves in another view. More contrasts windows with windows at most so many rows
        away, which mostly show the same activity: for windows in the order of recording, with a contrastive weight of 1
    options : as in `fit_motion`

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
        raise DataError(f"{', '.join(alone)}: windows of one session are not contrasted; give more, or contrastive_weight=0")
    loss = MaskedPretextLoss(reconstruction_weight, contrastive_weight, level="window" if neighbours else "patch")
    batches = {"mask_ratio": mask_ratio, "strength": strength, "rotate": rotate, "view": bool(contrastive_weight)}
    batches |= {"neighbours": neighbours}
    card = {"stage": 1, "size": size, "reconstruction_weight": reconstruction_weight, "contrastive_weight": contrastive_weight}

    def build():
        return MaskedPatchModel(**SIZES[size])

    return fit_motion(MaskedTrainer, build, loss, train, development, patch_s, text, batches, card | batches, **options)


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
    soft_weight, queue_size, usage_weight : see `evlib.alignment.AlignmentLoss`
    strength, rotate : how windows are changed in training
    patch_s : other patches than those of ``start``, as (least, most, step) for a random length
    freeze : leave the encoder as it is
    options : as in `fit_motion`
    """
    config = start.encoder.config
    loss = AlignmentLoss(config["text_size"], queue_size, soft_weight, usage_weight)
    batches = {"strength": strength, "rotate": rotate, "words": True}
    card = {"stage": 2, "num_prototypes": num_prototypes, "soft_weight": soft_weight, "queue_size": queue_size}
    card |= {"usage_weight": usage_weight, "freeze": freeze, "labels": sorted({str(k) for one in train for k in one.labels})}

    def build():
        model = TextAlignedModel(**config, num_prototypes=num_prototypes)
        model.encoder.load_state_dict(start.encoder.state_dict())
        model.encoder.requires_grad_(not freeze)
        return model

    patch_s = start.patch_s if patch_s is None else patch_s
    return fit_motion(AlignmentTrainer, build, loss, train, development, patch_s, start.text, batches, card, **options)


def fit_motion(
    trainer,
    build,
    loss,
    train,
    development,
    patch_s,
    text,
    batches,
    card,
    *,
    lr=1e-3,
    batch_size=64,
    max_epochs=20,
    patience=None,
    alpha=0.5,
    seed=0,
    save_dir=None,
    log_dir=None,
    resume=False,
    device="cpu",
    precision="32-true",
    compile=False,
    progress=False,
) -> MotionModel:
    """What both stages share: AdamW, a tenth of the epochs to warm up, then a cosine.

    Parameters
    ----------
    lr : learning rate at its height
    batch_size : windows in a batch
    max_epochs, patience : epochs at most; and without a better development loss, None for all
    alpha : a data set of n windows comes with a probability that goes with n ** alpha
    seed : of weights, batches and views
    save_dir, log_dir : checkpoints and TensorBoard's logs; default: none
    resume : go on from the latest checkpoint in ``save_dir``, which must be of a run that was asked for the same
    device, precision : as in `Trainer`; None for the best device, "16-mixed" or "bf16-mixed" for mixed precision
    compile : let torch compile the model, which pays on a GPU
    progress : show a progress bar
    """
    check_whole(1, max_epochs=max_epochs)
    if not 0 < lr < math.inf or not 0 <= alpha < math.inf:
        raise OptionError(f"want a learning rate above 0 and alpha of at least 0, got {lr!r} and {alpha!r}")
    if resume and save_dir is None:
        raise OptionError("resume=True needs save_dir, the folder with the checkpoints of the run that was cut off")
    if save_dir is not None:
        settings = card | {"patch_s": patch_s, "lr": lr, "batch_size": batch_size, "max_epochs": max_epochs, "alpha": alpha}
        settings |= {"seed": seed, "text_encoder": text.name, "data": [one.fingerprint() for one in (*train, *development)]}
        settings |= {"precision": precision, "patience": patience}
        remember_run(Path(save_dir), settings, resume)
    common = {"batch_size": batch_size, "alpha": alpha, "seed": seed}
    loaders = [
        torch.utils.data.DataLoader(MotionBatches(sets, text, patch_s, train=learn, **common, **batches), batch_size=None)
        for sets, learn in ((train, True), (development, False))
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
    if compile:
        model.compile()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=WEIGHT_DECAY)
    warm_up = max(1, round(WARM_UP * max_epochs))
    rates = [min((epoch + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * epoch / max_epochs)) for epoch in range(max_epochs + 1)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rates[min(epoch, max_epochs)])
    history = trainer(model, loss, optimizer, device, log_dir, schedule).fit_best(
        *loaders,
        max_epochs,
        save_dir,
        save_freq=1 if save_dir else max_epochs + 1,
        patience=patience,
        resume_from=latest_checkpoint(save_dir) if resume else None,
        precision=precision,
        progress_bar=progress,
        seed=seed,
    )
    card = {
        **card,
        "text_encoder": text.name,
        "seed": int(seed),
        "epochs": len(history),
        "data_sets": {one.name: len(one) for one in train},
        "channels": {one.name: list(one.channels) for one in train},
    }
    return MotionModel(model.cpu().requires_grad_(True), patch_s, text, history, card)
