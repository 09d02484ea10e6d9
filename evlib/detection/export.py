"""A detector for other programs: a folder with its networks as ONNX, its weights as safetensors, and a model card.

ONNX is a format of networks that many programs run (onnxruntime, without PyTorch). `export` writes the folder and
compares each written network with its original; `load_exported` makes a detector of it that `evlib.detect` takes as it
takes any other, whose networks run in onnxruntime. What is no network (whitening, templates, matching pursuit, the
refractory rule) is evlib's own in both.
"""

import contextlib
import copy
import hashlib
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from ..networks.classifier import EventOutput, evaluating
from ..networks.context import N_FEATURES
from ..networks.encoders import ONNX_OPSET
from ..signals.atomic import replace_file, replace_folder
from ..signals.errors import DataError, OptionError, require, require_extra, require_instance
from ..training.checkpoints import whitener_state
from .detector import Detector, load_detector
from .model_card import model_card

# What an exported network reads (its `lengths` come last) and gives, by its class.
GRAPHS = {
    "FrameNetwork": (("signal",), ("logits", "offsets")),
    "ContextLSTM": (("features", "evidence", "type"), ("log_odds",)),
    "EventSpecificClassifier": (("signal",), ("event_logits", "timing_logits", "template_scores")),
    "LSTMEventClassifier": (("signal",), ("event_logits", "timing_logits")),
}
# Largest difference between an exported network and its original that `export_onnx` lets pass.
TOLERANCE = 1e-4
# Sequences and steps of the batch that a network is exported with, and of the one that it is checked with.
EXPORTED, CHECKED = (2, 640), (3, 1357)
# The files of an exported detector, beside one for each network.
DETECTOR, WEIGHTS, CARD = "detector.ckpt", "model.safetensors", "README.md"


def export(detector: Detector, folder: str | Path, name: str = "") -> Path:
    """Write a detector for other programs.

    Parameters
    ----------
    detector : Detector
    folder : is made; one that holds an earlier export is replaced
    name : title of the model card; default: the name of the folder

    Returns
    -------
    the folder, with ``detector.ckpt`` (everything, as :meth:`Detector.save` writes it), ``model.safetensors`` (all
    weights by name), ``README.md`` (the model card: data, numbers, limits, how to use it), and one ONNX file for each
    network that the detector holds: ``network.onnx``, ``classifier.onnx``, ``frames.onnx``

    Raises
    ------
    OptionError : no detector, a folder that holds something else
    DataError : an exported network that differs from its original by more than 1e-4
    MissingExtraError : without the extra ``export``

    Examples
    --------
    >>> import tempfile, evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> folder = export(detector, Path(tempfile.mkdtemp()) / "bells")
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'detector.ckpt', 'model.safetensors']
    >>> load_exported(folder)
    Detector(matched_filter, 16 types, 6 channels, 2000 Hz)
    """
    require_instance(Detector, detector=detector)
    folder = Path(folder)
    taken = folder.exists() and not (folder.is_dir() and ((folder / DETECTOR).is_file() or not any(folder.iterdir())))
    require(not taken, OptionError, f"{folder} is there already and no exported detector: choose another name")
    with replace_folder(folder) as new:
        detector.save(new / DETECTOR)
        for part, model in detector.networks.items():
            export_onnx(model, new / f"{part}.onnx")
        (new / WEIGHTS).write_bytes(safetensors.torch.save(_weights(detector), metadata={"format": "pt"}))
        (new / CARD).write_text(model_card(detector, name or folder.name, sorted(new.iterdir())), encoding="utf-8")
    return folder


def load_exported(folder: str | Path) -> Detector:
    """A detector from a folder of `export`, whose networks run in onnxruntime; everything else is as in the original.

    Raises
    ------
    DataError : no such folder, a damaged one, an ONNX file of other weights
    MissingExtraError : without the extra ``export``
    """
    detector = load_detector(Path(folder) / DETECTOR)
    parts: dict[str, Any] = {
        part: onnx_network(model, Path(folder) / f"{part}.onnx") for part, model in detector.networks.items()
    }
    return replace(detector, **parts)


def export_onnx(model: nn.Module, path: str | Path) -> None:
    """Write a network as ONNX, for any number of sequences of any length, and compare it with its original.

    The file knows the hash of the weights (its metadata ``weights``). Its inputs are ``signal`` (batch, time, channels)
    float32, or of a ContextLSTM ``features``, ``evidence`` and ``type``, as in its forward; and ``lengths`` (batch,)
    int64, the steps of each sequence before its padding. Its outputs are those of the network, in `GRAPHS`.

    Parameters
    ----------
    model : a FrameNetwork, ContextLSTM, EventSpecificClassifier or LSTMEventClassifier
    path : of the file to write

    Raises
    ------
    OptionError : another model
    DataError : what was written differs from the original by more than 1e-4
    MissingExtraError : without the extra ``export``
    """
    kind = type(model).__name__
    require(kind in GRAPHS, OptionError, f"only {', '.join(GRAPHS)} can be exported as ONNX, got a {kind}")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_extra(package, "export")
    inputs, outputs = GRAPHS[kind]
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with evaluating(copy.deepcopy(model).cpu()) as frozen, _quiet():
        if hasattr(frozen, "template_bank"):
            kernels = frozen.template_bank.apply_delays()  # depends on weights alone: a constant
            frozen.template_bank.apply_delays = lambda: kernels
        program: Any = torch.onnx.export(
            _Graph(frozen, outputs),
            _example(model, *EXPORTED),
            input_names=[*inputs, "lengths"],
            output_names=outputs,
            dynamic_shapes=((free,) * len(inputs) + ({0: torch.export.Dim.DYNAMIC},),),
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    program.model.metadata_props["weights"] = _hash(model)
    with replace_file(path) as temporary:
        program.save(temporary)
    _check_same(model, path)


def onnx_network(model: nn.Module, path: str | Path) -> nn.Module:
    """The network that `export_onnx` wrote into a file, with the arguments and methods of ``model``, its original.

    Raises
    ------
    DataError : no file, a damaged one, one of other weights
    MissingExtraError : without the extra ``export``
    """
    runtime = require_extra("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # see evlib.networks.threads
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many of its own
        raise DataError(f"{path} is no ONNX file that can be run, or a damaged one: {error}") from error
    written = session.get_modelmeta().custom_metadata_map.get("weights")
    message = f"{path} was exported from other weights than those beside it; export the detector again"
    require(written == _hash(model), DataError, message)
    inputs, outputs = GRAPHS[type(model).__name__]

    def forward(*given, lengths=None):
        *values, lengths = given if len(given) > len(inputs) else (*given, lengths)
        lengths = torch.full(values[0].shape[:1], values[0].shape[1]) if lengths is None else lengths
        named = dict(zip([*inputs, "lengths"], [*values, lengths], strict=True))
        out = [torch.from_numpy(array) for array in session.run(outputs, {k: v.numpy() for k, v in named.items()})]
        return EventOutput(*out) if "event_logits" in outputs else tuple(out) if len(out) > 1 else out[0]

    twin = copy.deepcopy(model)
    twin.forward = forward
    return twin


class _Graph(nn.Module):
    """A network as a function of tensors, with tensors as its result."""

    def __init__(self, model, outputs):
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, *inputs):
        out = self.model(*inputs)
        return tuple(out[name] for name in self.outputs) if isinstance(out, EventOutput) else out


def _example(model, batch, time):
    """Inputs of a network, the last sequence shorter than the others."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((batch,), time)
    lengths[-1] = time - time // 3
    if type(model).__name__ != "ContextLSTM":
        return torch.randn(batch, time, model.config["input_size"], generator=generator), lengths
    features, evidence = (torch.randn(batch, time, *size, generator=generator) for size in ((N_FEATURES,), ()))
    return features, evidence, torch.arange(time).expand(batch, time) % model.config["num_events"], lengths


def _check_same(model, path):
    """Compare a file with its network, before the end of each sequence."""
    given, twin = _example(model, *CHECKED), onnx_network(model, path)
    with evaluating(model):
        both = [_Graph(one, GRAPHS[type(model).__name__][1])(*given) for one in (model, twin)]
    both = [out if isinstance(out, tuple) else (out,) for out in both]
    for ours, theirs in zip(*both, strict=True):
        ours, theirs = (values.clamp(min=-1e6) for values in (ours, theirs))  # minus infinity at padding
        most = float((ours - theirs).abs().max())
        message = f"{path} differs from its network by up to {most:.2g}, more than {TOLERANCE:g}: do not use it"
        require(most <= TOLERANCE, DataError, message)


def _weights(detector):
    """All arrays and weights of a detector, by name."""
    arrays = {"templates": detector.bank.templates, "log_rate": detector.bank.log_rate}
    tensors = {f"whitener.{name}": value for name, value in whitener_state(detector.whitener).items()}
    tensors |= {f"bank.{name}": torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    tensors["thresholds"] = torch.from_numpy(np.array(detector.thresholds))
    for part, model in detector.networks.items():
        tensors |= {f"{part}.{name}": value for name, value in model.state_dict().items()}
    return {name: value.contiguous() for name, value in tensors.items()}


def _hash(model):
    """SHA-256 of a network's arguments and weights."""
    digest = hashlib.sha256(json.dumps(model.config, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet():
    """PyTorch's exporter warns of what it skips and of its own old parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
