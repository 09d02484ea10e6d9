"""How well activities are recognised: from a few labels, or from words alone, beside methods that need no pretraining.

Scores are accuracy and macro F1 over an explicit list of classes, so the mean has the same terms whichever classes a
split holds; a class that is missing from the split counts 0. All methods see the same labelled windows.
"""

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..scoring.statistics import draw_rows
from ..signals.errors import DataError, OptionError, require, require_extra, require_known, require_list
from ..signals.streams import stream
from ..training.linear import linear_probe, logistic_regression
from ..training.windows import Windows
from .classify import fit_classifier
from .labels import label_group, map_labels
from .train import MotionModel

# The methods that `label_efficiency` compares: with a pretrained encoder, with the same encoder untrained...
PROBE, TUNED = "pretrained encoder, linear probe", "pretrained encoder, fine-tuned"
SCRATCH, BLANK = "same encoder from scratch", "untrained encoder, linear probe"
# ... and without any.
BASELINES = ("features, linear probe", "features, logistic regression", "features, random forest", "ROCKET, ridge")
METHODS = (PROBE, TUNED, SCRATCH, BLANK, *BASELINES)
# Trees of the random forest; random kernels of ROCKET for each channel.
TREES, KERNELS = 300, 500
# Quantiles among the features made by hand, and the highest frequency in Hz of their spectrum: people move more slowly.
QUANTILES, BANDS_HZ = (0.0, 0.25, 0.5, 0.75, 1.0), 15


def class_scores(truth, predicted, classes) -> dict:
    """Accuracy and macro F1 of labels over the listed classes.

    >>> class_scores(["a", "b"], ["a", "a"], ["a", "b", "c"])
    {'accuracy': 0.5, 'macro_f1': 0.2222222222222222}
    """
    truth, predicted, classes = [np.asarray(values, dtype=str) for values in (truth, predicted, list(classes))]
    f1 = f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": float(f1)}


def draw_labelled(labels, share: float, seed: int = 0) -> np.ndarray:
    """Rows of a share of the windows: of each class the same number, max(1, share of all / classes).

    >>> len(draw_labelled(np.repeat(["a", "b"], 100), 0.1))
    20
    """
    if not 0 < share <= 1:
        raise OptionError(f"share must lie in (0, 1], got {share!r}")
    labels = np.asarray(labels)
    each = max(1, int(len(labels) * share) // len(np.unique(labels)))
    return draw_rows(labels, each, stream("labelled windows", seed))


def motion_features(windows: Windows) -> np.ndarray:
    """(windows, features): common features made by hand.

    Of each channel the mean, standard deviation, quantiles, mean absolute step and log power up to 15 Hz; and the
    correlation of each pair of channels.
    """
    x = windows.x.astype(np.float64)
    n, channels = x.shape[1:]
    centred = x - x.mean(1, keepdims=True)
    parts = [x.mean(1), x.std(1), *np.quantile(x, QUANTILES, axis=1), np.abs(np.diff(x, axis=1)).mean(1)]
    frequency = np.fft.rfftfreq(n, 1 / windows.sampling_rate_hz)
    power = np.abs(np.fft.rfft(centred, axis=1)[:, (frequency > 0) & (frequency <= BANDS_HZ)]) ** 2 / n
    parts.append(np.log(power + 1e-6).reshape(len(x), -1))
    deviation = np.maximum(x.std(1), 1e-9)
    correlation = np.einsum("ntc,ntd->ncd", centred, centred) / n / deviation[:, :, None] / deviation[:, None]
    return np.concatenate([*parts, correlation[(slice(None), *np.triu_indices(channels, 1))]], 1)


def rocket_features(train: Windows, test: Windows, n_kernels: int = KERNELS) -> list:
    """Random convolutions of each channel for both (ROCKET, https://arxiv.org/abs/1910.13051; extra ``rocket``)."""
    rocket = require_extra("pyts.transformation", "rocket").ROCKET
    x = [windows.x.astype(np.float64) for windows in (train, test)]
    kernels = [rocket(n_kernels, random_state=k).fit(x[0][:1, :, k]) for k in range(x[0].shape[2])]
    return [np.hstack([one.transform(part[..., k]) for k, one in enumerate(kernels)]) for part in x]


def classifiers(labels, seed: int = 0) -> dict:
    """A classifier for each method that reads features, by the name of the method."""
    probes = [linear_probe(labels) for _ in range(3)]
    forest = RandomForestClassifier(TREES, random_state=seed)
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 4, 6)))
    return dict(zip((PROBE, BLANK, *BASELINES), [*probes, logistic_regression(), forest, ridge], strict=True))


def label_efficiency(
    train: Windows,
    test: Windows,
    models: list[MotionModel],
    shares=(0.01, 0.1),
    seeds=(0, 1, 2, 3, 4),
    methods=METHODS,
    progress: bool = True,
):
    """Macro F1 and accuracy of every method at every share of labels, a row for each draw of labels.

    Parameters
    ----------
    train, test : `Windows` with labels; those of ``train`` are drawn from
    models : a `MotionModel` for each seed, pretrained on windows without labels
    shares : of the training windows that are labelled
    seeds : of the labels and of what is trained
    methods : names out of ``METHODS``
    progress : show a progress bar

    Returns
    -------
    pandas table : method, share, n_labels, seed, accuracy, macro_f1

    Raises
    ------
    OptionError : unknown methods, another number of models than of seeds
    DataError : windows without labels; other channels, rates or lengths in ``test`` than in ``train``
    """
    import pandas as pd
    from tqdm.auto import tqdm

    require_known(methods, METHODS, what="method")
    if len(models) != len(seeds):
        raise OptionError(f"a model for each of {len(seeds)} seeds is wanted, got {len(models)}")
    for what in ("channels", "sampling_rate_hz", "duration_s"):
        wanted, got = getattr(train, what), getattr(test, what)
        message = f"the {what} of the training windows are {wanted}, of the test windows {got} (another order?)"
        require(wanted == got, DataError, message)
    if len(np.unique(train.labels)) < 2 or not len(test.labels):
        raise DataError("both training and test windows need labels, those for training of at least two kinds")
    classes, rows = sorted(set(train.labels) | set(test.labels)), []
    # Features of the training and of the test windows, by method.
    features = dict.fromkeys(BASELINES[:-1], [motion_features(part) for part in (train, test)])
    if BASELINES[-1] in methods:
        features[BASELINES[-1]] = rocket_features(train, test)
    for seed, model in zip(tqdm(seeds, desc="draws of labels", disable=not progress), models, strict=True):
        blank = model.untrained(seed)
        tuned = {TUNED: model, SCRATCH: blank}
        for name, one in ((PROBE, model), (BLANK, blank)):
            if name in methods:
                features[name] = [one.embed(part, channels=True) for part in (train, test)]
        for share in shares:
            chosen = draw_labelled(train.labels, share, seed)
            labelled = train[chosen]
            for method in methods:
                if method in tuned:
                    predicted = fit_classifier(tuned[method], labelled, full=True, seed=seed).predict(test)
                else:
                    learn, judge = features[method]
                    classifier = classifiers(labelled.labels, seed)[method]
                    predicted = classifier.fit(learn[chosen], labelled.labels).predict(judge)
                row = {"method": method, "share": share, "n_labels": len(chosen), "seed": seed}
                rows.append(row | class_scores(test.labels, predicted, classes))
    return pd.DataFrame(rows)


def zero_shot(model: MotionModel, windows: Windows, labels: list[str] | None = None) -> tuple[np.ndarray, dict]:
    """Recognise activities by words alone.

    Parameters
    ----------
    model : aligned with words, see `evlib.motion.train.align_motion`
    windows : `Windows` with labels
    labels : words to choose from. None is a *closed set*, the labels of these windows. A list is an *open set*: a
        prediction is right if it means the same as the true label (one group of synonyms)

    Returns
    -------
    predicted : (windows,) the word with the highest score for each
    scores : dict with accuracy and macro_f1 over the windows' own labels, and chance (a guess among the words of a
        closed set, among the groups of an open one)

    Raises
    ------
    OptionError : one text for ``labels``, a model that is not aligned
    DataError : windows without labels
    """
    require_list(labels=() if labels is None else labels)
    own = sorted(set(map(str, windows.labels)))
    if not own:
        raise DataError("windows with labels are wanted, to score the predictions by")
    bank = own if labels is None else list(labels)
    predicted = np.array(bank)[model.scores(windows, bank).argmax(1)]
    if labels is None:
        return predicted, class_scores(windows.labels, predicted, own) | {"chance": 1 / len(bank)}
    # Any word of the true label's group is right; another word counts as the only own label of its group, if any.
    group = {label: label_group(label) for label in {*own, *bank}}
    meant = np.array([label or "none of these" for label in map_labels(predicted, own)], dtype=object)
    right = np.array([group[a] == group[str(b)] for a, b in zip(predicted, windows.labels, strict=True)])
    meant[right] = windows.labels[right]
    return predicted, class_scores(windows.labels, meant, own) | {"chance": 1 / len(set(map(group.get, bank)))}
