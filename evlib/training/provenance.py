"""Provenance: what a training was made of, so that only the same run goes on from a checkpoint, and nothing is lost."""

import hashlib
import logging
import reprlib
from functools import partial
from numbers import Number
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..signals.errors import OptionError, require
from .checkpoints import BEST_NAME, CHECKPOINT_NAME, plain

# Bytes of an array that are hashed; of a larger one, rows spread evenly.
MOST_BYTES = 1 << 28


def describe_run(model, train_loader, val_loader, optimizer, scheduler, loss_fn, options: dict) -> dict:
    """What a training and the one that goes on with it must share, as plain values: data, batches, loss and options.

    ``options`` : further ones, by name
    """
    named = {"optimizer": optimizer, "scheduler": scheduler, "loss": loss_fn}
    about = {name: getattr(part, "__qualname__", type(part).__qualname__) for name, part in named.items()}
    about |= {f"{name} of the model": value for name, value in getattr(model, "config", {}).items()}
    about |= {f"{name} of the optimizer": value for name, value in optimizer.defaults.items()}
    about |= {f"{name} of the loss": value for name, value in _settings(loss_fn).items()}
    about |= {"training data": fingerprint(train_loader), "validation data": fingerprint(val_loader)}
    return plain(about | options)


def _settings(loss_fn):
    """The plain attributes of a loss."""
    values = loss_fn.keywords if isinstance(loss_fn, partial) else getattr(loss_fn, "__dict__", {})
    named = {name: value for name, value in values.items() if name[0] != "_" and name != "training"}
    return {name: value for name, value in named.items() if isinstance(value, str | Number | None)}


def fingerprint(data) -> str:
    """A hash of what a loader, a dataset or a list of batches holds: its arrays, numbers and texts, in their order.

    Nothing is drawn from it. What has no values in memory, such as a function, counts by its name alone, and what
    changes from epoch to epoch (an attribute with "epoch" in its name, a tensor that is one number) does not count.

    >>> batches = [{"input": torch.ones(2, 3)}, {"input": torch.zeros(2, 3)}]
    >>> fingerprint(batches) == fingerprint(list(batches)) != fingerprint(batches[::-1])
    True
    """
    # What was seen is kept: the id of what is gone would be used again.
    digest, seen = hashlib.blake2b(digest_size=8), {}

    def add(value):
        if isinstance(value, str | bytes | Number | None):
            return digest.update(repr(value).encode())
        if id(value) in seen:
            return None
        seen[id(value)] = value
        kind = getattr(value, "__qualname__", type(value).__qualname__)
        digest.update(kind.encode())
        if torch.is_tensor(value):
            value = value.detach().cpu()
            value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
        if isinstance(value, np.ndarray):
            if value.ndim and value.dtype.kind == "O":
                add(value.tolist())
            elif value.ndim:
                digest.update(repr((value.dtype, value.shape)).encode())
                step = -(-value.nbytes // MOST_BYTES) or 1
                digest.update(np.ascontiguousarray(value[::step]).tobytes())
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, dict):
            for name, item in value.items():
                add(name)
                add(item)
        elif isinstance(value, DataLoader):
            add([value.dataset, value.batch_size, value.drop_last, value.sampler, value.batch_sampler])
        elif isinstance(value, Dataset | Sampler):
            # Lightning leaves names that begin with two underscores.
            add({name: item for name, item in vars(value).items() if "epoch" not in name and name[:2] != "__"})
        return None

    add(data)
    return digest.hexdigest()


def check_same_run(path: str | Path, before, now: dict) -> None:
    """Refuse to go on from a checkpoint of a run with other data or options.

    Raises
    ------
    OptionError : what differs
    """
    before = before if isinstance(before, dict) else {}
    names = [name for name in now | before if now.get(name) != before.get(name)]
    other = "; ".join(f"{name} {now.get(name)!r}, was {reprlib.repr(before.get(name))}" for name in names)
    hint = "resume with what it was, or begin a new run in another folder"
    require(not names, OptionError, f"the run of {path} had other settings: {other}; {hint}")


def make_room(folder: Path, refuse: bool) -> None:
    """Keep the models of an earlier run in a folder from being replaced: refuse, or move them into a folder of their
    own inside of it.

    Raises
    ------
    OptionError : there are some, and they are not to be moved
    """
    old = [path for path in folder.glob("*.pth") if path.name == BEST_NAME or CHECKPOINT_NAME.fullmatch(path.name)]
    if not old:
        return
    message = f"{folder} holds {old[0].name}: resume=True goes on with that run, a new one needs another folder"
    require(not refuse, OptionError, message)
    number = 1 + sum(path.name.startswith("earlier_run_") for path in folder.iterdir())
    place = folder / f"earlier_run_{number}"
    place.mkdir()
    for path in old:
        path.rename(place / path.name)
    logging.getLogger(__name__).warning("the models of an earlier run in %s are now in %s", folder, place)
