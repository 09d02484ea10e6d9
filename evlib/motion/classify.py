"""Activities from a few labels: a linear layer on an encoder, which stays as it is or learns with it.

The encoder may have learned from other people, at another rate, from another set of sensors. Where it was aligned with
words, they go on to decide if they are right more often than what was learned from the labels.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold
from torch import nn

from ..networks.seeds import seeded
from ..networks.transformer import DualBranchEncoder, join_batches, summarise_tokens
from ..signals.errors import DataError, require
from ..training.checkpoints import save_checkpoint
from ..training.linear import linear_logits, linear_probe, linear_weights
from ..training.loop import train_one_cycle
from ..training.windows import Windows
from .align import TextAlignedModel
from .train import OVERLAP, MotionModel, read_motion_model

# Epochs, windows in a batch and learning rate of fine-tuning: long enough for a few labels, the same for every start.
EPOCHS, BATCH, LR = 60, 32, 1e-3
# Words that are right about fewer of the labels do not decide: one example of each activity is better then.
MOSTLY = 0.5
# Parts of the labels that are held out in turn, to weigh words against labels.
N_PARTS = 5


@dataclass(frozen=True, eq=False)
class ActivityClassifier:
    """An encoder and a linear layer on the summary of its tokens; made by `fit_classifier`.

    Attributes
    ----------
    model : the encoder, and the words where it was aligned with them
    weights : (features + 1, labels) of the linear layer
    labels, channels : names, in the order of the logits and of the features
    by_words : whether the words decide, and not the linear layer
    """

    model: MotionModel
    weights: np.ndarray
    labels: tuple
    channels: tuple
    by_words: bool = False

    def __post_init__(self):
        width = len(self.channels) * 3 * self.model.encoder.output_size + 1
        fits = np.shape(self.weights) == (width, len(self.labels)) and np.isfinite(self.weights).all()
        message = f"the linear layer must be {width} x {len(self.labels)} finite numbers, got {np.shape(self.weights)}"
        require(fits, DataError, message)

    def scores(self, windows: Windows) -> np.ndarray:
        """(windows, labels) log probabilities; channels are found by name."""
        windows = windows.with_channels(self.channels)
        if self.by_words:
            # As sharp as in training.
            logits = float(self.model.aligned.log_scale.detach().exp()) * self.model.scores(windows, list(self.labels))
        else:
            logits = linear_logits(self.model.embed(windows, channels=True), self.weights)
        return log_softmax(logits, axis=1)

    def predict(self, windows: Windows) -> np.ndarray:
        """(windows,) the most likely label of each."""
        return np.array(self.labels)[self.scores(windows).argmax(axis=1)]

    def save(self, path: str | Path):
        """Write encoder and linear layer; `load_classifier` reads them."""
        more: dict[str, Any] = {"labels": list(self.labels), "channels": list(self.channels)}
        more |= {"patch_s": self.model.patch_s, "weights": torch.from_numpy(self.weights), "by_words": self.by_words}
        save_checkpoint(path, self.model.model, self.model.metadata, **more)


def load_classifier(path: str | Path, text=None) -> ActivityClassifier:
    """Read what `ActivityClassifier.save` has written; ``text``: see `load_motion_model`.

    Raises
    ------
    DataError : no such file, or one that does not hold a classifier
    """
    model, content = read_motion_model(path, text)
    try:
        labels, channels = (tuple(map(str, content[name])) for name in ("labels", "channels"))
        return ActivityClassifier(model, content["weights"].numpy(), labels, channels, bool(content["by_words"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} holds no classifier, as ActivityClassifier.save writes it: {error}") from error


def fit_classifier(start: MotionModel, windows: Windows, *, full: bool = False, seed: int = 0) -> ActivityClassifier:
    """Learn to tell activities from a few labelled windows, of people or sensors that the encoder may never have seen.

    Parameters
    ----------
    start : pretrained (`pretrain_motion`), or also aligned with words (`fit_motion`). Words go on to decide if they are
        right about most of these windows, and about more than a linear layer about those that it did not learn from
    windows : with labels
    full : True trains the encoder too; better with hundreds of labels, worse with a dozen
    seed : of fine-tuning, and of what is held out to compare it with the words

    Raises
    ------
    DataError : windows without labels of two kinds

    Examples
    --------
    >>> from evlib.motion.train import pretrain_motion
    >>> from evlib.motion.windows import make_motion
    >>> phone, watch = (make_motion(place, 3, 4, places=(place,)) for place in ("waist", "wrist"))
    >>> start = pretrain_motion([phone], [phone], patch_s=0.64, size="nano", max_epochs=1)
    >>> classifier = fit_classifier(start, watch[::2])
    >>> classifier.predict(watch[1::2]).shape
    (54,)
    """
    labels = windows.labels.astype(str)
    names = sorted(set(labels))
    message = f"{windows.name}: windows with labels of two kinds at least are wanted, got {names or 'none'}"
    require(len(names) > 1, DataError, message)
    if full:
        model, weights = _fine_tuned(start, windows, names, seed)
        return ActivityClassifier(model, weights, tuple(names), windows.channels)
    features = start.embed(windows, channels=True)
    weights = linear_weights(linear_probe(labels).fit(features, labels))
    words = isinstance(start.model, TextAlignedModel)
    known = np.mean(start.predict(windows, names) == labels) if words else 0.0
    by_words = known > max(MOSTLY, _accuracy(features, labels, seed))
    return ActivityClassifier(start, weights, tuple(names), windows.channels, bool(by_words))


def _accuracy(features, labels, seed):
    """Share of the windows that a linear layer is right about which has not learned from them."""
    rarest = np.unique(labels, return_counts=True)[1].min()
    if rarest == 1:  # nothing can be held out
        return 0.0
    parts, right = StratifiedKFold(min(N_PARTS, rarest), shuffle=True, random_state=seed), 0
    for kept, held in parts.split(features, labels):
        fitted = linear_probe(labels[kept]).fit(features[kept], labels[kept])
        right += np.sum(fitted.predict(features[held]) == labels[held])
    return right / len(labels)


class _Network(nn.Module):
    """An encoder and a linear layer on the summary of its tokens."""

    def __init__(self, encoder: DualBranchEncoder, n_channels: int, n_labels: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(n_channels * 3 * encoder.output_size, n_labels)

    def forward(self, batch: dict) -> torch.Tensor:
        """A batch of `evlib.networks.transformer.make_batch` -> logits (batch, labels)."""
        return self.head(summarise_tokens(self.encoder(batch)))


def _fine_tuned(start, windows, names, seed):
    """A copy of a model that was trained with a linear layer, and the weights of that layer.

    No label is spared for early stopping: every start is trained for equally long.
    """
    model = replace(start, model=copy.deepcopy(start.model))
    with seeded(seed):
        network = _Network(model.encoder, len(windows.channels), len(names))
    batch: dict[str, Any] = join_batches(list(start.batches(windows, OVERLAP)))
    batch["target"] = torch.from_numpy(np.searchsorted(names, windows.labels.astype(str)))

    def losses(network, batch):
        return {"total_loss": nn.functional.cross_entropy(network(batch), batch["target"])}

    train_one_cycle(network, losses, batch, EPOCHS, BATCH, LR, seed)
    weights = torch.cat([network.head.weight, network.head.bias[:, None]], dim=1).detach().T
    return model, weights.double().numpy()
