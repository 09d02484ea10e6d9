"""Windows for training, with labels or without.

A labelled window holds at most one event of each type: ``event_labels`` (events,) of 0 and 1, NaN where nobody looked,
and ``event_timings`` (events,) in samples from the start of the window, NaN where an event has no known time.
"""

import hashlib
import inspect

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ..networks.seeds import seeded
from ..signals.errors import DataError, OptionError, ShapeError, require
from .augment import TemporalAugmentation

# Of the original's synthetic events: length in samples, amplitude, and least distance from both ends of a window.
SHAPE_SAMPLES, SHAPE_AMPLITUDE, SYNTHETIC_MARGIN_SAMPLES = 50, 0.5, 100
# Number of draws of a second view: if all of them equal the first, the augmentation draws nothing.
VIEW_DRAWS = 16


def as_windows(data, lengths=None):
    """Windows as a list of (time, channels) float32 arrays, each cut to its length.

    Parameters
    ----------
    data : (windows, time, channels) array, or a list of (time, channels) arrays of different lengths
    lengths : (windows,) samples of each window that are not padding, None when nothing is padded

    Raises
    ------
    ShapeError : axes or lengths that do not fit
    DataError : values that are not finite
    """
    windows = [np.asarray(window, dtype=np.float32) for window in data]
    require(windows, ShapeError, "data is empty: at least one window of shape (time, channels) is needed")
    if lengths is not None:
        n, lengths, whole = len(windows), np.asarray(lengths), np.array(list(map(len, windows)))
        whole_numbers = lengths.shape == (n,) and np.issubdtype(lengths.dtype, np.integer)
        got = f"got {lengths.dtype} {lengths.shape}"
        require(whole_numbers, ShapeError, f"lengths must be {n} integers, one for each window, {got}")
        message = f"lengths must lie between 1 and the window's own length, got {lengths.min()}..{lengths.max()}"
        require(((lengths >= 1) & (lengths <= whole)).all(), ShapeError, message)
        windows = [window[:length] for window, length in zip(windows, lengths, strict=True)]
    channels = windows[0].shape[-1] if windows[0].ndim else 0
    for i, window in enumerate(windows):
        alike = window.ndim == 2 and 0 not in window.shape and window.shape[1] == channels
        message = f"each window must have shape (time, {channels}) like the first, window {i} has {window.shape}"
        require(alike, ShapeError, message)
        message = f"window {i} of data holds NaN or infinity: fill or leave out such samples first"
        require(np.isfinite(window).all(), DataError, message)
    return windows


class EventDataset(Dataset):
    """Windows with the events in them.

    Parameters
    ----------
    data : (windows, time, channels) array, or a list of (time, channels) arrays of different lengths
    event_labels : (windows, events) of 0 and 1, NaN where it is not known whether the type occurs; without them the
        items and batches hold windows alone
    event_timings : (windows, events) in samples from the start of the window; read only where the label is 1, NaN there
        means that the time is not known. Without them no time is known
    lengths : (windows,) samples of each window that are not padding, None when nothing is padded

    Raises
    ------
    ShapeError : axes or lengths that do not fit
    DataError : values that are not finite, labels other than 0, 1 and NaN, times outside of the window
    OptionError : times without labels

    Examples
    --------
    >>> dataset = EventDataset(np.zeros((4, 200, 6)), np.ones((4, 2)), np.full((4, 2), 80))
    >>> len(dataset), dataset[0]["input"].shape, dataset[0]["length"]
    (4, torch.Size([200, 6]), 200)
    """

    def __init__(self, data, event_labels=None, event_timings=None, lengths=None):
        self.data = as_windows(data, lengths)
        self.lengths = np.array([len(window) for window in self.data])
        self.event_labels = self.event_timings = None
        if event_labels is None:
            require(
                event_timings is None, OptionError, "event_timings need event_labels, which say what they belong to"
            )
            return
        event_timings = np.full(np.shape(event_labels), np.nan) if event_timings is None else event_timings
        self.event_labels, self.event_timings = (np.asarray(t, dtype=np.float32) for t in (event_labels, event_timings))
        n, labels, timings = len(self.data), self.event_labels, self.event_timings
        for name, table in (("event_labels", labels), ("event_timings", timings)):
            message = f"{name} must have shape (windows, events) with {n} windows, got {table.shape}"
            require(table.ndim == 2 and len(table) == n, ShapeError, message)
        message = f"event_timings {timings.shape} and event_labels {labels.shape} must be alike"
        require(timings.shape == labels.shape, ShapeError, message)
        known = np.isin(labels, (0, 1)) | np.isnan(labels)
        message = "event_labels must be 0, 1, or NaN for unknown (are these type numbers or timings?)"
        require(known.all(), DataError, message)
        outside = (labels == 1) & ((timings < 0) | (timings >= self.lengths[:, None]))
        if outside.any():
            window, event = np.argwhere(outside)[0]
            raise DataError(
                f"event {event} of window {window} is at {timings[window, event]:g}, outside of its "
                f"{self.lengths[window]} samples (times are samples from the start of the window, not of the "
                "recording, and not milliseconds; use NaN for an unknown time)"
            )

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        tables = {"event_labels": self.event_labels, "event_timings": self.event_timings}
        known = {name: torch.tensor(table[index]) for name, table in tables.items() if table is not None}
        return {"input": torch.tensor(self.data[index]), "length": int(self.lengths[index])} | known


def collate_fn_supervised(items):
    """Make a batch of items of an `EventDataset`, the short ones padded with zeros.

    Returns
    -------
    dict : input (batch, time, channels), lengths (batch,), and where the data set has labels, event_labels and
        event_timings (batch, events)

    Examples
    --------
    >>> dataset = EventDataset([np.ones((3, 1)), np.ones((2, 1))], [[0], [1]], [[np.nan], [1.0]])
    >>> batch = collate_fn_supervised([dataset[0], dataset[1]])
    >>> batch["input"].shape, batch["lengths"]
    (torch.Size([2, 3, 1]), tensor([3, 2]))
    """
    return {
        "input": pad_sequence([item["input"] for item in items], batch_first=True),
        "lengths": torch.tensor([item["length"] for item in items]),
        **{name: torch.stack([item[name] for item in items]) for name in items[0].keys() - {"input", "length"}},
    }


class UnsupervisedDataset(Dataset):
    """Windows alone: an item is the (time, channels) tensor of a window.

    Windows of equal length need no collate function; others are padded by `collate_fn_unsupervised`.

    Parameters
    ----------
    data, lengths : as in `as_windows`

    Examples
    --------
    >>> UnsupervisedDataset(np.zeros((4, 200, 6)))[0].shape
    torch.Size([200, 6])
    """

    def __init__(self, data, lengths=None):
        self.data = as_windows(data, lengths)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return torch.tensor(self.data[index])


def collate_fn_unsupervised(items):
    """Make a batch of windows: input (batch, time, channels), padded with zeros, and lengths (batch,).

    >>> collate_fn_unsupervised([torch.ones(3, 1), torch.ones(2, 1)])["lengths"]
    tensor([3, 2])
    """
    return {"input": pad_sequence(items, batch_first=True), "lengths": torch.tensor([len(item) for item in items])}


class ContrastiveDataset(UnsupervisedDataset):
    """Two different random views of each window.

    The draws follow from ``seed``, the epoch and the item, whatever the order or the number of workers; a trainer sets
    the epoch (`set_epoch`). With ``train=False`` the views are the same in every epoch.

    Parameters
    ----------
    data, lengths : as in `as_windows`
    augmentation : a function of a (time, channels) tensor that returns a view of it. It is called with
        ``generator=`` a `torch.Generator` if it has such an argument, else it may draw from torch's global generator,
        which is seeded for the call and put back afterwards
    seed : another seed gives other views
    train : new views in each epoch

    Raises
    ------
    DataError : an augmentation that gives the same view again and again

    Examples
    --------
    >>> dataset = ContrastiveDataset(np.ones((4, 200, 6)))
    >>> view1, view2 = dataset[0]
    >>> view1.shape, torch.equal(view1, view2), torch.equal(view1, dataset[0][0])
    (torch.Size([200, 6]), False, True)
    """

    def __init__(self, data, augmentation=TemporalAugmentation.random_augment, lengths=None, seed=0, train=True):
        super().__init__(data, lengths)
        self.augmentation, self.seed, self.train = augmentation, seed, train
        self._takes_generator = "generator" in inspect.signature(augmentation).parameters
        # Workers that live on into the next epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch):
        """Set the epoch whose views come next."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index):
        epoch = int(self._epoch) if self.train else 0
        generator = torch.Generator().manual_seed(_stable_hash((self.seed, self.train, epoch, index % len(self))))
        first = self._view(index, generator)
        for _ in range(VIEW_DRAWS):
            second = self._view(index, generator)
            if not torch.equal(first, second):
                return first, second
        message = f"the augmentation gave the same view of window {index} {VIEW_DRAWS} times"
        raise DataError(f"{message} (does it draw nothing, or is the window silent?)")

    def _view(self, index, generator):
        window = super().__getitem__(index)
        if self._takes_generator:
            return self.augmentation(window, generator=generator)
        with seeded(int(torch.randint(2**62, (), generator=generator)), gpu=False):
            return self.augmentation(window)


def collate_fn_contrastive(items):
    """Make a batch of pairs of views: view1, view2 (batch, time, channels), padded with zeros, lengths1, lengths2
    (batch,).

    >>> x = torch.ones(3, 1)
    >>> [tuple(part.shape) for part in collate_fn_contrastive([(x, x), (x[:2], x)])]
    [(2, 3, 1), (2, 3, 1), (2,), (2,)]
    """
    views = list(zip(*items, strict=True))
    padded = [pad_sequence(view, batch_first=True) for view in views]
    return *padded, *(torch.tensor([len(x) for x in view]) for view in views)


def event_shapes(num_events=16, num_features=6):
    """(events, 50, channels): type k is a sine of k + 1 cycles on channels k and k + 1 (modulo their number)."""
    kinds = np.arange(num_events)
    phase = np.arange(SHAPE_SAMPLES) / SHAPE_SAMPLES
    shapes = np.zeros((num_events, SHAPE_SAMPLES, num_features), dtype=np.float32)
    sines = SHAPE_AMPLITUDE * np.sin(2 * np.pi * (kinds[:, None] + 1) * phase)
    shapes[kinds, :, kinds % num_features] = sines
    shapes[kinds, :, (kinds + 1) % num_features] = sines
    return shapes


class SyntheticEventDataset(EventDataset):
    """The original's synthetic windows: sines in white noise.

    Each type occurs with ``event_probability``, at a uniform integer sample that keeps min(100, seq_len / 4) samples
    away from both ends. Shapes are the same in every split; times and noise differ. The draws come from a generator
    of ``(seed, split)``, global random state is never touched.

    Parameters
    ----------
    num_samples : windows
    seq_len : samples in a window
    input_size : channels
    num_events : event types
    sample_rate : Hz, kept as ``sampling_rate_hz``; the shapes are defined in samples
    event_probability : probability of each type in each window
    noise_std : standard deviation of the noise
    seed, split : what the draws depend on

    Raises
    ------
    OptionError : sizes below 1, a window too short for an event, a probability outside [0, 1]

    Examples
    --------
    >>> train = SyntheticEventDataset(8, 200, split="train")
    >>> train.event_labels.shape
    (8, 16)
    """

    def __init__(
        self,
        num_samples=1000,
        seq_len=2000,
        input_size=6,
        num_events=16,
        sample_rate=2000,
        event_probability=0.3,
        noise_std=0.1,
        seed=0,
        split="train",
    ):
        message = f"sizes must be at least 1 and seq_len at least {SHAPE_SAMPLES} samples, the length of an event"
        require(min(num_samples, input_size, num_events) >= 1 and seq_len >= SHAPE_SAMPLES, OptionError, message)
        message = f"want event_probability in [0, 1], noise_std >= 0; got {event_probability!r}, {noise_std!r}"
        require(0 <= event_probability <= 1 and noise_std >= 0, OptionError, message)
        rng = np.random.default_rng([seed, _stable_hash(split)])
        margin = min(SYNTHETIC_MARGIN_SAMPLES, seq_len // 4)
        labels = rng.random((num_samples, num_events)) < event_probability
        timings = rng.integers(margin, seq_len - margin, (num_samples, num_events))
        # An event near the end of a short window is cut off: it is drawn into a longer one.
        data = rng.normal(0, noise_std, (num_samples, seq_len + SHAPE_SAMPLES, input_size)).astype(np.float32)
        windows, kinds = np.nonzero(labels)
        steps = timings[windows, kinds, None] + np.arange(SHAPE_SAMPLES)
        np.add.at(data, (windows[:, None], steps), event_shapes(num_events, input_size)[kinds])
        super().__init__(data[:, :seq_len], labels, np.where(labels, timings, np.nan))
        self.sampling_rate_hz = sample_rate


def _stable_hash(text):
    """A 64-bit hash that is the same in every process (Python's own is not)."""
    return int.from_bytes(hashlib.blake2b(str(text).encode(), digest_size=8).digest(), "big")
