"""Handing a trained encoder on to another model, and training it there with care.

Whatever has an ``encoder`` can give or take one: the pretext models, the classifier. A transfer loads every tensor of
the encoder or none. What comes after it: freeze the encoder, give it a smaller learning rate (`parameter_groups`), or let
its layers join in from the top (``unfreeze_epochs`` of the trainers).
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from .errors import DataError, OptionError, ShapeError

# What an encoder may differ in without its weights meaning something else.
FREE_ARGUMENTS = {"dropout"}


@dataclass(frozen=True)
class TransferReport:
    """What a transfer has loaded.

    Parameters
    ----------
    source, target : class names of the two models
    tensors : name -> shape of each tensor that was loaded
    """

    source: str
    target: str
    tensors: dict

    @property
    def n_parameters(self):
        return sum(torch.Size(shape).numel() for shape in self.tensors.values())

    def __str__(self):
        lines = [f"  {name} {tuple(shape)}" for name, shape in self.tensors.items()]
        head = f"{self.source} -> {self.target}: {len(self.tensors)} tensors, {self.n_parameters:,} parameters"
        return "\n".join([head, *lines])


def encoder_of(model):
    """The encoder of a model, or ``model`` itself if it is one (it has a ``config`` and an ``output_size``)."""
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, nn.Module) or not hasattr(encoder, "output_size"):
        raise OptionError(f"a {type(model).__name__} has no encoder to give or take: wanted an encoder or a model that holds one")
    return encoder


def transfer_encoder(source, target):
    """Copy the weights of the source's encoder into the target's: all of them, or none and an error.

    Parameters
    ----------
    source, target : encoders, or models with an ``encoder``

    Returns
    -------
    TransferReport

    Raises
    ------
    OptionError : no encoder, encoders of different classes or arguments (dropout may differ)
    ShapeError : tensors that are missing or differ in shape
    DataError : weights that are not finite

    Examples
    --------
    >>> from evlib.encoders import LSTMEncoder
    >>> report = transfer_encoder(LSTMEncoder(6, 8, num_layers=1), LSTMEncoder(6, 8, num_layers=1))
    >>> print(str(report).splitlines()[0])
    LSTMEncoder -> LSTMEncoder: 10 tensors, 1,640 parameters
    """
    giver, taker = encoder_of(source), encoder_of(target)
    if type(giver) is not type(taker):
        raise OptionError(f"a {type(giver).__name__} cannot be loaded into a {type(taker).__name__}")
    wrong = [
        f"{name} is {value!r} in the source but {taker.config[name]!r} in the target"
        for name, value in giver.config.items()
        if name not in FREE_ARGUMENTS and value != taker.config[name]
    ]
    if wrong:
        raise OptionError(f"nothing was loaded, the encoders differ: {'; '.join(wrong)}")
    weights, places = giver.state_dict(), taker.state_dict()
    wrong = [
        f"{name} is {_describe(weights.get(name))} in the source but {_describe(places.get(name))} in the target"
        for name in dict.fromkeys([*weights, *places])
        if _describe(weights.get(name)) != _describe(places.get(name))
    ]
    if wrong:
        raise ShapeError(f"nothing was loaded, the encoders differ: {'; '.join(wrong)}")
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise DataError(f"nothing was loaded, {name} of the source is not finite: its training has diverged")
    taker.load_state_dict(weights)
    return TransferReport(
        type(source).__name__, type(target).__name__, {name: tuple(weight.shape) for name, weight in weights.items()}
    )


def _describe(tensor):
    return "missing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def freeze_encoder(model):
    """Train everything but the encoder."""
    encoder_of(model).requires_grad_(False)


def unfreeze_encoder(model):
    """Train the encoder too."""
    encoder_of(model).requires_grad_(True)


def encoder_layers(model):
    """The encoder's parameters from its output to its input: the top layer first, what makes frames of samples last.

    >>> from evlib.encoders import LSTMEncoder
    >>> [len(layer) for layer in encoder_layers(LSTMEncoder(6, 8))]
    [8, 8, 2]
    """
    return encoder_of(model).layers()


def parameter_groups(model, lr, encoder_lr_factor=0.1, layer_decay=1.0):
    """Groups for an optimizer: the heads learn at ``lr``, the encoder more slowly.

    Parameters
    ----------
    model : a model with an ``encoder``
    lr : learning rate of everything but the encoder
    encoder_lr_factor : the encoder's top layer learns at ``lr * encoder_lr_factor``
    layer_decay : each layer below learns at this share of the rate of the one above it

    Returns
    -------
    list of dict : name, lr and params; first the heads (if any), then the encoder's layers from output to input

    Raises
    ------
    OptionError : no encoder, rates that are not positive

    Examples
    --------
    >>> from evlib.models import LSTMEventClassifier
    >>> groups = parameter_groups(LSTMEventClassifier(hidden_size=8), 1e-3, layer_decay=0.5)
    >>> [(group["name"], group["lr"]) for group in groups]
    [('heads', 0.001), ('encoder_0', 0.0001), ('encoder_1', 5e-05), ('encoder_2', 2.5e-05)]
    """
    for name, value in {"lr": lr, "encoder_lr_factor": encoder_lr_factor, "layer_decay": layer_decay}.items():
        if not value > 0:
            raise OptionError(f"{name} must be positive, got {value!r} (to keep the encoder as it is, use freeze_encoder)")
    layers = encoder_layers(model)
    inside = {id(parameter) for layer in layers for parameter in layer}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [{"name": "heads", "lr": lr, "params": heads}] if heads else []
    for depth, layer in enumerate(layers):
        groups.append({"name": f"encoder_{depth}", "lr": lr * encoder_lr_factor * layer_decay**depth, "params": layer})
    return groups


def set_frozen_layers(model, unfreeze_epochs, epoch):
    """Set which encoder layers learn in ``epoch`` (counted from 1): layer i from the top joins in ``unfreeze_epochs[i]``.

    One number holds for all layers. What is frozen follows from the epoch alone, so a resumed training needs no memory.

    Raises
    ------
    OptionError : not one number or one for each layer, or no whole numbers from 1
    """
    layers = encoder_layers(model)
    epochs = [unfreeze_epochs] * len(layers) if isinstance(unfreeze_epochs, int) else list(unfreeze_epochs)
    if len(epochs) != len(layers) or any(first != int(first) or first < 1 for first in epochs):
        raise OptionError(
            f"unfreeze_epochs must be one epoch from 1 on, or one for each of the encoder's {len(layers)} layers from output "
            f"to input, got {unfreeze_epochs!r}"
        )
    for layer, first in zip(layers, epochs, strict=True):
        for parameter in layer:
            parameter.requires_grad_(epoch >= first)


@contextlib.contextmanager
def gradual_unfreezing(model, optimizer, unfreeze_epochs, epoch):
    """Freeze what does not learn yet in ``epoch``; afterwards each parameter requires a gradient or not, as before."""
    if unfreeze_epochs is None:
        yield
        return
    before = [(parameter, parameter.requires_grad) for parameter in encoder_of(model).parameters()]
    learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not all(id(parameter) in learning for parameter, _ in before):
        raise OptionError("the optimizer must hold the encoder's parameters, or unfreezing them would train nothing")
    try:
        set_frozen_layers(model, unfreeze_epochs, epoch)
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
