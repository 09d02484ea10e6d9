"""Encoders: (batch, time, channels) in, (batch, frames, features) out.

A frame is a block of ``resolution`` samples (10 samples are 5 ms at 2000 Hz): an LSTM on frames is that much
shorter than one on samples. Padding is never seen: with ``lengths`` given, whatever stands behind the end of a
sequence changes nothing, not even through the direction that reads backwards.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..signals.clock import n_frames
from ..signals.errors import DataError, OptionError, ShapeError, require_int

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
POOLINGS = ("mean", "max", "last")


def check_batch(x, input_size, lengths=None):
    """Return ``lengths`` as a (batch,) tensor after refusing a batch that no encoder can use.

    Parameters
    ----------
    x : (batch, time, channels) float tensor
    input_size : the number of channels wanted
    lengths : (batch,) samples in each sequence, 1 to ``time``; None when nothing is padded

    Raises
    ------
    ShapeError : wrong axes, wrong number of channels, lengths that do not fit
    DataError : NaN or infinity in front of the end of a sequence
    """
    if not torch.is_tensor(x) or not x.is_floating_point():
        raise DataError(
            f"the input must be a float tensor (batch, time, channels), got {getattr(x, 'dtype', type(x).__name__)}"
        )
    if x.ndim != 3 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ShapeError(
            f"the input must have shape (batch, time, channels) without an empty axis, got {tuple(x.shape)}"
        )
    if x.shape[2] != input_size:
        slip = " (are time and channels transposed?)" if x.shape[1] == input_size else ""
        raise ShapeError(
            f"the input must have {input_size} channels on its last axis, got shape {tuple(x.shape)}{slip}"
        )
    batch, time, _ = x.shape
    if lengths is None:
        lengths = torch.full((batch,), time)
    lengths = torch.as_tensor(lengths, device=x.device)
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ShapeError(
            f"lengths must be {batch} integers, one for each sequence, got {lengths.dtype} {tuple(lengths.shape)}"
        )
    if lengths.min() < 1 or lengths.max() > time:
        raise ShapeError(f"lengths must lie in 1..{time} samples, got {int(lengths.min())}..{int(lengths.max())}")
    finite = x.isfinite().all(-1) | ~length_mask(lengths, time)
    if not finite.all():
        raise DataError(
            "the input holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)"
        )
    return lengths.long()


def length_mask(lengths, n_steps):
    """(batch, n_steps) bool, True in front of the end of each sequence.

    >>> length_mask(torch.tensor([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(n_steps, device=lengths.device) < lengths[:, None]


def frame_mask(lengths, n_samples, resolution):
    """(batch, frames) bool, True where a frame holds at least one sample of its sequence.

    >>> frame_mask(torch.tensor([10, 11]), 30, 10).tolist()
    [[True, False, False], [True, True, False]]
    """
    return length_mask((lengths + resolution - 1) // resolution, n_frames(n_samples, resolution))


def pool_frames(frames, mask, how="mean"):
    """Pool (batch, frames, features) over the frames where ``mask`` (batch, frames) is True: ``mean``, ``max`` or
    ``last``.

    >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> mask = torch.tensor([[True, True, False]])
    >>> [pool_frames(frames, mask, how).item() for how in ("mean", "max", "last")]
    [2.0, 3.0, 3.0]
    """
    if how == "mean":
        return frames.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
    if how == "max":
        return frames.masked_fill(~mask[..., None], -torch.inf).amax(1)
    if how == "last":
        return frames[torch.arange(len(frames), device=frames.device), mask.sum(1) - 1]
    raise OptionError(f"how must be one of {', '.join(POOLINGS)}, got {how!r}")


def run_recurrent(network, x, lengths):
    """States (batch, time, directions * hidden_size) of an LSTM or GRU over padded sequences, zero behind their ends.

    The same as packing the sequences (``torch.nn.utils.rnn``), but faster on a CPU (an LSTM 3 to 15 times, a GRU up to
    4): backwards, packing fills a whole batch with zeros for each step. Here each direction of each layer runs over the
    padded batch; behind the end of a sequence it computes what nobody reads. ``lengths`` (batch,) are whole steps, 1 to
    ``time``.

    Raises
    ------
    OptionError : a network of another kind (``nn.RNN``, without biases, with projections, not ``batch_first``)
    ShapeError : lengths that do not fit

    >>> network = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    >>> states = run_recurrent(network, torch.randn(2, 5, 3), torch.tensor([2, 5]))
    >>> states.shape, states[0, 2:].any().item()
    (torch.Size([2, 5, 8]), False)
    """
    plain = network.batch_first and network.bias and network.proj_size == 0
    if network.mode not in ("LSTM", "GRU") or not plain:
        raise OptionError(
            f"the network must be an LSTM or GRU with batch_first=True, biases and no projections, got {network}"
        )
    if lengths.shape != x.shape[:1] or lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise ShapeError(f"lengths must be {x.shape[0]} whole numbers in 1..{x.shape[1]}, got {lengths.tolist()}")
    steps = torch.arange(x.shape[1], device=x.device)
    valid = length_mask(lengths, x.shape[1])[..., None]
    # Where each step stands once a sequence is turned round in front of its end.
    turned = torch.where(valid[..., 0], lengths[:, None] - 1 - steps, steps)[..., None]
    start = x.new_zeros(1, len(x), network.hidden_size)
    x = x.masked_fill(~valid, 0)  # not even a NaN behind an end may reach a gradient
    for layer in range(network.num_layers):
        states = []
        for direction in ("", "_reverse") if network.bidirectional else ("",):
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [getattr(network, f"{kind}_l{layer}{direction}") for kind in kinds]
            read = x.take_along_dim(turned, 1) if direction else x
            options = (
                weights,
                True,
                1,
                0.0,
                network.training,
                False,
                True,
            )  # biases, one layer, no dropout, batch first
            state = (
                torch.gru(read, start, *options)[0]
                if network.mode == "GRU"
                else torch.lstm(read, (start, start), *options)[0]
            )
            states.append(state.take_along_dim(turned, 1) if direction else state)
        x = torch.cat(states, dim=-1)
        if layer + 1 < network.num_layers:
            x = nn.functional.dropout(x, network.dropout, network.training)
    return x.masked_fill(~valid, 0)


def to_frames(x, lengths, resolution):
    """(batch, time, channels) -> (batch, frames, resolution, channels), zero behind the end of each sequence.

    >>> to_frames(torch.ones(1, 5, 1), torch.tensor([3]), 2).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    batch, time, channels = x.shape
    frames = n_frames(time, resolution)
    x = x.masked_fill(~length_mask(lengths, time)[..., None], 0)
    # The last frame may hang over the end: it is filled with zeros, like any other padding.
    x = nn.functional.pad(x, (0, 0, 0, frames * resolution - time))
    return x.reshape(batch, frames, resolution, channels)


class LSTMEncoder(nn.Module):
    """Frames of samples, then a recurrent network over the frames.

    Each frame of ``resolution`` samples becomes one vector (a linear map of all its values, then GELU); with
    ``resolution=1`` the raw samples go straight into the LSTM.

    Parameters
    ----------
    input_size : channels
    hidden_size : units in each direction
    num_layers, dropout, bidirectional : as in ``torch.nn.LSTM``
    resolution : samples in a frame
    cell : "lstm" or "gru"

    Raises
    ------
    OptionError : an unknown cell, a size below 1, a dropout outside [0, 1)

    Examples
    --------
    >>> encoder = LSTMEncoder(6, hidden_size=8)
    >>> encoder(torch.zeros(2, 105, 6)).shape
    torch.Size([2, 11, 16])
    """

    def __init__(
        self, input_size, hidden_size=128, num_layers=2, dropout=0.3, bidirectional=True, resolution=10, cell="lstm"
    ):
        super().__init__()
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "resolution": resolution,
        }
        require_int(1, **sizes)
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {dropout!r}")
        if cell not in CELLS:
            raise OptionError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        # Python's own numbers, so that a file holds nothing else.
        self.config = {name: int(size) for name, size in sizes.items()}
        self.config |= {"dropout": float(dropout), "bidirectional": bool(bidirectional), "cell": cell}
        self.input_size, self.resolution = int(input_size), int(resolution)
        self.output_size = hidden_size * (2 if bidirectional else 1)
        if resolution == 1:
            self.framing, recurrent_input = nn.Identity(), input_size
        else:
            self.framing, recurrent_input = (
                nn.Sequential(nn.Linear(resolution * input_size, hidden_size), nn.GELU()),
                hidden_size,
            )
        self.recurrent = CELLS[cell](
            recurrent_input,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def layers(self):
        """The parameters from output to input: the top LSTM layer first, the framing (if any) last."""
        recurrent = list(self.recurrent.named_parameters())
        layers = [
            [parameter for name, parameter in recurrent if name.removesuffix("_reverse").endswith(f"_l{layer}")]
            for layer in reversed(range(self.recurrent.num_layers))
        ]
        framing = list(self.framing.parameters())
        return [*layers, framing] if framing else layers

    def pooled(self, x, lengths=None):
        """(batch, time, channels) -> (batch, output_size): the mean state of each sequence, padding left out."""
        lengths = check_batch(x, self.input_size, lengths)
        return pool_frames(self(x, lengths), frame_mask(lengths, x.shape[1], self.resolution))

    def forward(self, x, lengths=None):
        """(batch, time, channels) -> (batch, ceil(time / resolution), output_size); zero behind the end of a
        sequence."""
        lengths = check_batch(x, self.input_size, lengths)
        x = self.framing(to_frames(x, lengths, self.resolution).flatten(2))
        steps = (lengths + self.resolution - 1) // self.resolution
        return run_recurrent(self.recurrent, x, steps)


# --- Handing a trained encoder on to another model, and training it there with care.


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
        raise OptionError(
            f"a {type(model).__name__} has no encoder to give or take: wanted an encoder or a model that holds one"
        )
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
    >>> from evlib.networks.encoders import LSTMEncoder
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

    >>> from evlib.networks.encoders import LSTMEncoder
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
    >>> from evlib import LSTMEventClassifier
    >>> groups = parameter_groups(LSTMEventClassifier(hidden_size=8), 1e-3, layer_decay=0.5)
    >>> [(group["name"], group["lr"]) for group in groups]
    [('heads', 0.001), ('encoder_0', 0.0001), ('encoder_1', 5e-05), ('encoder_2', 2.5e-05)]
    """
    for name, value in {"lr": lr, "encoder_lr_factor": encoder_lr_factor, "layer_decay": layer_decay}.items():
        if not value > 0:
            raise OptionError(
                f"{name} must be positive, got {value!r} (to keep the encoder as it is, use freeze_encoder)"
            )
    layers = encoder_layers(model)
    inside = {id(parameter) for layer in layers for parameter in layer}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [{"name": "heads", "lr": lr, "params": heads}] if heads else []
    for depth, layer in enumerate(layers):
        groups.append({"name": f"encoder_{depth}", "lr": lr * encoder_lr_factor * layer_decay**depth, "params": layer})
    return groups
