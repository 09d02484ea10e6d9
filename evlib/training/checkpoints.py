"""Checkpoints that rebuild their model alone, and encoders on their own.

A checkpoint is a dictionary of plain types and tensors, read with ``weights_only=True``: ``epoch`` (epochs completed),
``model_state_dict``, ``optimizer_state_dict``, ``global_step``, ``val_loss`` (None without validation), then
``format``, ``model_class``, ``config`` (the model's arguments), ``monitor``, ``scheduler``, ``loss_state_dict``,
``early_stopping``, ``rng``, ``history``. An encoder's file holds ``format``, ``encoder_class``, ``config``,
``encoder_state_dict`` and ``metadata``.
"""

import importlib
import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import torch

from ..networks.encoders import LSTMEncoder, encoder_of
from ..networks.frames import FrameEncoder
from ..networks.transformer import DualBranchEncoder, PatchFrameEncoder
from ..signals.errors import DataError, OptionError
from ..signals.files import replace_file
from ..templates.whiten import Whitener

CHECKPOINT_FORMAT = 1
CHECKPOINT_KEYS = ("epoch", "model_state_dict", "optimizer_state_dict", "global_step")
CHECKPOINT_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pth")
# The file of every model that a checkpoint may name; it is imported when it is asked for.
MODELS = {
    "LSTMEventClassifier": "networks.classifier",
    "EventSpecificClassifier": "networks.event_specific",
    "FrameNetwork": "networks.frames",
    "LSTMAutoencoder": "networks.pretext",
    "VariationalLSTMAutoencoder": "networks.pretext",
    "ContrastiveLSTM": "networks.pretext",
    "MaskedPatchModel": "networks.pretext",
    "TextAlignedModel": "motion.align",
    "HeartRateLSTM": "studies.sequences",
    "LSTMClassifier": "studies.sequences",
    "TimeLSTM": "studies.sequences",
}
ENCODERS = {kind.__name__: kind for kind in (FrameEncoder, LSTMEncoder, PatchFrameEncoder, DualBranchEncoder)}
ENCODER_KEYS = ("encoder_class", "config", "encoder_state_dict", "metadata")


def read_checkpoint(path):
    """Read a checkpoint without running any code that it might hold.

    Raises
    ------
    DataError : no file, not a checkpoint, truncated, or a pickle that would run code
    """
    return _read(path, CHECKPOINT_KEYS, "training checkpoint")


def _read(path, keys, what):
    try:
        # torch does not compare the checksums that it writes: a flipped bit would be a weight like any other.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise DataError(f"{path} is damaged: {damaged} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot read the {what} {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} is no {what} of plain values; it was not loaded, as it might run code") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no {what}, or a truncated one: {error}") from error
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise DataError(f"{path} is no {what}: it must hold {', '.join(keys)}")
    if content.get("format", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        raise DataError(f"{path} has {what} format {content['format']}, this evlib reads {CHECKPOINT_FORMAT}")
    return content


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
            if name not in MODELS or checkpoint.get("config") is None:
                raise DataError(
                    f"{path} holds a {name!r}, which evlib cannot rebuild: give a model to load the weights into"
                )
            model = getattr(importlib.import_module(f"evlib.{MODELS[name]}"), name)(**checkpoint["config"]).eval()
        model.load_state_dict(checkpoint["model_state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"the weights in {path} do not fit the model: {error}") from error
    return model, checkpoint


def save_checkpoint(path, model, optimizer, **state):
    """Write a checkpoint; a crash while writing leaves the old file as it was. Without an optimizer it cannot be
    resumed from."""
    checkpoint = {
        **state,
        "format": CHECKPOINT_FORMAT,
        "model_class": type(model).__name__,
        "config": getattr(model, "config", None),
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": {} if optimizer is None else optimizer.state_dict(),
    }
    with replace_file(path) as temporary:
        torch.save(plain(checkpoint), temporary)


def latest_checkpoint(folder):
    """The ``checkpoint_epoch_N.pth`` of the largest N in a folder, None when there is none: ``resume_from`` takes both.

    >>> latest_checkpoint("no/such/folder") is None
    True
    """
    found = {
        int(match[1]): path for path in Path(folder).glob("*.pth") if (match := CHECKPOINT_NAME.fullmatch(path.name))
    }
    return found[max(found)] if found else None


def remember_run(folder, settings, resume):
    """Write what a run was asked for beside its checkpoints; a run that goes on must be asked for the same.

    Raises
    ------
    OptionError : checkpoints of another run
    """
    file, now, latest = folder / "run.json", json.loads(json.dumps(plain(settings))), latest_checkpoint(folder)
    if latest is None:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as temporary:
            temporary.write_text(json.dumps(now, indent=1))
        return
    if not resume:
        raise OptionError(
            f"{folder} holds {latest.name}: resume=True goes on with that run, a new one needs another folder"
        )
    before = json.loads(file.read_text()) if file.is_file() else {}
    if changed := [name for name in now if before.get(name) != now[name]]:
        was = "; ".join(f"{name} {now[name]!r}, was {before.get(name)!r}" for name in changed)
        raise OptionError(f"the run in {folder} was asked for something else: {was}")


def save_encoder(path, encoder, metadata, whitener=None):
    """Write an encoder with its metadata; a crash while writing leaves the old file as it was.

    Parameters
    ----------
    path : where to
    encoder : a `FrameEncoder`, `LSTMEncoder`, `PatchFrameEncoder` or `DualBranchEncoder`, or a model that holds one as
        ``encoder``
    metadata : dict of plain values that says what the weights are for and where they come from: ``sampling_rate_hz``,
        ``channels``, ``units``, ``pretext``, ``seed``, ``data_hash``
    whitener : the Whitener that the encoder has heard through; its taps and centre are kept beside the weights

    Raises
    ------
    OptionError : no encoder, a metadata that is not made of plain values
    """
    encoder, metadata = encoder_of(encoder), plain(metadata)
    if type(encoder).__name__ not in ENCODERS:
        raise OptionError(f"only one of {', '.join(ENCODERS)} can be saved alone, got a {type(encoder).__name__}")
    try:
        metadata = json.loads(json.dumps(dict(metadata)))
    except (TypeError, ValueError) as error:
        raise OptionError(f"the metadata must be a dict of names, numbers, lists and None: {error}") from error
    content = {
        "format": CHECKPOINT_FORMAT,
        "encoder_class": type(encoder).__name__,
        "config": encoder.config,
        "encoder_state_dict": encoder.state_dict(),
        "metadata": metadata,
    }
    if whitener is not None:
        content["whitener"] = {
            "taps": torch.from_numpy(whitener.taps),
            "center": torch.from_numpy(whitener.center),
            "sampling_rate_hz": float(whitener.sampling_rate_hz),
        }
    with replace_file(path) as temporary:
        torch.save(plain(content), temporary)


def load_encoder(path):
    """Read what `save_encoder` has written.

    Returns
    -------
    encoder, metadata : on the CPU in evaluation mode, and the dict

    Raises
    ------
    DataError : no file, no encoder, truncated, a pickle that would run code, weights that do not fit

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "encoder.pth"
    >>> save_encoder(path, LSTMEncoder(6, 8), {"pretext": "autoencoder", "sampling_rate_hz": 2000.0})
    >>> encoder, metadata = load_encoder(path)
    >>> encoder.config["hidden_size"], metadata["pretext"]
    (8, 'autoencoder')
    """
    content = _read(path, ENCODER_KEYS, "encoder file")
    return _encoder_in(content, path), content["metadata"]


def load_pretrained(path):
    """Encoder, metadata and Whitener (None where none was kept) in a file of `save_encoder`.

    Raises
    ------
    DataError : as in `load_encoder`; a whitener that is none
    """
    content = _read(path, ENCODER_KEYS, "encoder file")
    return _encoder_in(content, path), content["metadata"], _whitener_in(content, path)


def _encoder_in(content, path):
    if content["encoder_class"] not in ENCODERS:
        raise DataError(f"{path} holds a {content['encoder_class']!r}, which evlib cannot rebuild")
    try:
        encoder = ENCODERS[content["encoder_class"]](**content["config"])
        encoder.load_state_dict(content["encoder_state_dict"])
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the weights in {path} do not fit their encoder: {error}") from error
    return encoder.eval()


def _whitener_in(content, path):
    kept = content.get("whitener")
    if kept is None:
        return None
    try:
        taps, center, rate = kept["taps"].numpy(), kept["center"].numpy(), float(kept["sampling_rate_hz"])
        if (
            taps.ndim != 2
            or center.shape != taps.shape[:1]
            or not (np.isfinite(taps).all() and np.isfinite(center).all())
        ):
            raise ValueError(f"taps {taps.shape}, centre {center.shape}, or values that are not finite")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the whitener in {path} is damaged: {error}") from error
    return Whitener(taps, center, rate)


def plain(value):
    """Tensors on the CPU, NumPy scalars as Python's: a checkpoint of a GPU run opens anywhere."""
    if torch.is_tensor(value):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _generator(loader):
    """What a loader shuffles with, if it has something of its own."""
    return getattr(loader, "generator", None) or getattr(getattr(loader, "batch_sampler", None), "generator", None)


def rng_state(loader):
    """What shuffling and dropout draw from."""
    generator = _generator(loader)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loader": None if generator is None else generator.get_state(),
    }


def restore_rng(state, loader):
    torch.set_rng_state(state["torch"])
    # A run may go on with another number of devices than it began with.
    for device, device_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(device_state, device)
    if state["loader"] is not None and (generator := _generator(loader)) is not None:
        generator.set_state(state["loader"])
