"""Anomalies: windows unlike those of training, which were all normal.

Two things make a window strange: hidden patches that the encoder cannot predict from the others, and an embedding in a
thinly populated place (the local outlier factor, Breunig et al. 2000, https://doi.org/10.1145/335191.335388). Each is
counted in standard deviations of normal windows of people who were held out; the stranger of the two decides.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor

from ..networks.classifier import evaluating
from ..networks.pretext import MaskedPatchModel
from ..networks.transformer import log_spectrum
from ..signals.errors import DataError, OptionError, require, require_int
from ..training.checkpoints import save_checkpoint
from ..training.masked import PART_WEIGHTS
from ..training.windows import Windows
from .train import MotionModel, held_out, read_motion_model

# Every token is hidden once: so many passes, in each of which as large a share of the tokens is hidden.
PASSES = 4
# Neighbours of a window that say how densely populated its place is.
NEIGHBOURS = 20


@dataclass(frozen=True, eq=False)
class AnomalyDetector:
    """Tells windows that are unlike those of training; made by `fit_anomaly`.

    Attributes
    ----------
    model : of the first stage (`pretrain_motion`)
    channels : names, in the order of the features
    normal : (n, features) embeddings of normal windows
    level : (2, 2) mean and standard deviation of the logarithms of both scores, of normal windows that were held out
    threshold : of the score, in standard deviations
    """

    model: MotionModel
    channels: tuple
    normal: np.ndarray
    level: np.ndarray
    threshold: float

    def __post_init__(self):
        width = len(self.channels) * 3 * self.model.encoder.output_size
        fits = isinstance(self.model.model, MaskedPatchModel) and np.shape(self.normal)[1:] == (width,)
        fits = fits and len(self.normal) > NEIGHBOURS and np.shape(self.level) == (2, 2)
        numbers = (self.normal, self.level, self.threshold, *self._scale) if fits else ()
        fits = fits and all(np.isrealobj(one) and np.isfinite(one).all() for one in numbers)
        require(fits and (self.level[1] > 0).all(), DataError, "these are no numbers of a detector of anomalies")

    @property
    def _scale(self):
        """Mean and deviation of the normal embeddings."""
        with np.errstate(all="ignore"):
            return self.normal.mean(axis=0), self.normal.std(axis=0) + np.finfo(np.float32).tiny

    @cached_property
    def _density(self):
        mean, scale = self._scale
        return mean, scale, LocalOutlierFactor(NEIGHBOURS, novelty=True).fit((self.normal - mean) / scale)

    def parts(self, windows: Windows) -> np.ndarray:
        """(windows, 2): how badly hidden patches were predicted, and how alone the embedding is, in standard
        deviations of normal windows."""
        return (_log_parts(self, windows.with_channels(self.channels)) - self.level[0]) / self.level[1]

    def scores(self, windows: Windows) -> np.ndarray:
        """(windows,) how strange each is: the larger of its `parts`."""
        return self.parts(windows).max(axis=1)

    def predict(self, windows: Windows) -> np.ndarray:
        """(windows,) True where a window is stranger than the threshold."""
        return self.scores(windows) > self.threshold

    def save(self, path: str | Path):
        """Write the detector; `load_anomaly` reads it."""
        arrays = {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in ("normal", "level")}
        more = {"channels": list(self.channels), "threshold": self.threshold, "patch_s": self.model.patch_s} | arrays
        save_checkpoint(path, self.model.model, self.model.metadata, **more)


def load_anomaly(path: str | Path, text=None) -> AnomalyDetector:
    """Read what `AnomalyDetector.save` has written; ``text``: see `load_motion_model`.

    Raises
    ------
    DataError : no such file, or one that does not hold a detector of anomalies
    """
    model, content = read_motion_model(path, text)
    try:
        normal, level = content["normal"].numpy(), content["level"].numpy()
        channels = tuple(map(str, content["channels"]))
        return AnomalyDetector(model, channels, normal, level, float(content["threshold"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} holds no detector of anomalies, as AnomalyDetector.save writes it: {error}") from error


def fit_anomaly(
    start: MotionModel, normal: Windows, *, false_alarm_rate: float = 0.05, seed: int = 0
) -> AnomalyDetector:
    """Learn what is normal, from windows that all are.

    Parameters
    ----------
    start : encoder of the first stage (`pretrain_motion`), best trained on the same normal windows
    normal : a fifth of the people (without names, of the windows) is held out and sets the threshold
    false_alarm_rate : share of the normal windows of new people that may be told by mistake
    seed : of what is held out

    Raises
    ------
    OptionError : a rate that so few held-out windows cannot promise; an encoder that is aligned with words
    DataError : too few windows, or those of a single person

    Examples
    --------
    >>> from evlib.motion.train import pretrain_motion
    >>> from evlib.motion.windows import make_motion
    >>> normal = make_motion(n_people=5, windows_per_activity=10, activities=("walking", "standing"))
    >>> start = pretrain_motion([normal], [normal], patch_s=0.64, size="nano", max_epochs=1)
    >>> detector = fit_anomaly(start, normal, false_alarm_rate=0.1)
    >>> lying = make_motion(n_people=1, windows_per_activity=10, activities=("lying",))
    >>> bool(detector.predict(lying).all())
    True
    """
    message = "hidden patches are predicted by a model of the first stage: pretrain_motion(...)"
    require(isinstance(start.model, MaskedPatchModel), OptionError, message)
    require_int(0, seed=seed)
    rows, held = (normal[part] for part in held_out(normal, seed))
    message = f"{normal.name}: more than {NEIGHBOURS} windows are wanted beside those held out, got {len(rows)}"
    require(len(rows) > NEIGHBOURS and len(held) > 1, DataError, message)
    # As many of the held-out windows as may be above the threshold, and the next one sets it (conformal prediction).
    above = int((len(held) + 1) * false_alarm_rate) if 0 < false_alarm_rate < 1 else 0
    hint = (
        f"the {len(held)} windows held out can promise {1 / (len(held) + 1):.2g} at best; more windows, or a larger one"
    )
    require(above >= 1, OptionError, f"false_alarm_rate {false_alarm_rate!r} is no share that can be promised: {hint}")
    blank = np.array([[0.0, 0.0], [1.0, 1.0]])
    detector = AnomalyDetector(start, normal.channels, start.embed(rows, channels=True), blank, 0.0)
    parts = _log_parts(detector, held)
    level = np.stack([parts.mean(axis=0), parts.std(axis=0) + 1e-12])
    scores = np.sort(((parts - level[0]) / level[1]).max(axis=1))
    return AnomalyDetector(start, normal.channels, detector.normal, level, float(scores[-above]))


def _log_parts(detector, windows):
    """(windows, 2) logarithms of the error of hidden patches and of the local outlier factor."""
    mean, scale, density = detector._density
    alone = -density.score_samples((detector.model.embed(windows, channels=True) - mean) / scale)
    return np.log(np.stack([hidden_error(detector.model, windows), alone], axis=1))


def hidden_error(model: MotionModel, windows: Windows) -> np.ndarray:
    """(windows,) mean error of tokens that the model of the first stage has to predict from the others, each once."""
    errors = []
    with evaluating(model.model):
        for batch in model.batches(windows):
            patches = batch["input"].transpose(2, 3)
            truth = {"shape": patches, "stats": batch["stats"], "spectrum": log_spectrum(patches)}
            # Diagonals of patches and channels: what is hidden in one channel is seen in others.
            number = np.add.outer(np.arange(patches.shape[1]), np.arange(patches.shape[2]))
            error = torch.zeros(len(patches))
            for k in range(PASSES):
                hidden = torch.from_numpy(number % PASSES == k).expand(len(patches), -1, -1)
                predicted = model.model(batch, hidden)
                for name, weight in PART_WEIGHTS.items():
                    wrong = (predicted[name] - truth[name]).square().mean(-1)
                    error += weight * (wrong * hidden).sum((1, 2)) / number.size
            errors.append(error)
    return torch.cat(errors).numpy()
