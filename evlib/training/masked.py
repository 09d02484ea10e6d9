"""Training on patches: the loss of hidden patches and of other views, and the schedule that all models of patches
share."""

import math
from pathlib import Path

import torch
from torch import nn

from ..networks.losses import masked_mean, nt_xent
from ..networks.transformer import log_spectrum
from ..signals.errors import OptionError, require_int
from .batches import MotionBatches
from .checkpoints import latest_checkpoint, remember_run
from .loop import train

# What a hidden patch of a walk looked like is mostly its phase, which nobody can know.
PART_WEIGHTS = {"shape": 0.1, "stats": 1.0, "spectrum": 1.0}
TEMPERATURE = 0.2
WEIGHT_DECAY = 1e-2
WARM_UP = 0.1


class MaskedPretextLoss(nn.Module):
    """How badly hidden tokens are told, and patches told apart: each divided by its own running mean, so that both
    count.

    ``raw_loss`` is the weighted sum before that division. It compares between epochs, and trainers choose by it; the
    running means only move in training. Losses of one data set are named ``raw_loss/<set>``.

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
            raise OptionError(
                f"want weights of at least 0, not both 0; got {reconstruction_weight!r}, {contrastive_weight!r}"
            )
        if not temperature > 0 or not 0 <= decay < 1:
            raise OptionError(f"want temperature > 0 and decay in [0, 1), got {temperature!r} and {decay!r}")
        if level not in ("patch", "window"):
            raise OptionError(f"level must be patch or window, got {level!r}")
        self.level = level
        self.weights = {"reconstruction": float(reconstruction_weight), "contrastive": float(contrastive_weight)}
        self.temperature, self.decay, self.parts = float(temperature), float(decay), dict(parts)
        self.register_buffer("running_mean", torch.full((2,), torch.nan))

    def forward(self, told, view, batch):
        """The losses of a batch of `MotionBatches`; ``told`` and ``view`` are what the model says of it and of its
        other view."""
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
    """Mean squared error over the hidden tokens of channels that were not dropped: shape, stats and spectrum,
    weighed."""
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


def fit_patches(
    losses,
    build,
    loss,
    training,
    development,
    patch_s,
    text,
    batches,
    metadata,
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
):
    """Train a model of patches with AdamW, a tenth of the epochs to warm up, then a cosine.

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

    Returns
    -------
    model (on the CPU, in evaluation mode), history, metadata : the metadata says too what it was trained on
    """
    require_int(1, max_epochs=max_epochs)
    if not 0 < lr < math.inf or not 0 <= alpha < math.inf:
        raise OptionError(f"want a learning rate above 0 and alpha of at least 0, got {lr!r} and {alpha!r}")
    if resume and save_dir is None:
        raise OptionError("resume=True needs save_dir, the folder with the checkpoints of the run that was cut off")
    if save_dir is not None:
        settings = metadata | {
            "patch_s": patch_s,
            "lr": lr,
            "batch_size": batch_size,
            "max_epochs": max_epochs,
            "alpha": alpha,
        }
        settings |= {
            "seed": seed,
            "text_encoder": text.name,
            "data": [one.fingerprint() for one in (*training, *development)],
        }
        settings |= {"precision": precision, "patience": patience}
        remember_run(Path(save_dir), settings, resume)
    common = {"batch_size": batch_size, "alpha": alpha, "seed": seed}
    loaders = [
        torch.utils.data.DataLoader(
            MotionBatches(sets, text, patch_s, train=learn, **common, **batches), batch_size=None
        )
        for sets, learn in ((training, True), (development, False))
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
    if compile:
        model.compile()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=WEIGHT_DECAY)
    warm_up = max(1, round(WARM_UP * max_epochs))
    rates = [
        min((epoch + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * epoch / max_epochs))
        for epoch in range(max_epochs + 1)
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rates[min(epoch, max_epochs)])
    history = train(
        model,
        lambda model, batch: losses(model, loss, batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        loss_fn=loss,
        scheduler=schedule,
        patience=patience,
        save_dir=save_dir,
        save_freq=1,
        resume_from=latest_checkpoint(save_dir) if resume else None,
        log_dir=log_dir,
        device=device,
        precision=precision,
        progress=progress,
        seed=seed,
    )
    metadata = {
        **metadata,
        "text_encoder": text.name,
        "seed": int(seed),
        "epochs": len(history),
        "data_sets": {one.name: len(one) for one in training},
        "channels": {one.name: list(one.channels) for one in training},
    }
    return model.cpu().requires_grad_(True), history, metadata
