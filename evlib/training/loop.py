"""Training by Lightning: one loop for all models, which differ only in the losses of a batch.

Lightning takes seconds to import, so it is imported by the first ``fit``.
"""

import contextlib
import functools
import importlib.util
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from ..networks.encoders import gradual_unfreezing, set_frozen_layers
from ..networks.losses import nt_xent
from ..networks.threads import few_threads
from ..signals.errors import DataError, OptionError, require_int
from .checkpoints import load_checkpoint, read_checkpoint, restore_rng, rng_state, save_checkpoint

LOG_EVERY_STEPS = 10


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
            "a batch must be a tensor (batch, time, channels) or a dict with 'input' and 'lengths': "
            "make the DataLoader of an UnsupervisedDataset, with collate_fn=collate_fn_unsupervised if windows "
            "differ in length"
        )
    return loss_fn(model(batch["input"], batch["lengths"]), batch["input"], batch["lengths"])


def contrastive_losses(model, loss_fn, batch):
    """The losses of one batch of `collate_fn_contrastive`, for a model that returns z1, h1, z2, h2."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 4):
        raise DataError("a batch must be two views: make the DataLoader with collate_fn=collate_fn_contrastive")
    z1, _, z2, _ = model(*batch)
    return {"total_loss": loss_fn(z1, z2)}


class Trainer:
    """What the trainers share: `fit`, with validation, early stopping, checkpoints, resuming and logs.

    Parameters
    ----------
    model : what to train
    loss_fn : what the losses are computed with; a module's own state is saved and resumed too, and if it names a loss
        as ``monitor``, that one decides which epoch is the best instead of ``total_loss``
    optimizer : over the parameters of ``model``
    device : "cpu", "cuda", "cuda:1", "mps"; None for the best there is
    log_dir : where TensorBoard's logs go (a CSV file when tensorboard is not installed); None for beside the
        checkpoints
    scheduler : stepped once an epoch, with the monitored loss if it is a ReduceLROnPlateau

    Raises
    ------
    OptionError : an optimizer over other parameters, a loss with another frame length than the model's
    """

    batch_losses = None

    @staticmethod
    def batch_weights(loss_fn, batch):
        """How much a batch counts in the mean of a loss over an epoch, for losses that do not go by the number of
        items."""
        return {}

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
        self.device, self.log_dir = device, None if log_dir is None else Path(log_dir)
        self.history = []

    @few_threads()
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
        unfreeze_epochs=None,
    ):
        """Train; the model holds the weights of the last epoch afterwards, ``best_model.pth`` those of the best.

        Parameters
        ----------
        train_loader, val_loader : loaders of batches, see the class
        num_epochs : epochs in all, those before ``resume_from`` included
        save_dir : gets ``best_model.pth`` (the least monitored loss in validation, or in training when there is no
            ``val_loader``) and ``checkpoint_epoch_N.pth``
        save_freq : epochs from one ``checkpoint_epoch_N.pth`` to the next
        patience : stop after this many epochs without a new least loss, None for never
        resume_from : a checkpoint to go on from; the result is that of a run that was never interrupted
        precision, devices, gradient_clip_val : as in Lightning's ``Trainer``; None clips nothing
        progress_bar : show one
        seed : of dropout and shuffling; the global random state is left as it was
        unfreeze_epochs : the epoch (from 1) in which the encoder begins to learn, or one for each of its layers from
            output to input (`evlib.networks.encoders.encoder_layers`); before, it stays as it is. None trains whatever
            requires a gradient

        Returns
        -------
        list of dict : for each epoch ``epoch``, ``lr`` and each mean loss as ``train_...`` and ``val_...``

        Raises
        ------
        OptionError : epochs or frequencies below 1, ``unfreeze_epochs`` that do not fit the encoder
        DataError : a checkpoint that does not fit, a loss that is no longer finite
        """
        require_int(1, num_epochs=num_epochs, save_freq=save_freq, patience=1 if patience is None else patience)
        monitor = ("train_" if val_loader is None else "val_") + getattr(self.loss_fn, "monitor", "total_loss")
        start = {"epoch": 0, "global_step": 0, "history": []} if resume_from is None else self._resume(resume_from)
        self.history = list(start["history"])
        if start["epoch"] >= num_epochs:
            return self.history
        # Lightning asks the loader for its first iterator before it says that an epoch begins.
        set_epoch(train_loader, start["epoch"])
        with (
            quiet_lightning(),
            torch.random.fork_rng(range(torch.cuda.device_count())),
            gradual_unfreezing(self.model, self.optimizer, unfreeze_epochs, start["epoch"] + 1),
        ):
            import lightning.pytorch as lightning

            torch.manual_seed(seed)
            task, keeper = _lightning_classes()
            callbacks = [keeper(self, train_loader, monitor, Path(save_dir), save_freq, start, unfreeze_epochs)]
            if patience is not None:
                stopping = lightning.callbacks.EarlyStopping(monitor, patience=patience, check_on_train_epoch_end=True)
                if early := start.get("early_stopping"):
                    stopping.wait_count, stopping.best_score = early["wait_count"], early["best_score"]
                callbacks.insert(0, stopping)
            if progress_bar:  # one bar whatever else is installed: Lightning would draw another where it finds rich
                callbacks.append(lightning.callbacks.TQDMProgressBar())
            trainer = lightning.Trainer(
                max_epochs=num_epochs - start["epoch"],
                **_accelerator(self.device, devices),
                precision=precision,
                gradient_clip_val=gradient_clip_val,
                callbacks=callbacks,
                logger=_logger(Path(save_dir) if self.log_dir is None else self.log_dir),
                log_every_n_steps=LOG_EVERY_STEPS,
                default_root_dir=save_dir,
                enable_model_summary=False,
                enable_progress_bar=progress_bar,
                num_sanity_val_steps=0,
            )
            # Nothing draws between here and the first shuffle, as nothing does between two epochs.
            if "rng" in start:
                restore_rng(start["rng"], train_loader)
            trainer.fit(task(self).train(), train_loader, val_loader)
        self._warn_of_collapse()
        return self.history

    def fit_best(self, train_loader, val_loader, num_epochs, save_dir=None, **options):
        """`fit`, after which the model has the weights of the best epoch and is in eval mode; returns the history.

        Without ``save_dir`` no checkpoint is left behind; ``options`` are those of `fit`. When a resumed run finds
        nothing better, the best is looked for beside the checkpoint that it was resumed from.

        Raises
        ------
        DataError : the best epoch was before the interruption, and its weights are not there any more
        """
        require_int(1, num_epochs=num_epochs)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(save_dir or scratch)
            options = {"save_freq": num_epochs + 1} | options
            history = self.fit(train_loader, val_loader, num_epochs, folder, **options)
            least = min(epoch["val_" + getattr(self.loss_fn, "monitor", "total_loss")] for epoch in history)
            folders = [folder] if options.get("resume_from") is None else [folder, Path(options["resume_from"]).parent]
            stored = [
                read_checkpoint(path) for path in (folder / "best_model.pth" for folder in folders) if path.is_file()
            ]
            best = next((checkpoint for checkpoint in stored if checkpoint.get("val_loss") == least), None)
            if best is None:
                raise DataError(
                    f"no best_model.pth of this run in {', '.join(map(str, folders))}: its best epoch is lost"
                )
        self.model.load_state_dict(best["model_state_dict"])
        self.model.eval()
        return history

    def _warn_of_collapse(self):
        last = self.history[-1]
        if last.get("val_active_units", last.get("train_active_units")) == 0:
            warnings.warn(
                "the posterior has collapsed: no latent dimension varies between windows, so the encoder has "
                "learnt nothing "
                "(lower kl_weight or lengthen warmup_steps)",
                stacklevel=3,
            )

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
        if isinstance(self.loss_fn, torch.nn.Module):
            try:
                self.loss_fn.load_state_dict(checkpoint.get("loss_state_dict") or {})
            except RuntimeError as error:
                raise DataError(f"the state of the loss in {path} does not fit this one: {error}") from error
        return checkpoint


class SupervisedTrainer(Trainer):
    """Train an event model on labelled windows, in batches of `collate_fn_supervised`.

    Parameters
    ----------
    model : a model that returns an `EventOutput`
    loss_fn : `EventTimingLoss`, or anything called alike
    optimizer, device, log_dir, scheduler : as in `Trainer`

    Examples
    --------
    >>> from evlib.networks.losses import EventTimingLoss
    >>> from evlib import LSTMEventClassifier
    >>> model = LSTMEventClassifier(hidden_size=8)
    >>> trainer = SupervisedTrainer(model, EventTimingLoss(), torch.optim.Adam(model.parameters(), lr=1e-3))
    >>> trainer.history
    []
    """

    batch_losses = staticmethod(supervised_losses)


class UnsupervisedTrainer(Trainer):
    """Train an autoencoder on windows without labels: tensors (batch, time, channels), or dicts with input and lengths.

    A warning is given when a variational autoencoder ends with no latent dimension in use.

    Parameters
    ----------
    model : `LSTMAutoencoder` or `VariationalLSTMAutoencoder`
    loss_fn : `AutoencoderLoss` or `VariationalAutoencoderLoss`, or anything called alike
    optimizer, device, log_dir, scheduler : as in `Trainer`

    Examples
    --------
    >>> from evlib.networks.losses import AutoencoderLoss
    >>> from evlib import LSTMAutoencoder
    >>> model = LSTMAutoencoder(hidden_size=8)
    >>> trainer = UnsupervisedTrainer(model, AutoencoderLoss(), torch.optim.Adam(model.parameters(), lr=1e-3))
    """

    batch_losses = staticmethod(unsupervised_losses)


class ContrastiveTrainer(Trainer):
    """Train a contrastive model on pairs of views, in batches of `collate_fn_contrastive`.

    The loss is `nt_xent` at the model's temperature. A dataset with a ``set_epoch`` is told which epoch it is.

    Parameters
    ----------
    model : `ContrastiveLSTM`
    optimizer, device, log_dir, scheduler : as in `Trainer`

    Examples
    --------
    >>> from evlib import ContrastiveLSTM
    >>> model = ContrastiveLSTM(hidden_size=8)
    >>> trainer = ContrastiveTrainer(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    """

    batch_losses = staticmethod(contrastive_losses)

    def __init__(self, model, optimizer, device=None, log_dir="./runs", scheduler=None):
        loss_fn = functools.partial(nt_xent, temperature=model.temperature)
        super().__init__(model, loss_fn, optimizer, device, log_dir, scheduler)


def set_epoch(loader, epoch):
    """Tell the loader's dataset which epoch (from 0) comes next, if its draws depend on it."""
    if hasattr(getattr(loader, "dataset", None), "set_epoch"):
        loader.dataset.set_epoch(epoch)


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
        logging.getLogger(__name__).warning(
            "tensorboard is not installed: the losses go to a CSV file under %s", log_dir
        )
        return CSVLogger(log_dir, name=None)
    return TensorBoardLogger(log_dir, name=None)


def _n_items(batch):
    """The items in a batch: the length of its first tensor."""
    if isinstance(batch, dict):
        return len(batch["input"])
    return len(batch if torch.is_tensor(batch) else batch[0])


@functools.cache
def _lightning_classes():
    """The Lightning module and the callback, made when Lightning is first needed."""
    import lightning.pytorch as lightning

    class Task(lightning.LightningModule):
        def __init__(self, owner):
            super().__init__()
            # The model and the loss are parts of the task: Lightning moves them and sets their mode.
            self.model, self.loss_fn = owner.model, owner.loss_fn
            self.optimizer, self.batch_losses, self.batch_weights = (
                owner.optimizer,
                owner.batch_losses,
                owner.batch_weights,
            )

        def _step(self, batch, stage):
            losses = self.batch_losses(self.model, self.loss_fn, batch)
            n_items, weights = _n_items(batch), self.batch_weights(self.loss_fn, batch)
            for name, value in losses.items():
                self.log(
                    f"{stage}_{name}",
                    value.detach(),
                    prog_bar=name == "total_loss",
                    on_step=stage == "train",
                    on_epoch=True,
                    batch_size=weights.get(name, n_items),
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
        """Keeps the history, steps the scheduler, writes checkpoints and unfreezes layers.

        Being a ``Checkpoint`` it takes the place of Lightning's own, and is called last in an epoch.
        """

        def __init__(self, owner, train_loader, monitor, save_dir, save_freq, start, unfreeze_epochs):
            self.owner, self.train_loader, self.monitor = owner, train_loader, monitor
            self.save_dir, self.save_freq, self.start, self.unfreeze_epochs = (
                save_dir,
                save_freq,
                start,
                unfreeze_epochs,
            )
            self.best = min((epoch[monitor] for epoch in start["history"] if monitor in epoch), default=float("inf"))

        def on_train_epoch_start(self, trainer, task):
            if self.unfreeze_epochs is not None:
                set_frozen_layers(
                    self.owner.model, self.unfreeze_epochs, self.start["epoch"] + trainer.current_epoch + 1
                )

        def on_train_epoch_end(self, trainer, task):
            epoch = self.start["epoch"] + trainer.current_epoch + 1
            metrics = trainer.callback_metrics.items()
            losses = {name: value.item() for name, value in metrics if not name.endswith(("_step", "_epoch"))}
            if not np.isfinite(list(losses.values())).all():
                raise DataError(
                    f"the loss is no longer finite in epoch {epoch}: lower the learning rate or check the data"
                )
            self.owner.history.append({"epoch": epoch, "lr": self.owner.optimizer.param_groups[0]["lr"], **losses})
            self._step_scheduler(losses[self.monitor])
            paths = [self.save_dir / f"checkpoint_epoch_{epoch}.pth"] if epoch % self.save_freq == 0 else []
            if losses[self.monitor] < self.best:
                self.best = losses[self.monitor]
                paths.append(self.save_dir / "best_model.pth")
            if trainer.is_global_zero:
                for path in paths:
                    self._save(path, trainer, epoch, losses)
            set_epoch(self.train_loader, epoch)

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
                val_loss=losses.get(self.monitor) if self.monitor.startswith("val_") else None,
                monitor=self.monitor,
                scheduler=self.owner.scheduler and self.owner.scheduler.state_dict(),
                loss_state_dict=self.owner.loss_fn.state_dict()
                if isinstance(self.owner.loss_fn, torch.nn.Module)
                else None,
                early_stopping=stopping and stopping.state_dict(),
                rng=rng_state(self.train_loader),
                history=self.owner.history,
            )

    return Task, CheckpointKeeper
