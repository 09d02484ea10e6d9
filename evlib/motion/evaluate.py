"""How well activities are told: with a few labels, or with words alone; and beside it what needs no network.

Scores are accuracy and macro F1 over an explicit list of classes: the mean has as many terms whatever a split happens
to hold, and a class that is missing counts 0. Every method sees the same labelled windows.
"""

import copy

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from ..networks.classifier import evaluating
from ..networks.transformer import join_batches, summarise_tokens
from ..signals.errors import DataError, OptionError, ShapeError, require_extra, require_int, require_list
from ..signals.streams import stream
from ..training import loop
from .labels import label_group, map_labels
from .train import OVERLAP, MotionModel

BASELINES = ("features, linear probe", "features, logistic regression", "features, random forest", "ROCKET, ridge")
TREES, KERNELS = 300, 500
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
BANDS_HZ = 15
CLASSIFIER_EPOCHS, CLASSIFIER_BATCH = 60, 32


def class_scores(truth, told, classes):
    """Accuracy and macro F1 of labels, over the classes that are listed, whether a split has them or not.

    >>> class_scores(["a", "b"], ["a", "a"], ["a", "b", "c"])
    {'accuracy': 0.5, 'macro_f1': 0.2222222222222222}
    """
    truth, told = [np.asarray(values, dtype=str) for values in (truth, told)]
    if truth.shape != told.shape or not truth.size:
        raise ShapeError(f"a label told for each true one is wanted, got {told.shape} for {truth.shape}")
    if unknown := set(truth) - set(map(str, classes)):
        raise DataError(f"the truth holds {', '.join(sorted(unknown))}; the classes are {', '.join(map(str, classes))}")
    f1 = f1_score(truth, told, labels=list(map(str, classes)), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(truth, told)), "macro_f1": float(f1)}


def check_alike(train, test):
    """Refuse to judge by other channels, rates or lengths than those that were learnt from, or without labels."""
    for what in ("channels", "sampling_rate_hz", "duration_s"):
        learnt, judged = getattr(train, what), getattr(test, what)
        if learnt != judged:
            raise DataError(
                f"windows to judge need the {what} of those learnt from, {learnt}, got {judged} (another order?)"
            )
    if len(np.unique(train.labels)) < 2 or not len(test.labels):
        raise DataError("windows with labels of at least two kinds are wanted, to learn from and to judge by")


def draw_labelled(labels, share, seed=0):
    """Rows of a share of the windows: of each class the same number, max(1, share of all / classes).

    >>> len(draw_labelled(np.repeat(["a", "b"], 100), 0.1))
    20
    """
    if not 0 < share <= 1:
        raise OptionError(f"share must lie in (0, 1], got {share!r}")
    labels = np.asarray(labels)
    if not labels.size:
        raise DataError("there are no labels to draw from")
    kinds = np.unique(labels)
    each = max(1, int(len(labels) * share) // len(kinds))
    order = stream("labelled windows", seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == kind][:each] for kind in kinds]))


def motion_features(windows):
    """(windows, features): what is commonly computed by hand of each channel, of each sensor's length and of pairs.

    Mean, deviation, quantiles, mean step, log power up to 15 Hz, and the correlations of the channels.
    """
    x = windows.x.astype(np.float64)
    channels = x.shape[2]
    parts = [x.mean(1), x.std(1), *np.quantile(x, QUANTILES, axis=1), np.abs(np.diff(x, axis=1)).mean(1)]
    centred = x - x.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, axis=1)) ** 2 / x.shape[1]
    frequency = np.fft.rfftfreq(x.shape[1], 1 / windows.sampling_rate_hz)
    band = (frequency > 0) & (frequency <= BANDS_HZ)
    parts.append(np.log(power[:, band] + 1e-6).reshape(len(x), -1))
    if channels > 1:
        upper = np.triu_indices(channels, 1)
        deviation = np.maximum(x.std(1), 1e-9)
        correlation = np.einsum("ntc,ntd->ncd", centred, centred) / x.shape[1]
        parts.append((correlation / deviation[:, :, None] / deviation[:, None])[:, upper[0], upper[1]])
    return np.concatenate(parts, 1)


def rocket_features(train, test, n_kernels=KERNELS, seed=0):
    """Random convolutions (ROCKET, https://arxiv.org/abs/1910.13051) of each channel, for both (extra ``rocket``)."""
    rocket = require_extra("pyts.transformation", "rocket").ROCKET
    found = ([], [])
    for k in range(train.x.shape[2]):
        kernels = rocket(n_kernels=n_kernels, random_state=seed * 100 + k).fit(train.x[:1, :, k].astype(np.float64))
        for part, windows in zip(found, (train, test), strict=True):
            part.append(kernels.transform(windows.x[..., k].astype(np.float64)))
    return [np.hstack(part) for part in found]


def linear_probe(labels):
    """A linear classifier of features, each on one scale, for so few labels as these.

    Linear discriminants, their covariance shrunk as Ledoit and Wolf have it (2004): with a few labels and many more
    numbers they know what logistic regression does not, how the numbers go together. One label of a kind shows no
    spread: then it is logistic regression after all.
    """
    if np.unique(labels, return_counts=True)[1].min() > 1:
        return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return logistic_regression()


def logistic_regression():
    """Logistic regression on features of one scale each."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def baselines(labels, seed=0):
    """What needs no pretraining, in the order of ``BASELINES``: which features, and the classifier of them."""
    forest = RandomForestClassifier(TREES, random_state=seed)
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 4, 6)))
    of_features = [("features", classifier) for classifier in (linear_probe(labels), logistic_regression(), forest)]
    return dict(zip(BASELINES, [*of_features, ("rocket", ridge)], strict=True))


def label_efficiency(train, test, models, shares=(0.01, 0.1), seeds=(0, 1, 2, 3, 4), methods=None, progress=True):
    """Macro F1 and accuracy of every method at every share of labels, one row for each draw of labels.

    Parameters
    ----------
    train, test : `MotionWindows` with labels; those of ``train`` are drawn from
    models : a `MotionModel` for each seed, pretrained on windows without labels
    shares : of the training windows that are labelled
    seeds : of the labels and of what is trained
    methods : names, of all that `method_names` gives
    progress : show a progress bar

    Returns
    -------
    pandas table : method, share, n_labels, seed, accuracy, macro_f1
    """
    import pandas as pd
    from tqdm.auto import tqdm

    methods = list(method_names() if methods is None else methods)
    if unknown := set(methods) - set(method_names()):
        raise OptionError(f"unknown methods {', '.join(sorted(unknown))}; known are {', '.join(method_names())}")
    if len(models) != len(seeds):
        raise OptionError(f"a model for each of {len(seeds)} seeds is wanted, got {len(models)}")
    check_alike(train, test)
    classes, rows = sorted(set(train.labels) | set(test.labels)), []
    features = {"features": [motion_features(part) for part in (train, test)]}
    if any("ROCKET" in method for method in methods):
        features["rocket"] = rocket_features(train, test)
    for seed, model in zip(tqdm(seeds, desc="draws of labels", disable=not progress), models, strict=True):
        blank = model.untrained(seed)
        probed = {name: one for name, one in ((PROBE, model), (BLANK, blank)) if name in methods}
        mine = features | {name: [one.embed(part, True) for part in (train, test)] for name, one in probed.items()}
        for share in shares:
            chosen = draw_labelled(train.labels, share, seed)
            labelled = train[chosen]
            classifiers = {name: (name, linear_probe(labelled.labels)) for name in probed} | baselines(
                labelled.labels, seed
            )
            for method in methods:
                if method in (SCRATCH, TUNED):
                    told = train_on_labels(model if method == TUNED else blank, labelled, classes, seed).tell(test)
                else:
                    which, classifier = classifiers[method]
                    learn, judge = mine[which]
                    told = classifier.fit(learn[chosen], labelled.labels).predict(judge)
                rows.append({"method": method, "share": share, "n_labels": len(chosen), "seed": seed})
                rows[-1] |= class_scores(test.labels, told, classes)
    return pd.DataFrame(rows)


PROBE, TUNED = "pretrained encoder, linear probe", "pretrained encoder, fine-tuned"
SCRATCH, BLANK = "same encoder from scratch", "untrained encoder, linear probe"


def method_names():
    """What `label_efficiency` compares."""
    return (PROBE, TUNED, SCRATCH, BLANK, *BASELINES)


class MotionClassifier(nn.Module):
    """An encoder and a linear layer on what its tokens come to, the same numbers that a probe reads
    (`summarise_tokens`)."""

    def __init__(self, motion_model, channels, classes):
        super().__init__()
        self.channels = tuple(channels)
        self.motion_model, self.encoder, self.classes = motion_model, motion_model.encoder, np.asarray(classes)
        self.head = nn.Linear(len(self.channels) * 3 * self.encoder.output_size, len(classes))

    def forward(self, batch):
        return self.head(summarise_tokens(self.encoder(batch)))

    def tell(self, windows):
        """The class of each window; of the same channels as those learnt from."""
        if windows.channels != self.channels:
            raise DataError(
                f"the classifier reads the channels {', '.join(self.channels)}, got {', '.join(windows.channels)}"
            )
        with evaluating(self):
            logits = torch.cat([self(batch) for batch in self.motion_model.batches(windows, OVERLAP)])
        return self.classes[logits.argmax(1).numpy()]


def train_on_labels(start, labelled, classes, seed=0, lr=1e-3, max_epochs=CLASSIFIER_EPOCHS):
    """Train a copy of a `MotionModel`'s encoder and a linear layer on labelled windows, all of it, for a fixed time.

    There is no label to spare for early stopping: every start is trained alike, with a rate that falls to zero.
    """
    require_int(1, max_epochs=max_epochs)
    if not len(labelled.labels) or not set(labelled.labels) <= set(classes):
        raise DataError(f"windows labelled with some of {', '.join(map(str, classes))} are wanted, got {labelled!r}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MotionClassifier(copy.deepcopy(start), labelled.channels, classes)
        batch = join_batches(list(start.batches(labelled, OVERLAP)))
        target = torch.tensor([list(classes).index(label) for label in labelled.labels])
        optimizer = torch.optim.AdamW(model.parameters(), lr)
        batches = ShuffledBatches(batch | {"target": target}, CLASSIFIER_BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max_epochs * len(batches))

        def losses(model, batch):
            return {"total_loss": nn.functional.cross_entropy(model(batch), batch["target"])}

        loop.train(
            model,
            losses,
            batches,
            None,
            optimizer,
            num_epochs=max_epochs,
            scheduler=schedule,
            step_every_batch=True,
            keep_best=False,
            progress=False,
            seed=None,
        )
    return model.eval()


class ShuffledBatches:
    """Batches of tensors with one row for each item, in another order each time."""

    def __init__(self, tensors, batch_size):
        self.tensors, self.batch_size, self.n = tensors, batch_size, len(next(iter(tensors.values())))

    def __len__(self):
        return -(-self.n // self.batch_size)

    def __iter__(self):
        for rows in torch.randperm(self.n).split(self.batch_size):
            yield {name: tensor[rows] for name, tensor in self.tensors.items()}


def zero_shot(model: MotionModel, windows, labels=None):
    """Tell activities by words alone.

    Parameters
    ----------
    model : aligned with words, see `evlib.motion.train.align_motion`
    windows : `MotionWindows` with labels
    labels : words to choose from. None: *closed set*, the labels of these windows. Others: *open set*, all labels of a
        bank, right if they mean the same (one group of synonyms)

    Returns
    -------
    told : (windows,) the word chosen for each, in a closed set one of the windows' own labels
    scores : dict with accuracy and macro_f1 over the windows' own labels, and chance (a guess among the words of a
        closed set, among the groups of an open one)
    """
    require_list(labels=labels)
    own = sorted(set(map(str, windows.labels)))
    if not own:
        raise DataError("windows with labels are wanted, to judge by")
    bank = own if labels is None else list(labels)
    told = np.array(bank)[model.scores(windows, bank).argmax(1)]
    if labels is None:
        return told, class_scores(windows.labels, told, own) | {"chance": 1 / len(bank)}
    # A word of the true label's group is right, whichever of them it is; any other stands for the only own label of its
    # group.
    group = {label: label_group(label) for label in {*own, *bank}}
    meant = np.array([label or "none of these" for label in map_labels(told, own)], dtype=object)
    right = np.array([group[a] == group[str(b)] for a, b in zip(told, windows.labels, strict=True)])
    meant[right] = windows.labels[right]
    return told, class_scores(windows.labels, meant, own) | {"chance": 1 / len({group[label] for label in bank})}
