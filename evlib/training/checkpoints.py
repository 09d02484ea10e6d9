"""Models on disk: training checkpoints, encoders, models of motion, detectors.

All are written by `save` and read by `load`. A file is a dictionary of plain values and tensors, read with
``weights_only=True``: ``format``, ``model_class`` (what it holds), ``config`` (the arguments that build it),
``model_state_dict``, ``metadata``, and what else belongs to it. A training checkpoint also holds ``epoch`` (epochs
completed), ``optimizer_state_dict``, ``global_step``, ``val_loss`` (None without validation), ``monitor``,
``scheduler``, ``loss_state_dict``, ``rng`` and ``history``.
"""

import importlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.encoders import encoder_of
from ..signals.atomic import replace_file
from ..signals.errors import DataError, OptionError, require
from ..signals.gaps import Normal
from ..templates.whiten import Whitener

FORMAT = 3
# What torch and zipfile raise for files that are damaged, truncated or of another kind.
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, zipfile.BadZipFile)
CHECKPOINT_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pth")
ENCODERS = {
    "LSTMEncoder": "networks.encoders",
    "FrameEncoder": "networks.frames",
    "PatchFrameEncoder": "networks.transformer",
    "DualBranchEncoder": "networks.transformer",
}
# The file of evlib in which each class is defined that `load_checkpoint` rebuilds; it is imported when it is needed.
MODELS = ENCODERS | {
    "LSTMEventClassifier": "networks.classifier",
    "EventSpecificClassifier": "networks.event_specific",
    "FrameNetwork": "networks.frames",
    "ContextLSTM": "networks.context",
    "LSTMAutoencoder": "networks.pretext",
    "VariationalLSTMAutoencoder": "networks.pretext",
    "ContrastiveLSTM": "networks.pretext",
    "MaskedPatchModel": "networks.pretext",
    "TextAlignedModel": "motion.align",
    "HeartRateLSTM": "studies.sequences",
    "LSTMClassifier": "studies.sequences",
    "TimeLSTM": "studies.sequences",
}


def save(path: str | Path, kind: str, config: dict | None, state: dict, metadata: dict | None = None, **more: Any):
    """Write what `load` reads; a crash while writing leaves the old file as it was.

    Parameters
    ----------
    kind : class name of what is saved
    config : its arguments
    state : tensors by name
    metadata, more : plain values and tensors that belong to it
    """
    content = {"format": FORMAT, "model_class": kind, "config": config, "model_state_dict": state, "metadata": metadata}
    with replace_file(path) as temporary:
        torch.save(plain(more | content), temporary)


def load(path: str | Path, what: str = "checkpoint") -> dict:
    """Read a file of `save` without running any code that it might hold; ``what`` names it in messages.

    Raises
    ------
    DataError : no file, another kind of file, damaged or truncated, a pickle that would run code
    """
    try:
        # torch does not compare the checksums that it writes: a flipped bit would be a weight like any other.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"no {what} at {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot read the {what} {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is not a {what} that can be read safely: it holds more than plain values, and might run code"
        ) from error
    except UNREADABLE as error:
        raise DataError(f"{path} is not a {what}, or a damaged or truncated one: {error}") from error
    message = f"{path} is not a {what}: it must hold a dictionary, got a {type(content).__name__}"
    require(isinstance(content, dict), DataError, message)
    written = content.get("format", FORMAT)
    message = f"{path} has format {written!r}; this version of evlib reads format {FORMAT}"
    require(written == FORMAT, DataError, message)
    require("model_state_dict" in content, DataError, f"{path} is not a {what}: it must hold model_state_dict")
    return content


def rebuild(path: str | Path, kind: str, config: dict | None, state: dict, kinds: Iterable[str] = MODELS) -> nn.Module:
    """A model in evaluation mode, on the CPU, from its class name, arguments and weights.

    Raises
    ------
    DataError : a class that is none of ``kinds``, weights that do not fit
    """
    if kind not in kinds or config is None:
        raise DataError(f"{path} holds a {kind}, which evlib cannot rebuild; it rebuilds {', '.join(kinds)}")
    try:
        model = getattr(importlib.import_module(f"evlib.{MODELS[kind]}"), kind)(**config)
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the weights in {path} do not fit the {kind}: {error}") from error
    return model.eval()


def save_checkpoint(path: str | Path, model: nn.Module, metadata: dict | None = None, **more: Any):
    """Write a model with its arguments (its ``config``), so that `load_checkpoint` rebuilds it alone."""
    save(path, type(model).__name__, getattr(model, "config", None), model.state_dict(), metadata, **more)


def load_checkpoint(path: str | Path, model: nn.Module | None = None, kinds: Iterable[str] = MODELS, what="checkpoint"):
    """Rebuild a model from its file, or load the weights into the one given.

    Returns
    -------
    model, content : on the CPU and in evaluation mode if rebuilt; all that the file holds

    Raises
    ------
    DataError : as `load` and `rebuild`
    """
    content = load(path, what)
    if model is None:
        kind, config = str(content.get("model_class")), content.get("config")
        return rebuild(path, kind, config, content["model_state_dict"], kinds), content
    try:
        model.load_state_dict(content["model_state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"the weights in {path} do not fit the model: {error}") from error
    return model, content


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The ``checkpoint_epoch_N.pth`` of the largest N in a folder, None when there is none: ``resume_from`` takes both.

    >>> latest_checkpoint("no/such/folder") is None
    True
    """
    found = [path for path in Path(folder).glob("*.pth") if CHECKPOINT_NAME.fullmatch(path.name)]
    return max(found, key=lambda path: int(path.stem.rpartition("_")[2]), default=None)


def remember_run(folder, settings, resume):
    """Write the settings of a run beside its checkpoints; a run that is resumed must have the same.

    Raises
    ------
    OptionError : checkpoints of another run
    """
    file, now, latest = folder / "run.json", json.loads(json.dumps(plain(settings))), latest_checkpoint(folder)
    if latest is None:
        with replace_file(file) as temporary:
            temporary.write_text(json.dumps(now, indent=1))
        return
    message = f"{folder} holds {latest.name}: resume=True goes on with that run, a new one needs another folder"
    require(resume, OptionError, message)
    before = json.loads(file.read_text()) if file.is_file() else {}
    changed = [f"{name} {now[name]!r}, was {before.get(name)!r}" for name in now if before.get(name) != now[name]]
    require(not changed, OptionError, f"the run in {folder} had other settings: {'; '.join(changed)}")


def save_encoder(path: str | Path, encoder: nn.Module, metadata: dict, whitener: Whitener | None = None):
    """Write an encoder with its metadata.

    Parameters
    ----------
    encoder : a `FrameEncoder`, `LSTMEncoder`, `PatchFrameEncoder` or `DualBranchEncoder`, or a model that holds one as
        ``encoder``
    metadata : dict of plain values that says what the weights are for and where they come from: ``sampling_rate_hz``,
        ``channels``, ``units``, ``pretext``, ``seed``, ``data_hash``
    whitener : the Whitener of the signals that the encoder was trained on; its taps and centre are kept too

    Raises
    ------
    OptionError : no encoder, a metadata that is not made of plain values
    """
    encoder = encoder_of(encoder)
    message = f"only one of {', '.join(ENCODERS)} can be saved alone, got a {type(encoder).__name__}"
    require(type(encoder).__name__ in ENCODERS, OptionError, message)
    try:
        metadata = json.loads(json.dumps(plain(dict(metadata))))
    except (TypeError, ValueError) as error:
        raise OptionError(f"the metadata must be a dict of names, numbers, lists and None: {error}") from error
    kept = (
        None
        if whitener is None
        else {
            "taps": torch.from_numpy(whitener.taps),
            "center": torch.from_numpy(whitener.center),
            "step": torch.from_numpy(whitener.normal.step),
            "still": torch.from_numpy(whitener.normal.still),
            "limits": torch.from_numpy(whitener.limits),
            "sampling_rate_hz": float(whitener.sampling_rate_hz),
        }
    )
    save_checkpoint(path, encoder, metadata, whitener=kept)


def load_encoder(path: str | Path) -> tuple[nn.Module, dict]:
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
    >>> from evlib.networks.encoders import LSTMEncoder
    >>> path = Path(tempfile.mkdtemp()) / "encoder.pth"
    >>> save_encoder(path, LSTMEncoder(6, 8), {"pretext": "autoencoder", "sampling_rate_hz": 2000.0})
    >>> encoder, metadata = load_encoder(path)
    >>> encoder.config["hidden_size"], metadata["pretext"]
    (8, 'autoencoder')
    """
    return load_pretrained(path)[:2]


def load_pretrained(path: str | Path) -> tuple[nn.Module, dict, Whitener | None]:
    """Encoder, metadata and Whitener (None where none was kept) in a file of `save_encoder`.

    Raises
    ------
    DataError : as in `load_encoder`; a whitener that is none
    """
    encoder, content = load_checkpoint(path, kinds=ENCODERS, what="encoder file")
    message = f"{path} is not an encoder file: it must hold metadata"
    require(isinstance(content.get("metadata"), dict), DataError, message)
    kept = content.get("whitener")
    if kept is None:
        return encoder, content["metadata"], None
    try:
        taps, center, step, still, limits = (kept[k].numpy() for k in ("taps", "center", "step", "still", "limits"))
        rate = float(kept["sampling_rate_hz"])
        if taps.ndim != 2 or center.shape != taps.shape[:1] or not np.isfinite([*taps.T, center]).all():
            raise ValueError(f"taps {taps.shape}, centre {center.shape}, or values that are not finite")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the whitener in {path} is damaged: {error}") from error
    return encoder, content["metadata"], Whitener(taps, center, rate, normal=Normal(step, still), limits=limits)


def plain(value):
    """Tensors on the CPU, NumPy's numbers as Python's: a checkpoint of a GPU run opens anywhere."""
    if torch.is_tensor(value):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _generator(loader):
    """The generator that a loader shuffles with, if it has one of its own."""
    return getattr(loader, "generator", None) or getattr(getattr(loader, "batch_sampler", None), "generator", None)


def rng_state(loader):
    """The states of all generators that shuffling and dropout draw from."""
    generator = _generator(loader)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loader": None if generator is None else generator.get_state(),
    }


def restore_rng(state, loader):
    """Put all generators into the states of `rng_state`."""
    torch.set_rng_state(state["torch"])
    # A run may go on with another number of devices than it began with.
    for device, device_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(device_state, device)
    if state["loader"] is not None and (generator := _generator(loader)) is not None:
        generator.set_state(state["loader"])
