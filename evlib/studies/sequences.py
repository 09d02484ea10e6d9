"""Models of sequences: a value for each step (heart rate), or a class for the whole (audio clips, event sequences).

Sizes, ``dropout``, ``bidirectional`` and ``cell`` are those of `LSTMEncoder`; ``lengths`` (batch,) say what is valid.
"""

import gzip
import math
import struct
import zlib

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from ..networks.encoders import LSTMEncoder, check_batch, length_mask, pool_frames
from ..networks.losses import masked_mse
from ..networks.threads import few_threads
from ..networks.time_embeddings import balance_loss, make_time_embedding
from ..signals.errors import DataError, OptionError, ShapeError, require_int
from ..training import loop


class HeartRateLSTM(nn.Module):
    """One value for each step, (batch, time, input_size) -> (batch, time, 1); 204,417 parameters by default.

    As in the second version of an LSTM study of workouts. It reads forwards, so padding changes nothing. The output is
    ``center + scale`` times the network's: with the mean and spread of the targets it starts from the mean, not from 0.

    >>> HeartRateLSTM()(torch.zeros(2, 50, 11)).shape
    torch.Size([2, 50, 1])
    """

    def __init__(
        self,
        input_size=11,
        hidden_size=128,
        num_layers=2,
        dropout=0.3,
        bidirectional=False,
        cell="lstm",
        center=0.0,
        scale=1.0,
    ):
        super().__init__()
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1, cell=cell)
        self.head = nn.Linear(self.encoder.output_size, 1)
        self.config = {name: value for name, value in self.encoder.config.items() if name != "resolution"}
        self.config |= {"center": float(center), "scale": float(scale)}

    def forward(self, x, lengths=None):
        return self.config["center"] + self.config["scale"] * self.head(self.encoder(x, lengths))


class LSTMClassifier(nn.Module):
    """One class for the whole sequence, (batch, time, input_size) -> logits (batch, num_classes).

    The head reads the last valid state (backwards, the state at the first step), or with ``pooling="mean"`` the mean
    state.

    >>> LSTMClassifier(input_size=40, hidden_size=128, num_layers=2, num_classes=10)(torch.randn(16, 100, 40)).shape
    torch.Size([16, 10])
    """

    def __init__(
        self, input_size, hidden_size, num_layers, num_classes, dropout=0.3, bidirectional=False, pooling="last"
    ):
        super().__init__()
        require_int(2, num_classes=num_classes, hidden_size=hidden_size)
        if pooling not in ("last", "mean"):
            raise OptionError(f"pooling must be last or mean, got {pooling!r}")
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1)
        hidden = nn.Linear(self.encoder.output_size, hidden_size // 2)
        self.head = nn.Sequential(
            nn.Dropout(dropout), hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_size // 2, num_classes)
        )
        self.config = {name: value for name, value in self.encoder.config.items() if name not in ("resolution", "cell")}
        self.config |= {"num_classes": int(num_classes), "pooling": pooling}

    def forward(self, x, lengths=None):
        mean = self.config["pooling"] == "mean"
        return self.head(self.encoder.pooled(x, lengths) if mean else last_state(self.encoder, x, lengths))


class TimeLSTM(nn.Module):
    """One class for a sequence of events, from an embedding of their times: logits (batch, num_classes).

    ``embedding`` is a name in `evlib.networks.time_embeddings.TIME_EMBEDDINGS`, ``size`` and ``options`` are its.
    ``forward`` takes times (batch, n) and features (batch, n, 1); of a mixture of experts it returns the balance loss
    as a second value.

    >>> TimeLSTM("sincos")(torch.arange(5.0)[None], torch.ones(1, 5, 1), torch.tensor([5])).shape
    torch.Size([1, 10])
    """

    def __init__(
        self, embedding="table", hidden_size=128, num_layers=2, dropout=0.2, num_classes=10, size=32, **options
    ):
        super().__init__()
        require_int(2, num_classes=num_classes)
        self.embedding = make_time_embedding(embedding, size=size, **options)
        self.encoder = LSTMEncoder(size, hidden_size, num_layers, dropout, bidirectional=False, resolution=1)
        self.head = nn.Linear(hidden_size, num_classes)
        sizes = {name: self.encoder.config[name] for name in ("hidden_size", "num_layers", "dropout")}
        self.config = sizes | {"embedding": embedding, "num_classes": num_classes, "size": size, **options}

    def forward(self, events, features, lengths):
        lengths = torch.as_tensor(lengths, device=events.device)
        valid = length_mask(lengths, events.shape[1])
        embedded = self.embedding(events.masked_fill(~valid, 0), features.masked_fill(~valid[..., None], 0))
        embedded, *probability = embedded if isinstance(embedded, tuple) else (embedded,)
        logits = self.head(last_state(self.encoder, embedded, lengths))
        return (logits, balance_loss(probability[0], valid)) if probability else logits


def last_state(encoder, x, lengths=None):
    """(batch, time, features) -> (batch, output_size): the state at the end of each sequence, backwards at its
    start."""
    lengths = check_batch(x, encoder.input_size, lengths)
    states = encoder(x, lengths)
    last = pool_frames(states, length_mask(lengths, x.shape[1]), "last")
    half = encoder.output_size // 2
    return torch.cat([last[:, :half], states[:, 0, half:]], dim=1) if encoder.config["bidirectional"] else last


# --- Sequences of unequal length, with a class each or a value at each step: batches, training, answers.


BALANCE_WEIGHT = 0.01
PLATEAU_EPOCHS = 5
# The last whole number before single precision has gaps.
LATEST = 2**24


def sequence_items(inputs, targets, times=None):
    """Items for `train_sequences`: a list of dicts of tensors ``input`` (n, F), ``target`` and ``times`` (n,).

    Parameters
    ----------
    inputs : list of (n, F) arrays, n at least 1
    targets : a class for each sequence, or a list of (n,) arrays of values
    times : list of (n,) arrays, for models that ask when each step was

    Raises
    ------
    ShapeError, DataError : lengths that do not fit; no sequence, values that are not finite

    Examples
    --------
    >>> batch = collate_sequences(sequence_items([np.zeros((3, 2)), np.ones((5, 2))], targets=[0, 1]))
    >>> batch["input"].shape, batch["lengths"].tolist(), batch["target"].tolist()
    (torch.Size([2, 5, 2]), [3, 5], [0, 1])
    """
    columns = {"input": inputs, "target": targets} | ({} if times is None else {"times": times})
    if len(inputs) == 0 or len({len(column) for column in columns.values()}) != 1:
        raise ShapeError(
            f"one of each for every sequence, got { ({name: len(column) for name, column in columns.items()}) }"
        )
    items, width, target_axes = [], np.shape(inputs[0])[-1], np.ndim(targets[0])
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        item = {name: np.asarray(value) for name, value in zip(columns, values, strict=True)}
        n = len(inputs[i])
        wanted = {"input": (n, width), "target": (n,) * target_axes, "times": (n,)}
        if n == 0 or target_axes > 1 or any(value.shape != wanted[name] for name, value in item.items()):
            shapes = {name: value.shape for name, value in item.items()}
            raise ShapeError(
                f"sequence {i} must have an input (steps, {width}), times (steps,) if any, and a class or values "
                "(steps,) as the "
                f"first one has; got {shapes}"
            )
        target = item["target"]
        if target.ndim == 0 and not (np.issubdtype(target.dtype, np.integer) and target >= 0):
            raise DataError(f"the class of sequence {i} must be a whole number from 0, got {target!r}")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            item = {
                name: torch.tensor(value.astype(np.float32) if value.ndim else int(value))
                for name, value in item.items()
            }
        if not all(value.isfinite().all() for value in item.values()):
            raise DataError(f"sequence {i} holds NaN or infinity, or more than 1e38: fill or cut out such steps first")
        if "times" in item and item["times"].abs().max() > LATEST:
            raise DataError(
                f"times up to {LATEST:,} can be told apart, sequence {i} goes beyond: subtract its start, or scale them"
            )
        items.append(item)
    return items


def collate_sequences(items):
    """A batch of items: a dict of padded tensors, and ``lengths`` (batch,)."""
    batch = {"lengths": torch.tensor([len(item["input"]) for item in items])}
    for name in items[0]:
        values = [item[name] for item in items]
        batch[name] = pad_sequence(values, batch_first=True) if values[0].ndim else torch.stack(values)
    return batch


class SimilarLengths(Sampler):
    """Batches of sequences of similar length, so that little is padded: lists of indices, another order each time.

    ``n_sorted`` batches are drawn at random, sorted by length together and dealt out again.

    >>> batches = list(SimilarLengths([5, 90, 6, 91], batch_size=2, n_sorted=2))
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths, batch_size, n_sorted, seed=0):
        self.lengths, self.batch_size, self.n_sorted = torch.as_tensor(lengths), batch_size, n_sorted
        # Of its own, so that models that draw different numbers see the same batches.
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self):
        batches = []
        for drawn in torch.randperm(len(self.lengths), generator=self.generator).split(self.batch_size * self.n_sorted):
            batches += drawn[self.lengths[drawn].argsort(stable=True)].split(self.batch_size)
        return iter([batches[k].tolist() for k in torch.randperm(len(batches), generator=self.generator)])


def sequence_losses(model, loss_fn, batch):
    """The losses of a batch: masked squares of values; or ``loss_fn`` of class logits and their share of ``errors``.

    The balance of a mixture of experts is added at a small weight.
    """
    output, balance = _ask(model, batch)
    if batch["target"].ndim == 2:
        loss = masked_mse(output[..., 0], batch["target"], length_mask(batch["lengths"], output.shape[1]))
        weight, losses = int(batch["lengths"].sum()), {}
    else:
        loss, classes = loss_fn(output, batch["target"]), batch["target"]
        weight = len(classes) if loss_fn.weight is None else float(loss_fn.weight[classes].sum())
        losses = {"errors": (output.argmax(-1) != classes).float().mean()}
    if balance is not None:
        loss, losses = loss + BALANCE_WEIGHT * balance, losses | {"balance_loss": balance}
    # Values count by their valid steps, classes by their weights: the mean over an epoch is that over one great batch.
    return losses | {"total_loss": (loss, weight)}


def _ask(model, batch):
    times = (batch["times"],) if "times" in batch else ()
    output = model(*times, batch["input"], batch["lengths"])
    return output if isinstance(output, tuple) else (output, None)


def train_sequences(
    model,
    train,
    validation,
    *,
    lr=1e-3,
    weight_decay=0.0,
    batch_size=32,
    max_epochs=50,
    patience=10,
    class_weights=None,
    n_sorted=1,
    plateau_epochs=PLATEAU_EPOCHS,
    seed=0,
    save_dir=None,
    progress=False,
):
    """Train with Adam; the weights with the least validation loss are kept.

    The rate is halved after more than ``plateau_epochs`` without a lesser validation loss, so never if ``patience``
    ends the training before.

    Parameters
    ----------
    train, validation : `sequence_items`
    class_weights : (classes,) weights of the cross-entropy
    n_sorted : batches sorted by length together (`SimilarLengths`): 1 is as random as can be, 20 pads least
    save_dir : gets ``best_model.pth`` and the logs; None throws them away

    Returns
    -------
    model (in eval mode), history
    """
    require_int(1, batch_size=batch_size, max_epochs=max_epochs, patience=patience, n_sorted=n_sorted)
    require_int(0, plateau_epochs=plateau_epochs, seed=seed)
    if not (len(train) and len(validation)):
        raise DataError(
            f"sequences are needed to train on and to validate with, got {len(train)} and {len(validation)}"
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=plateau_epochs)
    batches = SimilarLengths(_lengths(train), batch_size, n_sorted, seed)
    weights = None if class_weights is None else torch.as_tensor(np.asarray(class_weights), dtype=torch.float32)
    loss = torch.nn.CrossEntropyLoss(weights)
    loaders = (
        DataLoader(train, batch_sampler=batches, collate_fn=collate_sequences),
        _in_order_of_length(validation, batch_size),
    )
    history = loop.train(
        model,
        lambda model, batch: sequence_losses(model, loss, batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        loss_fn=loss,
        scheduler=schedule,
        patience=patience,
        save_dir=save_dir,
        progress=progress,
        seed=seed,
    )
    return model, history


def _lengths(items):
    return [len(item["input"]) for item in items]


def _in_order_of_length(items, batch_size):
    order = np.argsort(_lengths(items), kind="stable").tolist()
    return DataLoader(items, batch_size, sampler=order, collate_fn=collate_sequences)


@few_threads()
@torch.no_grad()
def predict_sequences(model, items, batch_size=64):
    """What a model says of each sequence: (n,) values, or (classes,) logits; padding is cut off."""
    model.eval()
    loader = _in_order_of_length(items, batch_size)
    answers = [None] * len(items)
    for where, batch in zip(loader.batch_sampler, loader, strict=True):
        output = _ask(model, batch)[0]
        for i, one, n in zip(where, output, batch["lengths"], strict=True):
            answers[i] = one[:n, 0].numpy() if output.ndim == 3 else one.numpy()
    return answers


# --- Images as sequences of events: the places of bright pixels, row by row, are the times of events.


def image_events(images, threshold=0.9):
    """Places (n,) and intensities (n, 1) of the pixels of each image over a share ``threshold`` of full brightness.

    Images (N, height, width) are unsigned bytes or lie in 0..1. One without a bright pixel is one event at 0.

    >>> times, features = image_events(np.array([[[0.0, 1.0], [0.95, 0.2]], [[0.0, 0.0], [0.0, 0.0]]]))
    >>> [time.tolist() for time in times]
    [[1, 2], [0]]
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.size == 0:
        raise ShapeError(f"images must have shape (images, height, width) without an empty axis, got {images.shape}")
    flat = images.reshape(len(images), -1) / (255 if images.dtype == np.uint8 else 1)
    if not (flat.min(initial=0) >= 0 and flat.max(initial=0) <= 1):
        raise DataError(f"intensities must lie in 0..1 or be unsigned bytes, got {flat.min():g}..{flat.max():g}")
    if not 0 <= threshold < 1:
        raise OptionError(f"threshold must lie in [0, 1), got {threshold!r}")
    times = [np.flatnonzero(row > threshold) if row.max(initial=0) > threshold else np.zeros(1, int) for row in flat]
    return times, [row[time][:, None] for row, time in zip(flat, times, strict=True)]


def read_idx(path):
    """An array of unsigned bytes of an IDX file (gzipped or not), the format of MNIST."""
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
        zero, kind, n_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        data = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
        if zero != 0 or kind != 8 or len(data) != math.prod(shape):
            raise ValueError(f"{len(data)} bytes for shape {shape}")
    except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
        raise DataError(f"{path} is no IDX file of unsigned bytes, or a truncated one: {error}") from error
    return data.reshape(shape)


class AugmentedSequences(list):
    """Items of `evlib.studies.sequences.sequence_items` whose events are moved and thinned out anew each time one is
    asked for.

    Parameters
    ----------
    items : items with ``input``, ``times`` and ``target``
    shape : (height, width) of the images
    shift : pixels an image moves at most, in each direction; events that leave it are lost
    thinning : the largest probability with which an event is left out (each image draws its own, from 0 to this one)
    seed : of the draws

    Iterating gives the items as they are; if nothing would be left of an image it stays as it is too.
    """

    def __init__(self, items, shape, shift=1, thinning=0.5, seed=0):
        super().__init__(items)
        require_int(0, shift=shift)
        if any(item["times"].max() >= shape[0] * shape[1] for item in items):
            raise ShapeError(f"events lie outside of images of shape {tuple(shape)}")
        if not (shift < min(shape) and 0 <= thinning < 1):
            raise OptionError(
                f"shift must lie in 0..{min(shape) - 1} and thinning in [0, 1), got {shift!r} and {thinning!r}"
            )
        self.shape, self.shift, self.thinning = shape, shift, thinning
        self.rng = np.random.default_rng(seed)

    def __getitem__(self, index):
        item = super().__getitem__(index)
        move = self.rng.integers(-self.shift, self.shift + 1, 2)
        share, draw = self.rng.uniform(0, self.thinning), self.rng.random(len(item["times"]))
        height, width = self.shape
        row, column = item["times"] // width + move[0], item["times"] % width + move[1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        left = inside.numpy() & (draw >= share)
        if not left.any():
            return item
        return item | {"times": (row * width + column)[left], "input": item["input"][left]}
