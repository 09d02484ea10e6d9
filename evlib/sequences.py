"""Sequences of unequal length, with a class each or a value at each step: batches, training, answers.

In a batch they are padded with zeros; ``lengths`` alone says what is valid.
"""

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from .encoders import length_mask
from .errors import DataError, ShapeError
from .losses import masked_mse
from .options import check_whole
from .threads import few_threads
from .training import Trainer

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
        raise ShapeError(f"one of each for every sequence, got { ({name: len(column) for name, column in columns.items()}) }")
    items, width, target_axes = [], np.shape(inputs[0])[-1], np.ndim(targets[0])
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        item = {name: np.asarray(value) for name, value in zip(columns, values, strict=True)}
        n = len(inputs[i])
        wanted = {"input": (n, width), "target": (n,) * target_axes, "times": (n,)}
        if n == 0 or target_axes > 1 or any(value.shape != wanted[name] for name, value in item.items()):
            shapes = {name: value.shape for name, value in item.items()}
            raise ShapeError(
                f"sequence {i} must have an input (steps, {width}), times (steps,) if any, and a class or values (steps,) as the "
                f"first one has; got {shapes}"
            )
        target = item["target"]
        if target.ndim == 0 and not (np.issubdtype(target.dtype, np.integer) and target >= 0):
            raise DataError(f"the class of sequence {i} must be a whole number from 0, got {target!r}")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            item = {name: torch.tensor(value.astype(np.float32) if value.ndim else int(value)) for name, value in item.items()}
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
        losses = {"total_loss": masked_mse(output[..., 0], batch["target"], length_mask(batch["lengths"], output.shape[1]))}
    else:
        wrong = (output.argmax(-1) != batch["target"]).float().mean()
        losses = {"total_loss": loss_fn(output, batch["target"]), "errors": wrong}
    if balance is None:
        return losses
    return losses | {"total_loss": losses["total_loss"] + BALANCE_WEIGHT * balance, "balance_loss": balance}


def _ask(model, batch):
    times = (batch["times"],) if "times" in batch else ()
    output = model(*times, batch["input"], batch["lengths"])
    return output if isinstance(output, tuple) else (output, None)


class SequenceTrainer(Trainer):
    """`Trainer` on batches of `collate_sequences`."""

    batch_losses = staticmethod(sequence_losses)

    @staticmethod
    def batch_weights(loss_fn, batch):
        """Values count by their valid steps, classes by their weights: the mean over an epoch is that over one great batch."""
        if batch["target"].ndim == 2:
            return {"total_loss": int(batch["lengths"].sum())}
        return {} if loss_fn.weight is None else {"total_loss": float(loss_fn.weight[batch["target"]].sum())}


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

    The rate is halved after more than ``plateau_epochs`` without a lesser validation loss, so never if ``patience`` ends the
    training before.

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
    check_whole(1, batch_size=batch_size, max_epochs=max_epochs, patience=patience, n_sorted=n_sorted)
    check_whole(0, plateau_epochs=plateau_epochs, seed=seed)
    if not (len(train) and len(validation)):
        raise DataError(f"sequences are needed to train on and to validate with, got {len(train)} and {len(validation)}")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=plateau_epochs)
    batches = SimilarLengths(_lengths(train), batch_size, n_sorted, seed)
    weights = None if class_weights is None else torch.as_tensor(np.asarray(class_weights), dtype=torch.float32)
    trainer = SequenceTrainer(model, torch.nn.CrossEntropyLoss(weights), optimizer, "cpu", None, schedule)
    loaders = DataLoader(train, batch_sampler=batches, collate_fn=collate_sequences), _in_order_of_length(validation, batch_size)
    history = trainer.fit_best(*loaders, max_epochs, save_dir, patience=patience, progress_bar=progress, seed=seed)
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
