"""Training: one loop for all models, which differ only in the losses of a batch.

`train` is the loop. Devices, mixed precision and several processes are those of Lightning Fabric. The trainers of the
original package, `SupervisedTrainer`, `UnsupervisedTrainer` and `ContrastiveTrainer`, are thin adapters on it.
"""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.losses import nt_xent
from ..networks.seeds import seeded
from ..networks.threads import few_threads
from ..signals.errors import DataError, OptionError, require_int
from .checkpoints import BEST_NAME, latest_checkpoint, load, load_weights, restore_rng, rng_state, save_checkpoint
from .provenance import check_same_run, describe_run, make_room

# What a checkpoint holds of a training, besides the weights.
RESUMED = {"epoch", "global_step", "history", "rng", "run", "best_state_dict", "scheduler"}
RESUMED |= {"optimizer_state_dict", "loss_state_dict"}
# Steps from one logged loss of a single batch to the next.
LOG_EVERY_STEPS = 10


class _Task(nn.Module):
    """A model and its loss as one module: both are moved to the device, and run in the wanted precision, together."""

    def __init__(self, model, losses, loss_fn):
        super().__init__()
        self.model, self.losses, self.loss_fn = model, losses, loss_fn

    def forward(self, batch):
        return self.losses(self.model, batch)


@few_threads()
def train(
    model: nn.Module,
    losses: Callable,
    train_loader: Iterable,
    val_loader: Iterable | None,
    optimizer: torch.optim.Optimizer,
    *,
    num_epochs: int,
    loss_fn: Callable | None = None,
    scheduler=None,
    step_every_batch: bool = False,
    patience: int | None = None,
    keep_best: bool = True,
    save_dir: str | Path | None = None,
    save_freq: int | None = None,
    resume_from: str | Path | bool | None = None,
    run_options: dict | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = "cpu",
    devices: int = 1,
    precision: Any = "32-true",
    gradient_clip_val: float | None = 1.0,
    progress: bool = True,
    seed: int | None = 0,
) -> list[dict]:
    """Train a model, and give it the weights of its best epoch.

    Parameters
    ----------
    losses : function of the model and a batch that returns a dict of losses, ``total_loss`` among them, which is
        minimised. A loss is a scalar tensor, the mean over the items of the batch, or a pair of such a mean and the
        weight that it has in the mean over the epoch
    train_loader, val_loader : iterables of batches, such as a DataLoader; without a ``val_loader`` the training loss
        decides which epoch is the best. ``set_epoch`` of the training data is called with the number (from 0) of the
        epoch that comes next
    optimizer : over the parameters of ``model``
    num_epochs : number of epochs in all, those before ``resume_from`` included
    loss_fn : the loss function, if it is a module with a state of its own, which is moved, saved and resumed with the
        model. A loss that it names as ``monitor`` decides which epoch is the best, instead of ``total_loss``
    scheduler : of the learning rate, stepped once an epoch, with the monitored loss if it is a ReduceLROnPlateau
    step_every_batch : step the scheduler after each batch instead
    patience : stop after this many epochs without a new least loss; None for never
    keep_best : False leaves the model with the weights of its last epoch, in training mode
    save_dir : folder for ``best_model.pth`` and ``checkpoint_epoch_N.pth``; None writes no files. Those of an earlier
        run are moved into a folder in it
    save_freq : number of epochs from one ``checkpoint_epoch_N.pth`` to the next; None writes none
    resume_from : a checkpoint to go on from, or True for the latest in ``save_dir``; the result is that of a run that
        was never interrupted. Data, batches, model, loss, seed and the options of the optimizer must be the same
    run_options : further options that must be the same, plain values by name. With them, a ``save_dir`` with models of
        an earlier run is refused
    log_dir : folder for TensorBoard's logs (a CSV file where tensorboard is not installed); None for ``save_dir``
    device : "cpu", "cuda", "cuda:1" or "mps"; None for the best there is
    devices, precision : number of devices, and for example "bf16-mixed" or "16-mixed", as in Lightning's ``Fabric``
    gradient_clip_val : largest norm of the gradient; None for no limit
    progress : show a progress bar
    seed : of dropout and shuffling; the global random state is left as it was. None draws from the global random state

    Returns
    -------
    list of dict : for each epoch ``epoch`` (from 1), ``lr`` and each mean loss as ``train_...`` and ``val_...``

    Raises
    ------
    OptionError : a number of epochs below 1, nothing to resume from, a checkpoint of another run
    DataError : a checkpoint that does not fit or is damaged, a loss that is no longer finite
    WriteError : a full disk

    Examples
    --------
    >>> model = nn.Linear(1, 1)
    >>> batches = [{"input": torch.ones(4, 1), "target": torch.zeros(4, 1)}]
    >>> def losses(model, batch):
    ...     return {"total_loss": nn.functional.mse_loss(model(batch["input"]), batch["target"])}
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> history = train(model, losses, batches, None, optimizer, num_epochs=5, progress=False)
    >>> history[-1]["train_total_loss"] < history[0]["train_total_loss"]
    True
    """
    from lightning_fabric import Fabric
    from tqdm.auto import tqdm

    require_int(1, num_epochs=num_epochs, save_freq=save_freq or 1, patience=1 if patience is None else patience)
    monitor = ("train_" if val_loader is None else "val_") + getattr(loss_fn, "monitor", "total_loss")
    state = loss_fn if isinstance(loss_fn, nn.Module) else None
    folder = None if save_dir is None else Path(save_dir)
    if resume_from is True:
        if folder is None:
            raise OptionError("resume=True needs save_dir, the folder with the checkpoints of the run that was cut off")
        resume_from = latest_checkpoint(folder)
    about = None
    if folder or resume_from:
        options = {"seed": seed, "precision": str(precision), **(run_options or {})}
        about = describe_run(model, train_loader, val_loader, optimizer, scheduler, loss_fn, options)
    start: dict[str, Any] = {"epoch": 0, "global_step": 0, "history": []}
    if resume_from:
        start = _resume(resume_from, model, optimizer, scheduler, state, about, monitor)
    if folder and not (resume_from and folder.resolve() == Path(resume_from).resolve().parent):
        make_room(folder, refuse=run_options is not None)
    history = list(start["history"])

    def run(fabric):
        task, step_optimizer = fabric.setup(_Task(model, losses, state), optimizer)
        _follow(optimizer, fabric.device)
        loaders = [loader for loader in (train_loader, val_loader) if loader is not None]
        if fabric.world_size > 1:
            loaders = [fabric.setup_dataloaders(loader) for loader in loaders]
        set_epoch(train_loader, start["epoch"])
        # Nothing may draw random numbers between here and the first shuffle, as nothing does between two epochs.
        if "rng" in start:
            restore_rng(start["rng"], train_loader)
        step, best = start["global_step"], start.get("best_state_dict")
        least = min((row[monitor] for row in history), default=np.inf)
        bar = tqdm(
            total=_n_batches(train_loader, num_epochs - start["epoch"]),
            unit="batch",
            disable=not (progress and fabric.is_global_zero),
        )

        def learn(batch_losses):
            nonlocal step
            step_optimizer.zero_grad()
            fabric.backward(batch_losses["total_loss"])
            if gradient_clip_val is not None:
                fabric.clip_gradients(task, step_optimizer, max_norm=gradient_clip_val, error_if_nonfinite=False)
            step_optimizer.step()
            if step_every_batch:
                scheduler.step()
            step += 1
            if step % LOG_EVERY_STEPS == 0:
                fabric.log("train_total_loss_step", batch_losses["total_loss"].detach(), step)
            bar.update()

        def save(name, best):
            if fabric.is_global_zero:
                save_checkpoint(
                    folder / name,
                    model,
                    optimizer_state_dict=optimizer.state_dict(),
                    epoch=epoch,
                    global_step=step,
                    val_loss=None if val_loader is None else history[-1][monitor],
                    monitor=monitor,
                    scheduler=scheduler and scheduler.state_dict(),
                    loss_state_dict=state and state.state_dict(),
                    rng=rng_state(train_loader),
                    history=history,
                    run=about,
                    best_state_dict=best,
                )

        for epoch in range(start["epoch"] + 1, num_epochs + 1):
            bar.set_description(f"epoch {epoch} of {num_epochs}")
            row = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"]}
            for stage, loader in zip(("train", "val"), loaders, strict=False):
                task.train(stage == "train")
                row |= _mean_losses(fabric, task, loader, stage, learn)
            task.train()
            if not np.isfinite(list(row.values())).all():
                raise DataError(
                    f"the loss is no longer finite in epoch {epoch}: lower the learning rate or check the data"
                )
            history.append(row)
            bar.set_postfix({name: value for name, value in row.items() if name.endswith("total_loss")})
            fabric.log_dict(row, step)
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(row[monitor])
            elif scheduler is not None and not step_every_batch:
                scheduler.step()
            # The best first: a run that is cut off here goes on from before, and both are written again.
            is_best = row[monitor] < least
            if is_best:
                least = row[monitor]
                if keep_best or folder:
                    best = {name: value.detach().clone() for name, value in model.state_dict().items()}
                if folder:
                    save(BEST_NAME, None)
            if folder and save_freq and epoch % save_freq == 0:
                save(f"checkpoint_epoch_{epoch}.pth", None if is_best else best)
            set_epoch(train_loader, epoch)
            if patience is not None and epoch - 1 - np.argmin([row[monitor] for row in history]) >= patience:
                break
        bar.close()
        for logger in fabric.loggers:
            logger.finalize("success")
        task.cpu()
        _follow(optimizer, torch.device("cpu"))
        if fabric.world_size > 1:  # a process that ends first would take the connection from the others
            fabric.barrier()
        return history, best, model.state_dict(), os.getpid()

    best: Any = start.get("best_state_dict")
    if start["epoch"] < num_epochs:
        logs = _loggers(save_dir if log_dir is None else log_dir)
        fabric = Fabric(**_accelerator(device, devices), precision=precision, loggers=logs)
        with contextlib.nullcontext() if seed is None else seeded(seed):
            history, best, last, process = fabric.launch(run)
        # Only here, where the wrapped model is gone: a model that outlives the connection can wait for it for ever.
        if fabric.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if process != os.getpid():  # a notebook trains on several devices in processes of their own
            model.load_state_dict(last)
    if keep_best:
        model.load_state_dict(best)
        model.eval()
    if history[-1].get("val_active_units", history[-1].get("train_active_units")) == 0:
        warnings.warn(
            "the posterior has collapsed: no latent dimension varies between windows, so the encoder has learnt "
            "nothing (lower kl_weight or lengthen warmup_steps)",
            stacklevel=2,
        )
    return history


def train_one_cycle(model, losses, items, epochs, batch_size, lr, seed=0, progress=False) -> list[dict]:
    """Train on all items for so many epochs, with a learning rate that rises to ``lr`` and falls to zero.

    The weights of the last epoch are kept.

    Parameters
    ----------
    model, losses, progress, seed : see `train`
    items : tensors by name, the items along their first axis, as they come in a batch

    Returns
    -------
    history, as of `train`
    """
    loader = torch.utils.data.DataLoader(torch.utils.data.StackDataset(**items), batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader))
    options: dict = {"step_every_batch": True, "keep_best": False, "progress": progress, "seed": seed}
    return train(model, losses, loader, None, optimizer, num_epochs=epochs, scheduler=schedule, **options)


def _mean_losses(fabric, task, loader, stage, learn):
    """The mean of each loss over a loader, over its batches on all devices, as ``train_...`` or ``val_...``."""
    sums = {}
    for batch in loader:
        batch = fabric.to_device(batch)
        with torch.set_grad_enabled(stage == "train"):
            losses = task(batch)
        pairs = {name: loss if isinstance(loss, tuple) else (loss, _n_items(batch)) for name, loss in losses.items()}
        if stage == "train":
            learn({name: loss for name, (loss, _) in pairs.items()})
        for name, (loss, weight) in pairs.items():
            total, count = sums.get(name, (0.0, 0))
            sums[name] = total + loss.detach().float() * weight, count + weight
    if fabric.world_size > 1:
        parts = [{}] * fabric.world_size
        here = {name: (total.cpu(), count) for name, (total, count) in sums.items()}
        torch.distributed.all_gather_object(parts, here)
        names = dict.fromkeys(name for part in parts for name in part)
        sums = {
            name: [sum(column) for column in zip(*(p[name] for p in parts if name in p), strict=True)] for name in names
        }
    return {f"{stage}_{name}": (total / count).item() for name, (total, count) in sums.items()}


def _n_batches(loader, num_epochs):
    """Number of batches in some epochs, None where a loader does not know it."""
    try:
        return len(loader) * num_epochs
    except TypeError:
        return None


def _n_items(batch):
    """Number of items in a batch: the length of its first tensor."""
    if isinstance(batch, dict):
        return len(batch["input"])
    return len(batch if torch.is_tensor(batch) else batch[0])


def _resume(path, model, optimizer, scheduler, loss_fn, about, monitor):
    """Put everything into the state that a checkpoint holds, and return the checkpoint."""
    checkpoint = load(path)
    if missing := RESUMED - checkpoint.keys():
        wanted = ", ".join(sorted(missing))
        raise DataError(f"{path} holds weights but no state of a training ({wanted}): it cannot be resumed from")
    if (scheduler is None) != (checkpoint["scheduler"] is None):
        raise DataError(f"{path} and this trainer must both have a scheduler, or neither")
    check_same_run(path, checkpoint["run"], about)
    try:
        epoch, step = checkpoint["epoch"], checkpoint["global_step"]
        require_int(1, epoch=epoch)
        require_int(0, global_step=step)
        history = [{name: float(value) for name, value in row.items()} for row in checkpoint["history"]]
        whole = [row["epoch"] for row in history] == list(range(1, epoch + 1))
        if not whole or not all(np.isfinite(row[monitor]) for row in history):
            raise ValueError("the losses of all epochs are wanted")
        for state in (checkpoint["rng"]["torch"], checkpoint["rng"]["loader"]):
            torch.Generator().set_state(torch.get_rng_state() if state is None else state)
        if best := checkpoint["best_state_dict"]:
            own = {name: value.shape for name, value in model.state_dict().items()}
            if {name: value.shape for name, value in best.items()} != own:
                raise ValueError("the best weights are of another model")
    except Exception as error:  # the values may be anything
        raise DataError(f"the state of the training in {path} is damaged: {error!r}") from error
    load_weights(path, model, checkpoint["model_state_dict"])
    parts = {
        "optimizer": (optimizer, "optimizer_state_dict"),
        "scheduler": (scheduler, "scheduler"),
        "state of the loss": (loss_fn, "loss_state_dict"),
    }
    for what, (part, key) in parts.items():
        try:
            if part is not None:
                part.load_state_dict(checkpoint[key] or {})
        except Exception as error:
            raise DataError(f"the {what} in {path} does not fit this one: {error}") from error
    # A checkpoint of the best epoch holds its weights once.
    return checkpoint | {"best_state_dict": best or checkpoint["model_state_dict"]}


def _follow(optimizer, device):
    """Move the state of an optimizer to where its parameters are."""
    if any(torch.is_tensor(v) and v.device != device for s in optimizer.state.values() for v in s.values()):
        optimizer.load_state_dict(optimizer.state_dict())


def _accelerator(device, devices):
    """Fabric's words for a torch device."""
    if device is None:
        return {"accelerator": "auto", "devices": devices}
    device = torch.device(device)
    if device.index is not None and devices == 1:
        devices = [device.index] if device.type != "cpu" else 1
    return {"accelerator": "gpu" if device.type == "cuda" else device.type, "devices": devices}


def _loggers(log_dir):
    if log_dir is None:
        return []
    from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

    if importlib.util.find_spec("tensorboard") is not None:
        return [TensorBoardLogger(log_dir, name=None)]
    logging.getLogger(__name__).warning("tensorboard is not installed: the losses go to a CSV file under %s", log_dir)
    return [CSVLogger(log_dir, name="")]


def set_epoch(loader, epoch):
    """Announce to a loader's dataset, if its draws depend on it, which epoch (from 0) comes next."""
    dataset = getattr(loader, "dataset", loader)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)


# --- The trainers of the original package


def supervised_losses(model, loss_fn, batch):
    """The losses of one batch of `collate_fn_supervised`, for any model that returns an `EventOutput`."""
    if "lengths" not in batch:
        raise DataError("the batch has no 'lengths': make the DataLoader with collate_fn=collate_fn_supervised")
    output = model(batch["input"], batch["lengths"])
    scores = (output.template_scores,) if getattr(loss_fn, "needs_templates", False) else ()
    return loss_fn(output.event_logits, output.timing_logits, *scores, batch["event_labels"], batch["event_timings"])


def unsupervised_losses(model, loss_fn, batch):
    """The losses of one batch for an autoencoder: a tensor, or a dict with input and lengths."""
    if torch.is_tensor(batch):
        batch = {"input": batch, "lengths": None}
    if not isinstance(batch, dict) or not {"input", "lengths"} <= batch.keys():
        raise DataError(
            "a batch must be a tensor (batch, time, channels) or a dict with 'input' and 'lengths': make the "
            "DataLoader of an UnsupervisedDataset, with collate_fn=collate_fn_unsupervised if windows differ in length"
        )
    return loss_fn(model(batch["input"], batch["lengths"]), batch["input"], batch["lengths"])


def contrastive_losses(model, loss_fn, batch):
    """The losses of one batch of `collate_fn_contrastive`, for a model that returns z1, h1, z2, h2."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 4):
        raise DataError("a batch must be two views: make the DataLoader with collate_fn=collate_fn_contrastive")
    z1, _, z2, _ = model(*batch)
    return {"total_loss": loss_fn(z1, z2)}


class SupervisedTrainer:
    """Train an event model on labelled windows, in batches of `collate_fn_supervised`.

    Parameters
    ----------
    model : a model that returns an `EventOutput`
    loss_fn : `EventTimingLoss`, or anything called alike
    optimizer : over the parameters of ``model``
    device : "cpu", "cuda", "cuda:1" or "mps"; None for the best there is
    log_dir : folder for TensorBoard's logs; None for beside the checkpoints
    scheduler : of the learning rate, see `train`

    Raises
    ------
    OptionError : an optimizer over other parameters, a loss with another frame length than the model's

    Examples
    --------
    >>> from evlib.networks.losses import EventTimingLoss
    >>> from evlib import LSTMEventClassifier
    >>> model = LSTMEventClassifier(hidden_size=8)
    >>> trainer = SupervisedTrainer(model, EventTimingLoss(), torch.optim.Adam(model.parameters(), lr=1e-3))
    >>> trainer.history
    []
    """

    losses = staticmethod(supervised_losses)

    def __init__(self, model, loss_fn, optimizer, device=None, log_dir="./runs", scheduler=None):
        own = {id(parameter) for parameter in model.parameters()}
        if not all(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            raise OptionError(
                "the optimizer holds parameters that are not the model's (was the model made anew after it?)"
            )
        resolutions = [getattr(part, "timing_resolution_samples", None) for part in (model, loss_fn)]
        if None not in resolutions and resolutions[0] != resolutions[1]:
            raise OptionError(
                f"timing_resolution_samples is {resolutions[0]} in the model but {resolutions[1]} in the loss"
            )
        self.model, self.loss_fn, self.optimizer, self.scheduler = model, loss_fn, optimizer, scheduler
        self.device, self.log_dir, self.history = device, log_dir, []

    def fit(
        self,
        train_loader: Iterable,
        val_loader: Iterable | None = None,
        num_epochs: int = 100,
        save_dir: str | Path = "./checkpoints",
        save_freq: int = 10,
        progress_bar: bool = True,
        **options,
    ) -> list[dict]:
        """Train, and return the history.

        The model holds the weights of the last epoch afterwards, ``best_model.pth`` those of the best. The parameters
        and ``options`` (``patience``, ``resume_from``, ``precision``, ``devices``, ``gradient_clip_val``, ``seed``) are
        those of `train`.
        """
        options |= {"device": self.device, "log_dir": self.log_dir, "scheduler": self.scheduler}
        options |= {"save_dir": save_dir, "save_freq": save_freq, "progress": progress_bar, "keep_best": False}

        def losses(model, batch):
            return self.losses(model, self.loss_fn, batch)

        self.history = train(
            self.model,
            losses,
            train_loader,
            val_loader,
            self.optimizer,
            num_epochs=num_epochs,
            loss_fn=self.loss_fn,
            **options,
        )
        return self.history


class UnsupervisedTrainer(SupervisedTrainer):
    """Train an autoencoder on windows without labels: tensors (batch, time, channels), or dicts with input and lengths.

    A warning is given when a variational autoencoder ends with no latent dimension in use.

    Parameters
    ----------
    model : `LSTMAutoencoder` or `VariationalLSTMAutoencoder`
    loss_fn : `AutoencoderLoss` or `VariationalAutoencoderLoss`, or anything called alike
    optimizer, device, log_dir, scheduler : as in `SupervisedTrainer`

    Examples
    --------
    >>> from evlib.networks.losses import AutoencoderLoss
    >>> from evlib import LSTMAutoencoder
    >>> model = LSTMAutoencoder(hidden_size=8)
    >>> trainer = UnsupervisedTrainer(model, AutoencoderLoss(), torch.optim.Adam(model.parameters(), lr=1e-3))
    """

    losses = staticmethod(unsupervised_losses)


class ContrastiveTrainer(SupervisedTrainer):
    """Train a contrastive model on pairs of views, in batches of `collate_fn_contrastive`.

    The loss is `nt_xent` at the model's temperature.

    Parameters
    ----------
    model : `ContrastiveLSTM`
    optimizer, device, log_dir, scheduler : as in `SupervisedTrainer`

    Examples
    --------
    >>> from evlib import ContrastiveLSTM
    >>> model = ContrastiveLSTM(hidden_size=8)
    >>> trainer = ContrastiveTrainer(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    """

    losses = staticmethod(contrastive_losses)

    def __init__(self, model, optimizer, device=None, log_dir="./runs", scheduler=None):
        def loss_fn(view1, view2):
            return nt_xent(view1, view2, temperature=model.temperature)

        super().__init__(model, loss_fn, optimizer, device, log_dir, scheduler)
