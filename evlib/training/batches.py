"""Batches of patches drawn from windows of several data sets.

Every batch is drawn from one data set: nothing is padded, and a contrastive loss cannot be lowered by recognising the
data set. A data set is drawn with a probability proportional to the square root of its size, so that small ones are
seen too. A batch follows from the seed, the epoch and its number alone, so a run that was cut off is resumed exactly.
"""

import math
from collections import Counter
from numbers import Real

import numpy as np
import torch

from ..networks.transformer import MAX_PATCHES, PATCH_SAMPLES, make_batch, mask_tokens, patch_samples
from ..signals.errors import DataError, OptionError, require, require_choice, require_int, require_known
from ..signals.streams import stream
from .augment import Compose, Gain, MagnitudeWarp, Resample, Rotation, Slower, TimeShift, TimeWarp, WhiteNoise
from .windows import Windows, triads

# Probability that a label is replaced by a paraphrase.
PARAPHRASED = 0.8
# The lowest rate in Hz of a sensor of motion, and the probability that a window is seen at a lower rate than its own.
LOWEST_HZ, SLOWER = 8.0, 0.5


def motion_views(strength, channels, n_samples, rotate=False):
    """The augmentation that makes another view of motion windows.

    Parameters
    ----------
    strength : "weak" (noise, gain, shift), "strong" (warps of time and magnitude, another speed), "mixed" (noise, gain,
        both warps) or "none"
    channels : names, for the sensors to rotate
    n_samples : of a window
    rotate : also rotate the sensors, each location by itself; the posture that gravity shows is lost then
    """
    noise, gain, shift = WhiteNoise(0.05), Gain((0.9, 1.1), per_channel=True), TimeShift(max(1, n_samples // 20))
    warps = [TimeWarp(0.2, 4), MagnitudeWarp(0.3, 4)]
    strengths = {
        "none": ([], 1.0),
        "weak": ([noise, gain, shift], 0.8),
        "strong": ([*warps, Resample((0.95, 1.05))], 0.6),
        "mixed": ([noise, gain, *warps], 0.7),
    }
    require_choice(strengths, strength=strength)
    parts, probability = strengths[strength]
    if rotate:
        sensors, locations = triads(channels)
        parts = [*parts, Rotation(sensors, locations)]
    return Compose(parts, probability)


class MotionBatches(torch.utils.data.Dataset):
    """Batches of patches, each from one of several data sets: an item is a whole batch.

    For a loader with ``batch_size=None``. A batch is that of `evlib.networks.transformer`, with ``set_name`` and
    ``source`` (batch,). With a ``mask_ratio`` it also holds ``hidden``, ``dropped``, ``truth`` (input and stats to be
    predicted) and ``view``, the batch of another view; with ``words`` also ``text`` and ``label_text`` (batch, 384),
    the vectors of a paraphrase of each label and of the label itself, and ``group`` (batch,), the number of its sense.

    Parameters
    ----------
    sets : list of `Windows`
    text : text encoder, see `evlib.motion.words`
    patch_s : seconds of a patch: one number for all, or a dict by the name of the set; (least, most, step) draws for
        each batch
    batch_size : windows in a batch
    alpha : a set of n windows is drawn with a probability proportional to n ** alpha
    mask_ratio : share of the patches that are hidden; None for batches without masks
    strength, rotate : of the views, see `motion_views`; without masks they change the windows themselves
    rates : True: some windows in training are seen as a sensor of a lower rate shows them, down to 8 Hz
    words : function of labels and ``text`` that gives their words, see `evlib.motion.labels.label_words`
    seed : of all draws
    train : False draws the same in every epoch, takes each window once, and changes no window but for the views
    patch_samples, normalise : samples that each patch is resampled to, and whether it is normalised
        (`evlib.networks.transformer.make_batch`)
    noise : standard deviation of white noise that is added to the input of a masked batch, not to the truth; a pair is
        drawn from
    view : False leaves out the other view of a masked batch, where there is no contrastive loss
    neighbours : the other view is that of a window at most this number of rows away in the same run (`Windows.runs`);
        windows must be in the order of recording
    """

    def __init__(
        self,
        sets,
        text,
        patch_s,
        batch_size=64,
        *,
        alpha=0.5,
        mask_ratio=None,
        strength="mixed",
        rotate=False,
        rates=False,
        words=None,
        seed=0,
        train=True,
        patch_samples=PATCH_SAMPLES,
        normalise=True,
        noise=0.0,
        view=True,
        neighbours=0,
    ):
        require_int(2, batch_size=batch_size, patch_samples=patch_samples)
        require_int(0, seed=seed, neighbours=neighbours)
        self.sets = [] if isinstance(sets, Windows) else list(sets)
        message = "a list of Windows with at least 2 windows each is wanted (a single one? put it in a list)"
        fits = self.sets and all(isinstance(one, Windows) and len(one) > 1 for one in self.sets)
        require(fits, DataError, message)
        twice = [name for name, n in Counter(one.name for one in self.sets).items() if n > 1]
        require(not twice, DataError, f"two data sets are called {', '.join(twice)}")
        labelled = all(len(one.labels) for one in self.sets)
        require(labelled or not words, DataError, "to give words, every data set needs labels")
        message = f"mask_ratio must lie strictly between 0 and 1, got {mask_ratio!r}"
        require(mask_ratio is None or 0 < mask_ratio < 1, OptionError, message)
        self.seed, self.train, self.words, self.mask_ratio, self.view = seed, train, words, mask_ratio, view
        self.patch_s = [patch_range(patch_s, one) for one in self.sets]
        self.noise = WhiteNoise(noise) if noise else None
        self.views = [motion_views(strength, one.channels, one.x.shape[1], rotate) for one in self.sets]
        steps = [max(1.0, one.sampling_rate_hz / LOWEST_HZ) for one in self.sets]
        self.slower = [Compose([Slower((1.0, most))], SLOWER) for most in steps] if rates and train else None
        self.channel_text = [text(one.descriptions) for one in self.sets]
        self.x = [torch.from_numpy(one.x) for one in self.sets]
        self.source = [torch.from_numpy(np.unique(one.sources, return_inverse=True)[1]) for one in self.sets]
        if words:  # the vectors of every paraphrase of every label, computed once
            kinds = sorted({str(label) for one in self.sets for label in one.labels})
            self.ways, self.label_text, self.group = words(kinds, text)
            self.label = [torch.tensor([kinds.index(str(label)) for label in one.labels]) for one in self.sets]
        self.batch_size, self.alpha, self.neighbours = batch_size, alpha, neighbours
        self.runs = [torch.from_numpy(np.stack(one.runs())) for one in self.sets]
        self.patching = {"n_samples": patch_samples, "normalise": normalise}
        # Workers that live on into the next epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self._plan, self._planned = None, None

    def set_epoch(self, epoch):
        """Set the epoch whose batches come next."""
        self._epoch.fill_(epoch)

    def __len__(self):
        return len(self._batches())

    @property
    def epoch(self):
        """Number of the epoch that is drawn from: always 0 for development."""
        return int(self._epoch) if self.train else 0

    def _batches(self):
        """(set, rows) of each batch of this epoch."""
        if self._planned != self.epoch:
            self._plan, self._planned = self._draw(stream("batches of patches", self.seed, self.epoch)), self.epoch
        return self._plan

    def _draw(self, rng):
        sizes = np.array([len(one) for one in self.sets])
        if not self.train:
            # A batch of one window has nothing to be contrasted with: a last window alone joins the batch before it.
            cuts = [range(self.batch_size, n - 1, self.batch_size) for n in sizes]
            return [(k, rows) for k, n in enumerate(sizes) for rows in np.split(rng.permutation(n), cuts[k])]
        weight = sizes**self.alpha
        owner = rng.choice(len(sizes), -(-sizes.sum() // self.batch_size), p=weight / weight.sum())
        plan = []
        for k, count in zip(*np.unique(owner, return_counts=True), strict=True):
            size = min(self.batch_size, sizes[k])
            rounds = -(-count * size // sizes[k])
            order = np.concatenate([rng.permutation(sizes[k]) for _ in range(rounds)])
            plan += [(k, order[i * size : (i + 1) * size]) for i in range(count)]
        return [plan[i] for i in rng.permutation(len(plan))]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        k, rows = self._batches()[index]
        seed = stream("views of patches", self.seed, self.epoch, index).integers(2**62)
        generator = torch.Generator().manual_seed(int(seed))
        one, x = self.sets[k], self.x[k][rows]
        x = self.slower[k](x, generator) if self.slower else x
        choices = self.patch_s[k]
        middle = len(choices) // 2
        patch_s = choices[int(torch.randint(len(choices), (), generator=generator)) if self.train else middle]

        def patches(signal):
            return make_batch(signal, one.sampling_rate_hz, patch_s, self.channel_text[k], **self.patching)

        seen = self.x[k][self._beside(k, rows, generator)] if self.mask_ratio and self.neighbours else x
        changed = self.views[k](seen, generator) if self.mask_ratio or self.train else x
        batch = patches(x if self.mask_ratio else changed)
        batch |= {"set_name": one.name, "source": self.source[k][rows]}
        if self.mask_ratio:
            hidden, dropped = mask_tokens(batch["patch_mask"], batch["channel_mask"], generator, self.mask_ratio)
            truth = {name: batch[name] for name in ("input", "stats")}
            batch |= {"hidden": hidden, "dropped": dropped, "truth": truth}
            if self.view:
                batch |= {"view": patches(changed)}
            if self.noise:
                batch |= patches(self.noise(x, generator))
        if self.words:
            label = self.label[k][rows]
            words = {"label_text": self.label_text[label], "group": self.group[label]}
            batch |= {"text": self._text(label, generator), **words}
        return batch

    def _beside(self, k, rows, generator):
        """Rows near ``rows``: at the end of a run a window may be its own neighbour."""
        step = torch.randint(-self.neighbours, self.neighbours + 1, (len(rows),), generator=generator)
        first, last = self.runs[k][:, rows]
        return (torch.as_tensor(rows) + step).maximum(first).minimum(last)

    def _text(self, label, generator):
        """(n, 384): mostly the vector of a paraphrase of each label."""
        if not self.train:
            return self.label_text[label]
        u = torch.rand(2, len(label), generator=generator)
        ways = [self.ways[k] for k in label.tolist()]
        chosen = (u[0] * torch.tensor(list(map(len, ways)))).long().tolist()
        other = torch.stack([vectors[i] for vectors, i in zip(ways, chosen, strict=True)])
        return torch.where((u[1] < PARAPHRASED)[:, None], other, self.label_text[label])


def patch_range(patch_s, windows):
    """The seconds that a patch of a data set may have, as a list.

    >>> patch_range((0.5, 1.0, 0.25), Windows("a", np.zeros((2, 100, 1)), 50.0, ("ecg",)))
    [0.5, 0.75, 1.0]
    """
    name, longest = windows.name, windows.duration_s
    if isinstance(patch_s, dict):
        require_known([name], patch_s, "patch_s", "data set")
        patch_s = patch_s[name]
    numbers = patch_s if isinstance(patch_s, tuple | list) else (patch_s, patch_s, 1.0)
    fits = len(numbers) == 3 and all(isinstance(n, Real) and 0 < n < math.inf for n in numbers)
    message = f"patch_s of {name} must be seconds, or (least, most, step), got {patch_s!r}"
    require(fits and numbers[0] <= numbers[1], OptionError, message)
    least, most, step = numbers
    choices = [least + step * i for i in range(int((most - least) / step + 1e-9) + 1)]
    message = f"a patch of {choices[-1]:g} s is longer than the windows of {name}, {longest:g} s"
    require(choices[-1] <= longest * (1 + 1e-6), OptionError, message)
    message = f"{name}: patches of {least:g} s are more than {MAX_PATCHES} in {longest:g} s"
    n_patches = windows.x.shape[1] // patch_samples(least, windows.sampling_rate_hz)
    require(n_patches <= MAX_PATCHES, OptionError, message)
    return choices
