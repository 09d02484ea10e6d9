"""Encoders of signals: (batch, time, channels) in, (batch, frames, features) out.

A frame is a block of ``resolution`` samples (10 samples are 5 ms at 2000 Hz): an LSTM on frames is that much shorter
than one on samples. Padding is masked: with ``lengths`` given, values after the end of a sequence change nothing, not
even in the direction that runs backwards. This file also holds what all networks share: the arguments that a model
keeps, the check of a batch, masks, pooling, and the transfer of an encoder's weights.
"""

import functools
import inspect

import numpy as np
import torch
from torch import Tensor, nn

from ..signals.clock import n_frames
from ..signals.errors import DataError, OptionError, ShapeError, require_choice, require_int, require_number

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
# Version of ONNX that is exported, and where its recurrent operators have the gates of PyTorch's.
ONNX_OPSET = 18
ONNX_GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}
# Largest share of values that dropout may set to zero: with all of them at zero nothing would be learned.
MAX_DROPOUT = 0.99


def keep_arguments(init):
    """Decorator of ``__init__``: keep its arguments, ``**options`` too, as ``config``, to rebuild a model from a file.

    >>> LSTMEncoder(6, hidden_size=np.int64(8)).config["hidden_size"]
    8
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def keeping(self, *args, **options):
        bound = signature.bind(self, *args, **options)
        bound.apply_defaults()
        del bound.arguments["self"]
        values = bound.arguments | bound.arguments.pop("options", {})
        # Python's own numbers: files of weights are read without NumPy's types.
        config = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        init(self, **config)
        self.config = config

    return keeping


def require_shape(shape: tuple, **tensors: Tensor) -> None:
    """Refuse tensors of another shape; an axis given by name may have any length.

    >>> require_shape(("batch", 3), latent=torch.zeros(2, 4))
    Traceback (most recent call last):
    ...
    evlib.signals.errors.ShapeError: latent must have shape (batch, 3), got (2, 4)
    """
    for name, tensor in tensors.items():
        fits = [wanted == n or isinstance(wanted, str) for wanted, n in zip(shape, tensor.shape, strict=False)]
        if tensor.ndim != len(shape) or not all(fits):
            raise ShapeError(f"{name} must have shape ({', '.join(map(str, shape))}), got {tuple(tensor.shape)}")


def check_batch(x: Tensor, input_size: int, lengths=None) -> Tensor:
    """Refuse a batch that no encoder can use; return the length of each sequence, (batch,) integers.

    Parameters
    ----------
    x : (batch, time, channels) float tensor
    input_size : number of channels
    lengths : (batch,) samples in each sequence, 1 to ``time``; None when nothing is padded

    Raises
    ------
    ShapeError : wrong axes, wrong number of channels, lengths that do not fit
    DataError : NaN or infinity before the end of a sequence
    """
    if torch.onnx.is_in_onnx_export():  # there are no values to check
        return lengths
    if not torch.is_tensor(x) or not x.is_floating_point():
        raise DataError(f"the input must be a float tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 3 or 0 in x.shape[:2]:
        raise ShapeError(f"the input must be (batch, time, channels) without an empty axis, got {tuple(x.shape)}")
    batch, time, channels = x.shape
    if channels != input_size:
        slip = " (are time and channels transposed?)" if time == input_size else ""
        raise ShapeError(f"the input must have {input_size} channels on its last axis, got {tuple(x.shape)}{slip}")
    lengths = torch.as_tensor(torch.full((batch,), time) if lengths is None else lengths, device=x.device)
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ShapeError(f"lengths must be {batch} integers, got {lengths.dtype} {tuple(lengths.shape)}")
    if lengths.min() < 1 or lengths.max() > time:
        raise ShapeError(f"lengths must lie in 1..{time} samples, got {int(lengths.min())}..{int(lengths.max())}")
    if not (x.isfinite().all(-1) | ~length_mask(lengths, time)).all():
        raise DataError(
            "the input holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)"
        )
    return lengths.long()


def length_mask(lengths: Tensor, n_steps: int) -> Tensor:
    """(batch, n_steps) bool, True before the end of each sequence.

    >>> length_mask(torch.tensor([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(n_steps, device=lengths.device) < lengths[:, None]


def frame_mask(lengths: Tensor, n_samples: int, resolution: int) -> Tensor:
    """(batch, frames) bool, True where a frame holds at least one sample of its sequence.

    >>> frame_mask(torch.tensor([10, 11]), 30, 10).tolist()
    [[True, False, False], [True, True, False]]
    """
    return length_mask((lengths + resolution - 1) // resolution, n_frames(n_samples, resolution))


def pool_frames(frames: Tensor, mask: Tensor) -> Tensor:
    """(batch, features): the mean of (batch, frames, features) over the frames where ``mask`` (batch, frames) is True.

    >>> pool_frames(torch.tensor([[[1.0], [3.0], [100.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    return frames.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


def run_recurrent(network, x, lengths):
    """States (batch, time, directions * hidden_size) of an LSTM or GRU over padded sequences, zero after their ends.

    The result is that of packed sequences (``torch.nn.utils.rnn``), but faster on a CPU (3 to 15 times for an LSTM, up
    to 4 times for a GRU): the backward pass of packing writes zeros over the whole batch at each step. Here each
    direction of each layer runs over the padded batch. ``lengths`` (batch,) are steps, from 1 to ``time``.

    >>> network = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    >>> states = run_recurrent(network, torch.randn(2, 5, 3), torch.tensor([2, 5]))
    >>> states.shape, states[0, 2:].any().item()
    (torch.Size([2, 5, 8]), False)
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_recurrent(network, x, lengths)
    steps, valid = torch.arange(x.shape[1], device=x.device), length_mask(lengths, x.shape[1])[..., None]
    # The step that is read at each place of a sequence run backwards; padding stays at the end.
    backwards = torch.where(valid[..., 0], lengths[:, None] - 1 - steps, steps)[..., None]
    zeros = x.new_zeros(1, x.shape[0], network.hidden_size)
    run, start = (torch.gru, zeros) if network.mode == "GRU" else (torch.lstm, (zeros, zeros))
    x = x.masked_fill(~valid, 0)  # a NaN in the padding would reach the gradients
    directions = 1 + network.bidirectional
    for layer in range(network.num_layers):
        states = []
        for direction in range(directions):
            weights = network.all_weights[layer * directions + direction]
            read = x.take_along_dim(backwards, 1) if direction else x
            # With biases, one layer, no dropout, in one direction, batch first.
            state = run(read, start, weights, True, 1, 0.0, network.training, False, True)[0]
            states.append(state.take_along_dim(backwards, 1) if direction else state)
        x = torch.cat(states, dim=-1)
        if layer + 1 < network.num_layers:
            x = nn.functional.dropout(x, network.dropout, network.training)
    return x.masked_fill(~valid, 0)


def _onnx_recurrent(network, x, lengths):
    """As `run_recurrent`, by the operator that ONNX has for it: it is what an exported graph holds."""
    directions, gates = 1 + network.bidirectional, ONNX_GATES[network.mode]
    attributes = {"hidden_size": network.hidden_size, "direction": ("forward", "bidirectional")[network.bidirectional]}
    attributes |= {"linear_before_reset": 1} if network.mode == "GRU" else {}
    for layer in range(network.num_layers):
        weights = network.all_weights[layer * directions : (layer + 1) * directions]
        of_input, of_state, *biases = (
            torch.stack([w.unflatten(0, (len(gates), -1))[gates].flatten(0, 1) for w in part])
            for part in zip(*weights, strict=True)
        )
        inputs = (x.transpose(0, 1), of_input, of_state, torch.cat(biases, 1), lengths.int())
        shape = (x.shape[1], directions, x.shape[0], network.hidden_size)
        out = torch.onnx.ops.symbolic(network.mode, inputs, attributes, dtype=x.dtype, shape=shape, version=ONNX_OPSET)
        x = out.permute(2, 0, 1, 3).flatten(2)
    return x


def to_frames(x: Tensor, lengths: Tensor, resolution: int) -> Tensor:
    """(batch, time, channels) -> (batch, frames, resolution, channels), zero after the end of each sequence.

    >>> to_frames(torch.ones(1, 5, 1), torch.tensor([3]), 2).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    time = x.shape[1]
    x = x.masked_fill(~length_mask(lengths, time)[..., None], 0)
    missing = n_frames(time, resolution) * resolution - time
    return nn.functional.pad(x, (0, 0, 0, missing)).unflatten(1, (-1, resolution))


def two_layers(inputs: int, hidden: int, outputs: int, *between: nn.Module) -> nn.Sequential:
    """Two linear layers, and what stands between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.Linear(hidden, outputs))


class Encoder(nn.Module):
    """Base of the encoders of signals: the check of a batch, and the mean over its frames."""

    config: dict
    input_size: int
    resolution: int
    output_size: int

    def states(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As :meth:`forward`, for a batch that was checked."""
        raise NotImplementedError

    def forward(self, x: Tensor, lengths=None) -> Tensor:
        """(batch, time, channels) -> (batch, ceil(time / resolution), output_size), zero after the end of a
        sequence."""
        return self.states(x, check_batch(x, self.input_size, lengths))

    def pooled(self, x: Tensor, lengths=None) -> Tensor:
        """(batch, time, channels) -> (batch, output_size): the mean over the frames of each sequence, without
        padding."""
        lengths = check_batch(x, self.input_size, lengths)
        return pool_frames(self.states(x, lengths), frame_mask(lengths, x.shape[1], self.resolution))


class LSTMEncoder(Encoder):
    """Frames of samples, then a recurrent network over the frames.

    Each frame of ``resolution`` samples becomes one vector (a linear map of all its values, then GELU); with
    ``resolution=1`` the samples themselves go into the LSTM.

    Parameters
    ----------
    input_size : channels
    hidden_size : units in each direction
    num_layers, dropout, bidirectional : as in ``torch.nn.LSTM``
    resolution : samples in a frame
    cell : "lstm" or "gru"

    Raises
    ------
    OptionError : an unknown cell, a size below 1, a dropout outside [0, 0.99]

    Examples
    --------
    >>> encoder = LSTMEncoder(6, hidden_size=8)
    >>> encoder(torch.zeros(2, 105, 6)).shape
    torch.Size([2, 11, 16])
    """

    @keep_arguments
    def __init__(
        self, input_size, hidden_size=128, num_layers=2, dropout=0.3, bidirectional=True, resolution=10, cell="lstm"
    ):
        super().__init__()
        require_int(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, resolution=resolution)
        require_number(0, MAX_DROPOUT, dropout=dropout)
        require_choice(CELLS, cell=cell)
        require_choice((False, True), bidirectional=bidirectional)
        self.input_size, self.resolution = input_size, resolution
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.framing, read = nn.Identity(), input_size
        if resolution > 1:
            self.framing, read = nn.Sequential(nn.Linear(resolution * input_size, hidden_size), nn.GELU()), hidden_size
        options = {"batch_first": True, "bidirectional": bidirectional, "dropout": dropout if num_layers > 1 else 0.0}
        self.recurrent = CELLS[cell](read, hidden_size, num_layers, **options)

    def states(self, x, lengths):
        frames = self.framing(to_frames(x, lengths, self.resolution).flatten(2))
        return run_recurrent(self.recurrent, frames, (lengths + self.resolution - 1) // self.resolution)


# --- Transfer: a pretrained encoder in another model.


def encoder_of(model) -> nn.Module:
    """The encoder of a model, or ``model`` itself if it is one (it has an ``output_size``)."""
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, nn.Module) or not hasattr(encoder, "output_size"):
        raise OptionError(f"a {type(model).__name__} has no encoder: pass an encoder or a model that holds one")
    return encoder


def transfer_encoder(source, target) -> str:
    """Copy the weights of the source's encoder into the target's: all of them, or none and an error.

    Parameters
    ----------
    source, target : encoders, or models with an ``encoder``

    Returns
    -------
    lines that say what was loaded: a summary, then the name and shape of each tensor

    Raises
    ------
    OptionError : no encoder, encoders of different classes or arguments (dropout may differ)
    ShapeError : tensors that are missing or differ in shape
    DataError : weights that are not finite

    Examples
    --------
    >>> print(transfer_encoder(LSTMEncoder(6, 8, num_layers=1), LSTMEncoder(6, 8, num_layers=1)).splitlines()[0])
    LSTMEncoder -> LSTMEncoder: 10 tensors, 1,640 parameters
    """
    ours, theirs = encoder_of(source), encoder_of(target)
    if type(ours) is not type(theirs):
        raise OptionError(f"a {type(ours).__name__} cannot be loaded into a {type(theirs).__name__}")
    for describe, error in ((_arguments, OptionError), (_tensors, ShapeError)):
        one, other = describe(ours), describe(theirs)
        wrong = [
            f"{name} is {one.get(name, 'missing')} in the source but {other.get(name, 'missing')} in the target"
            for name in one | other
            if one.get(name) != other.get(name)
        ]
        if wrong:
            raise error(f"nothing was loaded, the encoders differ: {'; '.join(wrong)}")
    weights = ours.state_dict()
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise DataError(f"nothing was loaded, {name} of the source is not finite: its training has diverged")
    theirs.load_state_dict(weights)
    n_parameters = sum(weight.numel() for weight in weights.values())
    head = f"{type(source).__name__} -> {type(target).__name__}: {len(weights)} tensors, {n_parameters:,} parameters"
    return "\n".join([head, *(f"  {name} {tuple(weight.shape)}" for name, weight in weights.items())])


def _arguments(encoder):
    return {name: repr(value) for name, value in encoder.config.items() if name != "dropout"}


def _tensors(encoder):
    return {n: f"{str(w.dtype).removeprefix('torch.')} {tuple(w.shape)}" for n, w in encoder.state_dict().items()}


def parameter_groups(model, lr: float, encoder_lr_factor: float = 0.1) -> list[dict]:
    """Groups for an optimizer: the encoder learns at ``lr * encoder_lr_factor``, everything else at ``lr``.

    >>> from evlib import LSTMEventClassifier
    >>> [group["lr"] for group in parameter_groups(LSTMEventClassifier(hidden_size=8), 1e-3)]
    [0.001, 0.0001]
    """
    encoder = list(encoder_of(model).parameters())
    inside = set(encoder)
    heads = [parameter for parameter in model.parameters() if parameter not in inside]
    return [{"params": heads, "lr": lr}, {"params": encoder, "lr": lr * encoder_lr_factor}]
