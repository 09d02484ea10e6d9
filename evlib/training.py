"""Training by Lightning, and checkpoints that rebuild their model alone.

A checkpoint is a dictionary of plain types and tensors, read with ``weights_only=True``: ``epoch`` (epochs completed),
``model_state_dict``, ``optimizer_state_dict``, ``global_step``, ``val_loss`` (None without validation), then ``format``,
``model_class``, ``config`` (the model's arguments), ``monitor``, ``scheduler``, ``early_stopping``, ``rng``, ``history``.

Lightning takes seconds to import, so it is imported by the first `SupervisedTrainer.fit`.
"""

import contextlib
import functools
import importlib.util
import logging
import pickle
import warnings
from pathlib import Path

import numpy as np
import torch

from . import models
from .errors import DataError, OptionError
from .files import replace_file

CHECKPOINT_FORMAT = 1
CHECKPOINT_KEYS = ("epoch", "model_state_dict", "optimizer_state_dict", "global_step")
LOG_EVERY_STEPS = 10


def supervised_losses(model, loss_fn, batch):
    """The losses of one batch of `collate_fn_supervised`, for any model that returns an `EventOutput`."""
    if "lengths" not in batch:
        raise DataError("the batch has no 'lengths': make the DataLoader with collate_fn=collate_fn_supervised")
    output = model(batch["input"], batch["lengths"])
    return loss_fn(output.event_logits, output.timing_logits, batch["event_labels"], batch["event_timings"])


class SupervisedTrainer:
    """Train an event model on labelled windows.

    Parameters
    ----------
    model : a model that returns an `EventOutput`
    loss_fn : `EventTimingLoss`, or anything called alike
    optimizer : over the parameters of ``model``
    device : "cpu", "cuda", "cuda:1", "mps"; None for the best there is
    log_dir : where TensorBoard's logs go (a CSV file when tensorboard is not installed)
    scheduler : stepped once an epoch, with the monitored loss if it is a ReduceLROnPlateau

    Raises
    ------
    OptionError : an optimizer over other parameters, a loss with another frame length than the model's

    Examples
    --------
    >>> from evlib.losses import EventTimingLoss
    >>> model = models.LSTMEventClassifier(hidden_size=8)
    >>> trainer = SupervisedTrainer(model, EventTimingLoss(), torch.optim.Adam(model.parameters(), lr=1e-3))
    >>> trainer.history
    []
    """

    def __init__(self, model, loss_fn, optimizer, device=None, log_dir="./runs", scheduler=None):
        own = {id(parameter) for parameter in model.parameters()}
        if not all(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            raise OptionError("the optimizer holds parameters that are not the model's (was the model made anew after it?)")
        resolutions = [getattr(part, "timing_resolution_samples", None) for part in (model, loss_fn)]
        if None not in resolutions and resolutions[0] != resolutions[1]:
            raise OptionError(f"timing_resolution_samples is {resolutions[0]} in the model but {resolutions[1]} in the loss")
        self.model, self.loss_fn, self.optimizer, self.scheduler = model, loss_fn, optimizer, scheduler
        self.device, self.log_dir = device, Path(log_dir)
        self.history = []

    def fit(
        self,
        train_loader,
        val_loader=None,
        num_epochs=100,
        save_dir="./checkpoints",
        save_freq=10,
        patience=None,
        resume_from=None,
        precision="32-true",
        devices=1,
        gradient_clip_val=1.0,
        progress_bar=True,
        seed=0,
    ):
        """Train; the model holds the weights of the last epoch afterwards, ``best_model.pth`` those of the best.

        Parameters
        ----------
        train_loader, val_loader : loaders of `collate_fn_supervised` batches
        num_epochs : epochs in all, those before ``resume_from`` included
        save_dir : gets ``best_model.pth`` (the least validation ``total_loss``; the least training ``total_loss`` when
            there is no ``val_loader``) and ``checkpoint_epoch_N.pth``
        save_freq : epochs from one ``checkpoint_epoch_N.pth`` to the next
        patience : stop after this many epochs without a new least loss, None for never
        resume_from : a checkpoint to go on from; the result is that of a run that was never interrupted
        precision, devices, gradient_clip_val : as in Lightning's ``Trainer``; None clips nothing
        progress_bar : show one
        seed : of dropout and shuffling; the global random state is left as it was

        Returns
        -------
        list of dict : for each epoch ``epoch``, ``lr`` and each mean loss as ``train_...`` and ``val_...``

        Raises
        ------
        OptionError : epochs or frequencies below 1
        DataError : a checkpoint that does not fit, a loss that is no longer finite
        """
        for name, value in {"num_epochs": num_epochs, "save_freq": save_freq, "patience": patience}.items():
            if value is not None and (value != int(value) or value < 1):
                raise OptionError(f"{name} must be a whole number of at least 1, got {value!r}")
        monitor = "train_total_loss" if val_loader is None else "val_total_loss"
        start = {"epoch": 0, "global_step": 0, "history": []} if resume_from is None else self._resume(resume_from)
        self.history = list(start["history"])
        if start["epoch"] >= num_epochs:
            return self.history
        with quiet_lightning(), torch.random.fork_rng(range(torch.cuda.device_count())):
            import lightning.pytorch as lightning

            torch.manual_seed(seed)
            task, keeper = _lightning_classes()
            callbacks = [keeper(self, train_loader, monitor, Path(save_dir), save_freq, start)]
            if patience is not None:
                stopping = lightning.callbacks.EarlyStopping(monitor, patience=patience, check_on_train_epoch_end=True)
                if early := start.get("early_stopping"):
                    stopping.wait_count, stopping.best_score = early["wait_count"], early["best_score"]
                callbacks.insert(0, stopping)
            self.model.train()
            trainer = lightning.Trainer(
                max_epochs=num_epochs - start["epoch"],
                **_accelerator(self.device, devices),
                precision=precision,
                gradient_clip_val=gradient_clip_val,
                callbacks=callbacks,
                logger=_logger(self.log_dir),
                log_every_n_steps=LOG_EVERY_STEPS,
                default_root_dir=save_dir,
                enable_model_summary=False,
                enable_progress_bar=progress_bar,
                num_sanity_val_steps=0,
            )
            # Nothing draws between here and the first shuffle, as nothing does between two epochs.
            if "rng" in start:
                _restore_rng(start["rng"], train_loader)
            trainer.fit(task(self.model, self.loss_fn, self.optimizer), train_loader, val_loader)
        return self.history

    def _resume(self, path):
        _, checkpoint = load_checkpoint(path, self.model)
        if "rng" not in checkpoint:
            raise DataError(f"{path} holds weights but no state of a training: it cannot be resumed from")
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        except (ValueError, KeyError) as error:
            raise DataError(f"the optimizer in {path} does not fit this one: {error}") from error
        if (self.scheduler is None) != (checkpoint["scheduler"] is None):
            raise DataError(f"{path} and this trainer must both have a scheduler, or neither")
        if self.scheduler is not None:
            self.scheduler.load_state_dict(checkpoint["scheduler"])
        return checkpoint


def read_checkpoint(path):
    """Read a checkpoint without running any code that it might hold.

    Raises
    ------
    DataError : no file, not a checkpoint, truncated, or a pickle that would run code
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} is no checkpoint of plain values; it was not loaded, as it might run code") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no checkpoint, or a truncated one: {error}") from error
    if not isinstance(checkpoint, dict) or not set(CHECKPOINT_KEYS) <= checkpoint.keys():
        raise DataError(f"{path} is no training checkpoint: it must hold {', '.join(CHECKPOINT_KEYS)}")
    if checkpoint.get("format", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        raise DataError(f"{path} has checkpoint format {checkpoint['format']}, this evlib reads {CHECKPOINT_FORMAT}")
    return checkpoint


def load_checkpoint(path, model=None):
    """Rebuild a model from its checkpoint, or load the weights into the one given.

    Returns
    -------
    model, checkpoint : on the CPU if rebuilt, in evaluation mode if rebuilt

    Raises
    ------
    DataError : see `read_checkpoint`; a model that evlib does not have; weights that do not fit
    """
    checkpoint = read_checkpoint(path)
    try:
        if model is None:
            name = checkpoint.get("model_class")
            if name not in models.__all__ or checkpoint.get("config") is None:
                raise DataError(f"{path} holds a {name!r}, which evlib cannot rebuild: give a model to load the weights into")
            model = getattr(models, name)(**checkpoint["config"]).eval()
        model.load_state_dict(checkpoint["model_state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"the weights in {path} do not fit the model: {error}") from error
    return model, checkpoint


def save_checkpoint(path, model, optimizer, **state):
    """Write a checkpoint; a crash while writing leaves the old file as it was."""
    checkpoint = {
        **state,
        "format": CHECKPOINT_FORMAT,
        "model_class": type(model).__name__,
        "config": getattr(model, "config", None),
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    with replace_file(path) as temporary:
        torch.save(_plain(checkpoint), temporary)


def _plain(value):
    """Tensors on the CPU, NumPy scalars as Python's: a checkpoint of a GPU run opens anywhere."""
    if torch.is_tensor(value):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _rng_state(loader):
    """What shuffling and dropout draw from."""
    generator = getattr(loader, "generator", None)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loader": None if generator is None else generator.get_state(),
    }


def _restore_rng(state, loader):
    torch.set_rng_state(state["torch"])
    # A run may go on with another number of devices than it began with.
    for device, device_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(device_state, device)
    if state["loader"] is not None and getattr(loader, "generator", None) is not None:
        loader.generator.set_state(state["loader"])


@contextlib.contextmanager
def quiet_lightning():
    """No product tips and no warnings about small loaders inside of the block."""
    import lightning.pytorch  # noqa: F401 - its import sets the level of its logger

    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            tips = ("LeafSpec", "does not have many workers", "number of training batches", "have no `val_dataloader`")
            for tip in tips:
                warnings.filterwarnings("ignore", f".*{tip}")
            yield
    finally:
        logger.setLevel(level)


def _accelerator(device, devices):
    """Lightning's words for a torch device."""
    if device is None:
        return {"accelerator": "auto", "devices": devices}
    device = torch.device(device)
    if device.index is not None and devices == 1:
        devices = [device.index] if device.type != "cpu" else 1
    return {"accelerator": "gpu" if device.type == "cuda" else device.type, "devices": devices}


def _logger(log_dir):
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    if importlib.util.find_spec("tensorboard") is None:
        logging.getLogger(__name__).warning("tensorboard is not installed: the losses go to a CSV file under %s", log_dir)
        return CSVLogger(log_dir, name=None)
    return TensorBoardLogger(log_dir, name=None)


@functools.cache
def _lightning_classes():
    """The Lightning module and the callback, made when Lightning is first needed."""
    import lightning.pytorch as lightning

    class SupervisedTask(lightning.LightningModule):
        def __init__(self, model, loss_fn, optimizer):
            super().__init__()
            self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer

        def _step(self, batch, stage):
            losses = supervised_losses(self.model, self.loss_fn, batch)
            for name, value in losses.items():
                self.log(
                    f"{stage}_{name}",
                    value.detach(),
                    prog_bar=name == "total_loss",
                    on_step=stage == "train",
                    on_epoch=True,
                    batch_size=len(batch["input"]),
                    sync_dist=True,
                )
            return losses["total_loss"]

        def training_step(self, batch, _):
            return self._step(batch, "train")

        def validation_step(self, batch, _):
            self._step(batch, "val")

        def configure_optimizers(self):
            return self.optimizer

    class CheckpointKeeper(lightning.callbacks.Checkpoint):
        """Keeps the history, steps the scheduler and writes checkpoints.

        Being a ``Checkpoint`` it takes the place of Lightning's own, and is called last in an epoch.
        """

        def __init__(self, owner, train_loader, monitor, save_dir, save_freq, start):
            self.owner, self.train_loader, self.monitor = owner, train_loader, monitor
            self.save_dir, self.save_freq, self.start = save_dir, save_freq, start
            self.best = min((epoch[monitor] for epoch in start["history"] if monitor in epoch), default=float("inf"))

        def on_train_epoch_end(self, trainer, task):
            epoch = self.start["epoch"] + trainer.current_epoch + 1
            metrics = trainer.callback_metrics.items()
            losses = {name: value.item() for name, value in metrics if not name.endswith(("_step", "_epoch"))}
            if not np.isfinite(list(losses.values())).all():
                raise DataError(f"the loss is no longer finite in epoch {epoch}: lower the learning rate or check the data")
            self.owner.history.append({"epoch": epoch, "lr": self.owner.optimizer.param_groups[0]["lr"], **losses})
            self._step_scheduler(losses[self.monitor])
            paths = [self.save_dir / f"checkpoint_epoch_{epoch}.pth"] if epoch % self.save_freq == 0 else []
            if losses[self.monitor] < self.best:
                self.best = losses[self.monitor]
                paths.append(self.save_dir / "best_model.pth")
            if trainer.is_global_zero:
                for path in paths:
                    self._save(path, trainer, epoch, losses)

        def _step_scheduler(self, loss):
            scheduler = self.owner.scheduler
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(loss)
            elif scheduler is not None:
                scheduler.step()

        def _save(self, path, trainer, epoch, losses):
            stopping = trainer.early_stopping_callback
            save_checkpoint(
                path,
                self.owner.model,
                self.owner.optimizer,
                epoch=epoch,
                global_step=self.start["global_step"] + trainer.global_step,
                val_loss=losses.get("val_total_loss"),
                monitor=self.monitor,
                scheduler=self.owner.scheduler and self.owner.scheduler.state_dict(),
                early_stopping=stopping and stopping.state_dict(),
                rng=_rng_state(self.train_loader),
                history=self.owner.history,
            )

    return SupervisedTask, CheckpointKeeper
