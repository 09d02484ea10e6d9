"""Models on disk: training checkpoints, encoders, models of motion, detectors.

All are written by `save` and read by `load`. A file is a dictionary of plain values and tensors, read with
``weights_only=True``: ``format``, ``model_class`` (what it holds), ``config`` (the arguments that build it),
``model_state_dict``, ``metadata``, and what else belongs to it. A training checkpoint also holds ``epoch`` (epochs
completed), ``optimizer_state_dict``, ``global_step``, ``val_loss`` (None without validation), ``monitor``,
``scheduler``, ``loss_state_dict``, ``rng``, ``history``, ``run`` (its data and options) and ``best_state_dict`` (the
weights of the best epoch, None if they are its own).

A file is a zip archive, as ``torch.save`` writes it, with a comment: the SHA-256 of all bytes before. So a single bit
that is not as it was written is noticed. ``.safetensors`` hold the same, as plain numbers that other programs read too,
and such a checksum (`write_safetensors`).
"""

import contextlib
import functools
import hashlib
import importlib
import io
import json
import os
import pickle
import re
import reprlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from ..networks.encoders import encoder_of
from ..networks.seeds import seeded
from ..signals.atomic import replace_file, require_replaceable
from ..signals.errors import DataError, OptionError, require
from ..signals.gaps import Normal
from ..templates.whiten import Whitener

FORMAT = 3
# Bytes of the checksum at the end of a file, a SHA-256 as text; bytes at the end of an archive without a comment, and
# their beginning.
CHECKSUM, END, END_MARK = 64, 22, b"PK\x05\x06"
# The ending of files of plain numbers; there, what the names of the model's weights begin with, and the name of the
# text that holds all that is no tensor.
SAFETENSORS, STATE, TEXT = ".safetensors", "model_state_dict.", "evlib"
# Whole numbers among the arguments of models that are no sizes of weights.
NO_SIZES = {"refractory_period_samples"}
BEST_NAME = "best_model.pth"
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
    "SegmentationNetwork": "motion.segment",
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
    require_replaceable(path, "model")
    if os.path.isfile(path):
        with contextlib.suppress(DataError):  # of a damaged model nothing is lost
            old = load(path).get("model_class")
            message = f"{path} is there already and a {old}, no {kind}: choose another name, or remove it"
            require(old == kind, OptionError, message)
    content = {"format": FORMAT, "model_class": kind, "config": config, "model_state_dict": state, "metadata": metadata}
    content = plain(more | content)
    _check_plain(content)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    archive = buffer.getvalue()[:-2] + CHECKSUM.to_bytes(2, "little")  # the last two bytes: the length of the comment
    with replace_file(path) as temporary:
        temporary.write_bytes(archive + hashlib.sha256(archive).hexdigest().encode())


def load(path: str | Path, what: str = "checkpoint") -> dict:
    """Read a file of `save` without running any code that it might hold; ``what`` names it in messages.

    Raises
    ------
    DataError : no file, another kind of file, damaged or truncated, a pickle that would run code
    """
    try:
        if Path(path).suffix == SAFETENSORS:
            content = _read_safetensors(path)
        else:
            with open(path, "rb") as file:
                _check_archive(file)
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
        _check_plain(content)
    except FileNotFoundError as error:
        raise DataError(f"no {what} at {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot read the {what} {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is not a {what} that can be read safely: it holds more than plain values, and might run code"
        ) from error
    except Exception as error:  # the unpickler of a damaged file may raise anything
        raise DataError(f"{path} is not a {what}, or a damaged or truncated one: {error}") from error
    message = f"{path} is not a {what}: it must hold a dictionary, got a {type(content).__name__}"
    require(isinstance(content, dict), DataError, message)
    written = content.get("format", FORMAT)
    message = f"{path} has format {reprlib.repr(written)}; this version of evlib reads format {FORMAT}"
    require(isinstance(written, int) and written == FORMAT, DataError, message)
    state = content.get("model_state_dict")
    message = f"{path} is not a {what}: it must hold model_state_dict, tensors by name"
    require(_is_state(state), DataError, message)
    return content


def write_safetensors(content: dict, path: str | Path):
    """Write what `load` has read as safetensors: numbers, and a text with the rest. `load` reads it alike.

    Raises
    ------
    OptionError : a path that does not end with .safetensors
    """
    require(Path(path).suffix == SAFETENSORS, OptionError, f"{path} must end with {SAFETENSORS}")
    state = content["model_state_dict"]
    more = {name: value for name, value in content.items() if torch.is_tensor(value)}
    rest = {name: value for name, value in content.items() if name not in (*more, "model_state_dict")}
    tensors = {f"{STATE}{name}": value for name, value in state.items()} | more
    with replace_file(path) as temporary:
        whole, text = {name: value.contiguous() for name, value in tensors.items()}, json.dumps(rest)
        temporary.write_bytes(safetensors.torch.save(whole, {TEXT: text, "sha256": _digest(whole, text)}))


def _read_safetensors(path):
    """The content that `write_safetensors` was given."""
    with safetensors.safe_open(path, "pt") as file:
        texts = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    require(_digest(tensors, texts[TEXT]) == texts["sha256"], ValueError, "it is not as it was written")
    content = json.loads(texts[TEXT])
    state = {name.removeprefix(STATE): value for name, value in tensors.items() if name.startswith(STATE)}
    more = {name: value for name, value in tensors.items() if not name.startswith(STATE)}
    return content | more | {"model_state_dict": state}


def _digest(tensors, text):
    """SHA-256 of all numbers, their names and the text beside them."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _is_state(state):
    return isinstance(state, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())


def _check_archive(file):
    """Refuse a file that is not as it was written."""
    with zipfile.ZipFile(file) as archive:
        # torch compresses nothing: what is small on disk is small in memory.
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise zipfile.BadZipFile("its parts are compressed")
        size = file.seek(0, os.SEEK_END)
        file.seek(size - END)
        end = file.read()
        if end.startswith(END_MARK) and end.endswith(b"\0\0"):  # not written by `save`: only its parts have checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is not as it was written")
            return
    digest, left = hashlib.sha256(), size - CHECKSUM
    file.seek(0)
    while left:
        part = file.read(min(left, 1 << 20))
        digest.update(part)
        left -= len(part)
    if file.read() != digest.hexdigest().encode():
        raise zipfile.BadZipFile("it is not as it was written, its checksum differs")


def _check_plain(content):
    """Refuse what is no plain value, a tensor of which not all values are stored (it could be of any size), and a list
    that stands in several places (it could be endless to print)."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if torch.is_tensor(value):
            stored = value.untyped_storage().nbytes()
            message = f"not all values of a tensor of shape {tuple(value.shape)} are stored"
            require(value.numel() * value.element_size() <= stored, DataError, message)
        elif isinstance(value, dict | list | tuple):
            require(id(value) not in seen, DataError, f"one {type(value).__name__} stands in several places")
            seen |= {id(value)} if len(value) else set()  # there is only one empty tuple
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value
        elif not isinstance(value, str | bytes | int | float | None):
            raise DataError(
                f"a {type(value).__name__} is no plain value (numbers, texts, tensors, lists and dicts are)"
            )


def rebuild(path: str | Path, kind: str, config: dict | None, state: dict, kinds: Iterable[str] = MODELS) -> nn.Module:
    """A model in evaluation mode, on the CPU, from its class name, arguments and weights.

    Its sizes are compared with those of the weights before anything is allocated.

    Raises
    ------
    DataError : a class that is none of ``kinds``, weights that do not fit or are not finite
    """
    if kind not in kinds or config is None:
        raise DataError(f"{path} holds a {kind}, which evlib cannot rebuild; it rebuilds {', '.join(kinds)}")
    try:
        for name, value in config.items():
            most = len(state) if name == "num_layers" else sum(map(torch.numel, state.values()))
            if isinstance(value, int) and abs(value) > most and name not in NO_SIZES:
                raise ValueError(f"{reprlib.repr(name)} is {reprlib.repr(value)}")
        build = functools.partial(getattr(importlib.import_module(f"evlib.{MODELS[kind]}"), kind), **config)
        with torch.device("meta"), seeded(0):
            build().load_state_dict(state, assign=True)
        with seeded(0):
            model = build()
        model.load_state_dict(state)
    except Exception as error:  # the arguments may be anything
        raise DataError(f"the weights in {path} do not fit the {kind}: {error}") from error
    _check_finite(path, state)
    return model.eval()


def _check_finite(path, weights):
    lost = ", ".join(name for name, value in weights.items() if not value.isfinite().all())
    require(not lost, DataError, f"the weights in {path} hold NaN or infinity: {lost}")


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
    load_weights(path, model, content["model_state_dict"])
    return model, content


def load_weights(path: str | Path, model: nn.Module, state: dict) -> None:
    """Give a model the weights that were read from a file.

    Raises
    ------
    DataError : weights that do not fit or are not finite
    """
    _check_finite(path, {name: state[name] for name, _ in model.named_parameters() if name in state})
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"the weights in {path} do not fit the model: {error}") from error


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The ``checkpoint_epoch_N.pth`` of the largest N in a folder, or else ``best_model.pth``, or else None:
    ``resume_from`` takes all three.

    >>> latest_checkpoint("no/such/folder") is None
    True
    """
    found = [path for path in Path(folder).glob("*.pth") if CHECKPOINT_NAME.fullmatch(path.name)]
    best = Path(folder) / BEST_NAME  # all that a run has left that was cut off before its first checkpoint
    last = best if best.is_file() else None
    return max(found, key=lambda path: int(path.stem.rpartition("_")[2]), default=last)


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
    kept = None
    if whitener is not None:
        kept = whitener_state(whitener) | {"sampling_rate_hz": float(whitener.sampling_rate_hz)}
    save_checkpoint(path, encoder, metadata, whitener=kept)


def whitener_state(whitener: Whitener) -> dict:
    """The tensors that `whitener_of` makes it from."""
    arrays = {name: getattr(whitener, name) for name in ("taps", "center", "limits", "loudest")}
    arrays |= {"step": whitener.normal.step, "still": whitener.normal.still}
    return {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in arrays.items()}


def whitener_of(state: dict, sampling_rate_hz: float) -> Whitener:
    """A whitener from what `whitener_state` made of it."""
    taps, center, limits, loudest, step, still = (
        state[name].numpy() for name in ("taps", "center", "limits", "loudest", "step", "still")
    )
    return Whitener(taps, center, sampling_rate_hz, normal=Normal(step, still), limits=limits, loudest=loudest)


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
    try:
        return encoder, content["metadata"], None if kept is None else whitener_of(kept, kept["sampling_rate_hz"])
    except Exception as error:  # the values may be anything
        raise DataError(f"the whitener in {path} is damaged: {error!r}") from error


def plain(value):
    """Tensors on the CPU, NumPy's numbers as Python's: a checkpoint of a GPU run opens anywhere."""
    if torch.is_tensor(value):
        return value.detach().cpu().contiguous()
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
