"""Sequences of unequal length with a value at each step (heart rate) or one class each (audio clips, events in images).

Models, batches, training and predictions. Sizes, ``dropout``, ``bidirectional`` and
``cell`` of the models are those of `LSTMEncoder`; steps from ``lengths`` (batch,) on are padding.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from ..networks.classifier import mlp_head
from ..networks.encoders import LSTMEncoder, check_batch, keep_arguments, length_mask
from ..networks.losses import masked_mse
from ..networks.threads import few_threads
from ..networks.time_embeddings import balance_loss, make_time_embedding
from ..signals.errors import DataError, ShapeError, require_choice, require_int, require_number
from ..training import loop


class HeartRateLSTM(nn.Module):
    """One value for each step, (batch, time, input_size) -> (batch, time, 1); 204,417 parameters by default.

    As in the second version of an LSTM study of workouts. It reads forwards, so padding changes nothing. The output is
    ``center`` plus ``scale`` times the network's: with mean and standard deviation of the targets it starts from their
    mean instead of 0.

    >>> HeartRateLSTM()(torch.zeros(2, 50, 11)).shape
    torch.Size([2, 50, 1])
    """

    config: dict

    @keep_arguments
    def __init__(self, input_size=11, hidden_size=128, num_layers=2, dropout=0.3, bidirectional=False, cell="lstm",
                 center=0.0, scale=1.0):  # fmt: skip
        super().__init__()
        require_number(-np.inf, center=center, scale=scale)
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1, cell=cell)
        self.head = nn.Linear(self.encoder.output_size, 1)

    def forward(self, x: torch.Tensor, lengths=None) -> torch.Tensor:
        return self.config["center"] + self.config["scale"] * self.head(self.encoder(x, lengths))


class LSTMClassifier(nn.Module):
    """One class for the whole sequence, (batch, time, input_size) -> logits (batch, num_classes).

    The head reads the last valid state (of the backward direction the state at the first step), or the mean state with
    ``pooling="mean"``.

    >>> LSTMClassifier(input_size=40, hidden_size=128, num_layers=2, num_classes=10)(torch.randn(16, 100, 40)).shape
    torch.Size([16, 10])
    """

    config: dict

    @keep_arguments
    def __init__(
        self, input_size, hidden_size, num_layers, num_classes, dropout=0.3, bidirectional=False, pooling="last"
    ):
        super().__init__()
        require_int(2, num_classes=num_classes, hidden_size=hidden_size)
        require_choice(("last", "mean"), pooling=pooling)
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1)
        self.head = mlp_head(self.encoder.output_size, hidden_size // 2, num_classes, dropout)

    def forward(self, x: torch.Tensor, lengths=None) -> torch.Tensor:
        mean = self.config["pooling"] == "mean"
        return self.head(self.encoder.pooled(x, lengths) if mean else last_state(self.encoder, x, lengths))


class TimeLSTM(nn.Module):
    """One class for a sequence of events, from an embedding of their times: logits (batch, num_classes).

    ``embedding`` is a name in `evlib.networks.time_embeddings.TIME_EMBEDDINGS`; ``size`` and ``options`` are its
    arguments. ``forward`` takes times (batch, n) and features (batch, n, 1). With a mixture of experts it also returns
    the balance loss.

    >>> TimeLSTM("sincos")(torch.arange(5.0)[None], torch.ones(1, 5, 1), torch.tensor([5])).shape
    torch.Size([1, 10])
    """

    @keep_arguments
    def __init__(
        self, embedding="table", hidden_size=128, num_layers=2, dropout=0.2, num_classes=10, size=32, **options
    ):
        super().__init__()
        require_int(2, num_classes=num_classes)
        self.embedding = make_time_embedding(embedding, size=size, **options)
        self.encoder = LSTMEncoder(size, hidden_size, num_layers, dropout, bidirectional=False, resolution=1)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, events, features, lengths):
        lengths = torch.as_tensor(lengths, device=events.device)
        valid = length_mask(lengths, events.shape[1])
        embedded = self.embedding(events.masked_fill(~valid, 0), features.masked_fill(~valid[..., None], 0))
        embedded, *probability = embedded if isinstance(embedded, tuple) else (embedded,)
        logits = self.head(last_state(self.encoder, embedded, lengths))
        return (logits, balance_loss(probability[0], valid)) if probability else logits


def last_state(encoder: LSTMEncoder, x: torch.Tensor, lengths=None) -> torch.Tensor:
    """(batch, time, features) -> (batch, output_size): the state at the end of each sequence.

    Of the backward direction it is the state at the start.
    """
    lengths = check_batch(x, encoder.input_size, lengths)
    states = encoder(x, lengths)
    last = states[torch.arange(len(x), device=x.device), lengths - 1]
    half = encoder.output_size // 2
    return torch.cat([last[:, :half], states[:, 0, half:]], dim=1) if encoder.config["bidirectional"] else last


# Weight of the balance loss of a mixture of experts: small beside a cross-entropy of about 1.
BALANCE_WEIGHT = 0.01
# Epochs without a lower validation loss after which the learning rate is halved.
PLATEAU_EPOCHS = 5
# Single precision holds whole numbers exactly up to this one: later times would not differ.
MAX_TIME = 2**24


def sequence_items(inputs, targets, times=None) -> list[dict]:
    """Items for `train_sequences`: dicts of tensors ``input`` (n, F), ``target`` and ``times`` (n,).

    Parameters
    ----------
    inputs : list of (n, F) arrays, n at least 1
    targets : a class for each sequence, or a list of (n,) arrays of values; NaN where a value is not known, which is
        left out of losses
    times : list of (n,) arrays, the time of each step for models that need it

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
    counts = {name: len(column) for name, column in columns.items()}
    if len(inputs) == 0 or len(set(counts.values())) != 1:
        raise ShapeError(f"one of each for every sequence, got {counts}")
    items, width, target_axes = [], np.shape(inputs[0])[-1], np.ndim(targets[0])
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        item = {name: np.asarray(value) for name, value in zip(columns, values, strict=True)}
        shapes, n = {name: value.shape for name, value in item.items()}, len(inputs[i])
        wanted = {"input": (n, width), "target": (n,) * target_axes, "times": (n,)}
        if n == 0 or target_axes > 1 or any(shape != wanted[name] for name, shape in shapes.items()):
            want = f"an input (steps, {width}), times (steps,) if any, and a class or values (steps,) as the first has"
            raise ShapeError(f"sequence {i} must have {want}; got {shapes}")
        target = item["target"]
        if target.ndim == 0 and not (np.issubdtype(target.dtype, np.integer) and target >= 0):
            raise DataError(f"the class of sequence {i} must be a whole number from 0, got {target!r}")
        with np.errstate(over="ignore"):  # infinite values are refused below
            item = {name: value.astype(np.float32 if value.ndim else np.int64) for name, value in item.items()}
        known = {"target": item["target"][~np.isnan(item["target"])]} if target_axes else {}
        if not all(value.size and np.isfinite(value).all() for value in (item | known).values()):
            raise DataError(
                f"sequence {i} holds NaN or infinity, or more than 1e38, or no target: cut out such steps first"
            )
        if "times" in item and np.abs(item["times"]).max() > MAX_TIME:
            hint = "subtract its start, or scale them"
            raise DataError(f"times up to {MAX_TIME:,} are exact, sequence {i} goes beyond: {hint}")
        items.append({name: torch.tensor(value) for name, value in item.items()})
    return items


def collate_sequences(items: list[dict]) -> dict:
    """A batch of items: a dict of padded tensors, and ``lengths`` (batch,)."""
    batch = {"lengths": torch.tensor(_lengths(items))}
    for name in items[0]:
        values = [item[name] for item in items]
        batch[name] = pad_sequence(values, batch_first=True) if values[0].ndim else torch.stack(values)
    return batch


def _lengths(items):
    return [len(item["input"]) for item in items]


class SimilarLengths(Sampler):
    """Lists of indices: batches of sequences of similar length, in another order each time, so that little is padded.

    ``n_sorted`` batches are drawn at random, sorted by length together and dealt out again.

    >>> batches = list(SimilarLengths([5, 90, 6, 91], batch_size=2, n_sorted=2))
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths, batch_size: int, n_sorted: int, seed: int = 0):
        self.lengths, self.batch_size, self.n_sorted = torch.as_tensor(lengths), batch_size, n_sorted
        # A generator of its own, so that models that draw different numbers see the same batches.
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self):
        batches = []
        for drawn in torch.randperm(len(self.lengths), generator=self.generator).split(self.batch_size * self.n_sorted):
            batches += drawn[self.lengths[drawn].argsort(stable=True)].split(self.batch_size)
        return iter([batches[k].tolist() for k in torch.randperm(len(batches), generator=self.generator)])


def sequence_losses(model: nn.Module, loss_fn, batch: dict) -> dict:
    """The losses of a batch: the masked squared error of values, or ``loss_fn`` of class logits and the share of
    ``errors``.

    The balance loss of a mixture of experts is added with a small weight.
    """
    (output, *balance), target = _outputs(model, batch), batch["target"]
    if target.ndim == 2:
        known = length_mask(batch["lengths"], output.shape[1]) & ~target.isnan()
        loss = masked_mse(output[..., 0], target, known)
        weight, losses = float(known.sum()), {}
    else:
        loss, losses = loss_fn(output, target), {"errors": (output.argmax(-1) != target).float().mean()}
        class_weights = getattr(loss_fn, "weight", None)
        weight = len(target) if class_weights is None else float(class_weights[target].sum())
    if balance:
        loss, losses = loss + BALANCE_WEIGHT * balance[0], losses | {"balance_loss": balance[0]}
    # Weighted by its valid steps or its class weights, the mean over an epoch does not depend on the size of batches.
    return losses | {"total_loss": (loss, weight)}


def _outputs(model, batch):
    """Output of a model, and the balance loss if it has one."""
    times = (batch["times"],) if "times" in batch else ()
    output = model(*times, batch["input"], batch["lengths"])
    return output if isinstance(output, tuple) else (output,)


def train_sequences(
    model: nn.Module,
    train: list[dict],
    validation: list[dict],
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    batch_size: int = 32,
    max_epochs: int = 50,
    patience: int = 10,
    class_weights=None,
    n_sorted: int = 1,
    plateau_epochs: int = PLATEAU_EPOCHS,
    augment=None,
    seed: int = 0,
    save_dir=None,
    progress: bool = False,
) -> tuple[nn.Module, list[dict]]:
    """Train with Adam; the weights with the lowest validation loss are kept.

    The learning rate is halved after more than ``plateau_epochs`` epochs without a lower validation loss, so never if
    ``patience`` ends the training before.

    Parameters
    ----------
    model : one of this file, or one that is called alike
    train, validation : items of `sequence_items`
    lr, weight_decay : of Adam
    batch_size, max_epochs : sequences in a batch, largest number of epochs
    patience : epochs without a lower validation loss after which training stops
    class_weights : (classes,) weights of the cross-entropy
    n_sorted : batches that are sorted by length together (`SimilarLengths`): 1 is fully random, 20 pads least
    plateau_epochs : see above
    augment : function of an item that returns another one, called for each training item in each epoch
    seed : of dropout and batches
    save_dir : folder for ``best_model.pth`` and the logs; None writes no files
    progress : show a progress bar

    Returns
    -------
    model (in eval mode), history
    """
    require_int(1, batch_size=batch_size, max_epochs=max_epochs, patience=patience, n_sorted=n_sorted)
    require_int(0, plateau_epochs=plateau_epochs, seed=seed)
    if not (len(train) and len(validation)):
        raise DataError(
            f"sequences to train on and to validate with are wanted, got {len(train)} and {len(validation)}"
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=plateau_epochs)
    loss = nn.CrossEntropyLoss(None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32))
    batches = SimilarLengths(_lengths(train), batch_size, n_sorted, seed)
    by_length = sorted(validation, key=lambda item: len(item["input"]))
    loaders = _loader(train, augment, batch_sampler=batches), _loader(by_length, batch_size=batch_size)
    options = {"patience": patience, "save_dir": save_dir, "progress": progress, "seed": seed}
    options |= {"num_epochs": max_epochs, "loss_fn": loss, "scheduler": schedule}
    history = loop.train(
        model, lambda model, batch: sequence_losses(model, loss, batch), *loaders, optimizer, **options
    )
    return model, history


def _loader(items, augment=None, **options):
    def collate(items):
        return collate_sequences(list(map(augment, items)) if augment else items)

    return DataLoader(items, collate_fn=collate, **options)


@few_threads()
@torch.no_grad()
def predict_sequences(model: nn.Module, items: list[dict], batch_size: int = 64) -> list[np.ndarray]:
    """The output of a model for each sequence: (n,) values without padding, or (classes,) logits."""
    model.eval()
    order, predicted = np.argsort(_lengths(items), kind="stable"), []
    for batch in _loader([items[k] for k in order], batch_size=batch_size):
        for one, n in zip(_outputs(model, batch)[0].numpy(), batch["lengths"], strict=True):
            predicted.append(one[:n, 0] if one.ndim == 2 else one)
    return [predicted[k] for k in np.argsort(order)]
