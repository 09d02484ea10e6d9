"""Training on patches: the loss of hidden patches and of other views, and the training of all models of patches."""

import math

import torch
from torch import nn

from ..networks.losses import masked_mean, nt_xent
from ..networks.seeds import seeded
from ..networks.transformer import log_spectrum
from ..signals.errors import OptionError, require, require_int
from .batches import MotionBatches
from .loop import train

# Weights in the reconstruction. The shape of a hidden patch of a walk is mostly its phase, which cannot be predicted.
PART_WEIGHTS = {"shape": 0.1, "stats": 1.0, "spectrum": 1.0}
# Temperature of the contrastive loss, and decay of the running means from one batch to the next.
TEMPERATURE, DECAY = 0.2, 0.99
# Weight decay of AdamW, and the share of the epochs in which the learning rate rises.
WEIGHT_DECAY, WARM_UP = 1e-2, 0.1


class MaskedPretextLoss(nn.Module):
    """Errors of the predicted hidden tokens, and a contrastive loss of two views, each divided by its running mean.

    ``raw_loss`` is the weighted sum before that division. It is comparable between epochs, so the best epoch is chosen
    by it; the running means only change in training. The losses of one data set are named ``raw_loss/<set>``.

    Parameters
    ----------
    reconstruction_weight, contrastive_weight : a weight of 0 leaves a loss out
    parts : weights of what is predicted of a hidden token: its shape, stats and spectrum
    level : "patch" or "window", what is to be recognised in the other view; a window is the mean of its patches

    Raises
    ------
    OptionError : negative weights, both 0
    """

    monitor = "raw_loss"

    def __init__(self, reconstruction_weight=1.0, contrastive_weight=0.1, parts=PART_WEIGHTS, level="patch"):
        super().__init__()
        weights = reconstruction_weight, contrastive_weight
        message = f"want weights of at least 0, not both 0; got {weights[0]!r}, {weights[1]!r}"
        require(min(weights) >= 0 and sum(weights) > 0, OptionError, message)
        self.level, self.parts = level, dict(parts)
        self.weights = {"reconstruction": float(reconstruction_weight), "contrastive": float(contrastive_weight)}
        self.register_buffer("running_mean", torch.full((2,), torch.nan))

    def forward(self, predicted, view, batch):
        """The losses of a batch of `MotionBatches` from the model's outputs for it and for its other view."""
        losses = {}
        if self.weights["reconstruction"]:
            losses["reconstruction"] = reconstruction_loss(predicted, batch, self.parts)
        if self.weights["contrastive"]:
            losses["contrastive"] = self._contrast(predicted["projection"], view["projection"], batch)
        none = batch["input"].new_zeros(())
        now = torch.stack([losses.get(name, none).detach() for name in self.weights])
        if self.training:
            first = self.running_mean.isnan()
            self.running_mean = torch.where(first, now, DECAY * self.running_mean + (1 - DECAY) * now)
        scale = self.running_mean.where(~self.running_mean.isnan(), now).clamp(min=1e-6)
        total = sum(self.weights[name] * loss / scale[list(self.weights).index(name)] for name, loss in losses.items())
        raw = sum(self.weights[name] * loss.detach() for name, loss in losses.items())
        named = {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        return {"total_loss": total, "raw_loss": raw, f"raw_loss/{batch['set_name']}": raw} | named

    def _contrast(self, predicted, view, batch):
        """Contrastive loss among patches or windows of other sessions; 0 if a batch holds only one session."""
        valid = batch["patch_mask"]
        if bool((batch["source"] == batch["source"][0]).all()):
            return 0.0 * predicted.sum()
        if self.level == "patch":
            source = batch["source"][:, None].expand_as(valid)[valid]
            return nt_xent(predicted[valid], view[valid], TEMPERATURE, source)
        weight = valid[..., None] / valid.sum(1)[:, None, None]
        windows = [nn.functional.normalize((patches * weight).sum(1), dim=-1) for patches in (predicted, view)]
        return nt_xent(*windows, TEMPERATURE, batch["source"])


def reconstruction_loss(predicted, batch, parts=PART_WEIGHTS):
    """Weighted mean squared error of shape, stats and spectrum, over hidden tokens of channels that are not dropped."""
    patches = batch["truth"]["input"].transpose(2, 3)
    counted = batch["hidden"] & ~batch["dropped"][:, None]
    truth = {"shape": patches, "stats": batch["truth"]["stats"], "spectrum": log_spectrum(patches)}
    return sum(
        weight * masked_mean((predicted[name].float() - truth[name].float()).square().mean(-1), counted)
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
    alpha=0.5,
    seed=0,
    save_dir=None,
    resume=False,
    compile=False,
    progress=False,
    **options,
):
    """Train a model of patches with AdamW; the learning rate rises for a tenth of the epochs, then falls as a cosine.

    Parameters
    ----------
    losses, loss : function of the model, ``loss`` and a batch that returns its losses; the module of the loss
    build : function that makes the model
    training, development : lists of `Windows`
    patch_s, text, batches : see `MotionBatches`; the last are further options of it
    metadata : dict that is returned with what the training adds
    lr : highest learning rate
    batch_size : windows in a batch
    max_epochs : number of epochs, fewer if ``patience`` ends the training
    alpha : a data set of n windows is drawn with a probability proportional to n ** alpha
    seed : of weights, batches and views
    save_dir : folder for checkpoints; default: none are written
    resume : go on from the latest checkpoint in ``save_dir``, which must be of a run with the same settings
    compile : compile the model with torch, which is faster on a GPU
    progress : show a progress bar
    options : ``patience``, ``log_dir``, ``device`` and ``precision``, as in `evlib.training.loop.train`

    Returns
    -------
    model (on the CPU, in evaluation mode), history, metadata
    """
    require_int(1, max_epochs=max_epochs)
    message = f"want a learning rate above 0 and alpha of at least 0, got {lr!r} and {alpha!r}"
    require(0 < lr < math.inf and 0 <= alpha < math.inf, OptionError, message)
    drawn = {"batch_size": batch_size, "alpha": alpha, "seed": seed}
    settings = metadata | batches | drawn | {"patch_s": patch_s, "max_epochs": max_epochs, "text_encoder": text.name}
    settings |= {"data": [one.fingerprint() for one in (*training, *development)], "patience": options.get("patience")}
    sets = [MotionBatches(training, text, patch_s, **drawn, **batches)]
    sets += [MotionBatches(development, text, patch_s, train=False, **drawn, **batches)]
    loaders = [torch.utils.data.DataLoader(one, batch_size=None) for one in sets]
    with seeded(seed):
        model = build()
    if compile:
        model.compile()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=WEIGHT_DECAY)
    warm_up = max(1, round(WARM_UP * max_epochs))

    def rate(epoch):
        return min((epoch + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(epoch / max_epochs, 1)))

    options |= {
        "run_options": settings,
        "save_dir": save_dir,
        "save_freq": 1,
        "resume_from": resume,
        "progress": progress,
        "seed": seed,
    }
    history = train(
        model,
        lambda model, batch: losses(model, loss, batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        loss_fn=loss,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, rate),
        **options,
    )
    metadata = metadata | {"text_encoder": text.name, "seed": int(seed), "epochs": len(history)}
    metadata["data_sets"] = {one.name: len(one) for one in training}
    metadata["channels"] = {one.name: list(one.channels) for one in training}
    return model.requires_grad_(True), history, metadata
