"""Recordings and labels made ready for training: checked, on one clock, with development data held out.

Where there are several labelled recordings, some of them are held out as a whole: another day, another person. Of
fewer, blocks of time are. Outside of completely labelled spans a label says little of what is around it, so there only
labels are held out, and networks that learn from the signal do without them. A kind with hardly any label keeps those
that it has.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ..signals.errors import DataError, OptionError, require_int
from ..signals.events import Events
from ..signals.recording import check_alike
from ..signals.refractory import Refractory

# Held-out blocks: every fifth tenth of a recording is development data.
BLOCKS, DEVELOPMENT_BLOCKS = 10, (3, 8)
# Of so many labelled recordings, or labels outside of labelled spans, one is held out.
ONE_IN = 5
# A kind with fewer labels gives none of them away.
FEW_LABELS = 5


@dataclass(eq=False)
class TrainingData:
    """Checked recordings (labelled ones first, then unlabelled ones) and their labels.

    ``train`` and ``development`` share no event but in recordings without labelled spans: there templates learn from
    every label, and ``signal_train`` holds those that a network of the signal may see.
    """

    recordings: list
    train: list
    development: list
    names: tuple
    rate: float
    refractory: dict

    @property
    def signal_train(self):
        """The training labels without those that development data know too, table by table."""
        return [
            train[~np.isin(train.time_samples, held.time_samples)] if len(held) else train
            for train, held in zip(self.train, self.development, strict=True)
        ]

    @property
    def apart_samples(self):
        """(E,) the refractory period of each type in samples."""
        return np.array([self.refractory[name] for name in self.names]) * self.rate

    @property
    def has_unlabelled(self):
        for recording, train, development in zip(self.recordings, self.train, self.development, strict=True):
            labelled = sum(int((t.labelled_spans[:, 1] - t.labelled_spans[:, 0]).sum()) for t in (train, development))
            if labelled < recording.n_samples:
                return True
        return False

    def fingerprint(self):
        digest = hashlib.sha256()
        for recording, train in zip(self.recordings, self.train, strict=True):
            digest.update(repr((recording.shape, recording.sampling_rate_hz, self.names)).encode())
            digest.update(np.ascontiguousarray(recording.read(0, min(100_000, recording.n_samples))).tobytes())
            digest.update(train.time_samples.tobytes() + train.type.tobytes())
        return digest.hexdigest()[:16]


def prepare(pairs, unlabelled, labels_per_type, seed, refractory_s):
    """Check what the caller gave, put labels on the recordings' clock and hold development blocks out."""
    pairs = list(pairs)
    if not pairs:
        raise OptionError("fit needs at least one (recording, events) pair, got an empty list")
    for pair in pairs:
        if not (
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and isinstance(pair[1], Events)
            and hasattr(pair[0], "read")
        ):
            raise OptionError(
                "fit takes a list of (Recording, Events) pairs; wrap a single pair in a list: fit([(recording, "
                "events)])"
            )
    recordings = [recording for recording, _ in pairs] + list(unlabelled)
    rate = check_alike(recordings)
    names = tuple(dict.fromkeys(name for _, events in pairs for name in events.names))
    if not names:
        raise DataError("the event tables name no event types: there is nothing to learn")
    refractory = Refractory(refractory_s, names).by_name(rate)
    tables = []
    for number, (recording, events) in enumerate(pairs):
        labels = events.at_rate(rate).with_names(names)
        outside = (labels.sample < 0) | (labels.sample >= recording.n_samples)
        if outside.any():
            first = labels.onset_s[outside][0]
            raise DataError(
                f"{int(outside.sum())} labels lie outside of recording {number} ({recording.duration_s:.3f} s), "
                f"the first at {first:.3f} s (labels of another recording, or times in samples?)"
            )
        whole = np.array([[0, recording.n_samples]])
        labels = replace(
            labels,
            labelled_spans=whole
            if labels.labelled_spans is None
            else np.clip(labels.labelled_spans, 0, recording.n_samples),
        )
        if labels_per_type is not None:
            labels = replace(
                _draw_labels(labels, labels_per_type, seed, number), labelled_spans=np.zeros((0, 2), dtype=np.int64)
            )
        tables.append(labels)
    if labels_per_type is not None:
        tables = _limit(tables, labels_per_type, len(names), seed)
    train, development = hold_out(tables, [recording.n_samples for recording, _ in pairs], seed)
    for _ in unlabelled:
        nothing = replace(Events.empty(names, rate), labelled_spans=np.zeros((0, 2), dtype=np.int64))
        train.append(nothing)
        development.append(nothing)
    if sum(len(table) for table in train) == 0:
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    return TrainingData(recordings, train, development, names, rate, refractory)


def held_out_spans(n_samples):
    """(2, 2) first and last sample + 1 of the two tenths of a recording that are development data."""
    edges = np.linspace(0, n_samples, BLOCKS + 1).astype(int)
    return np.column_stack([edges[list(DEVELOPMENT_BLOCKS)], edges[np.add(DEVELOPMENT_BLOCKS, 1)]])


def held_out_parts(lengths, seed):
    """Spans (k, 2) of each signal that are development data: one of five signals as a whole, of fewer signals two
    tenths.

    >>> [len(spans) for spans in held_out_parts([100, 100], seed=0)], sum(map(len, held_out_parts([100] * 10, seed=0)))
    ([2, 2], 2)
    """
    if len(lengths) < ONE_IN:
        return [held_out_spans(n) for n in lengths]
    held = _one_in_five(range(len(lengths)), seed)
    return [np.array([[0, n]] if k in held else np.zeros((0, 2)), dtype=np.int64) for k, n in enumerate(lengths)]


def _one_in_five(numbers, seed):
    """A set of one in five of the numbers of recordings, drawn by ``seed``."""
    return set(np.random.default_rng([18, seed]).permutation(numbers)[: len(numbers) // ONE_IN].tolist())


def _draw_labels(labels, labels_per_type, seed, number):
    """At most ``labels_per_type`` labelled events of each type."""
    require_int(1, labels_per_type=labels_per_type)
    order = np.random.default_rng([10, seed, number]).permutation(len(labels))
    return labels[np.sort(order[_rank_in_type(labels.type[order]) < labels_per_type])]


def _rank_in_type(type):
    """(n,) how many rows of the same type stand before each row."""
    order = np.argsort(type, kind="stable")
    first = np.searchsorted(type[order], type[order])
    rank = np.empty(len(type), dtype=np.int64)
    rank[order] = np.arange(len(type)) - first
    return rank


def _limit(tables, labels_per_type, n_types, seed):
    """Over all recordings together, at most ``labels_per_type`` of each type: recordings give in an order drawn by
    ``seed``."""
    left = np.full(n_types, labels_per_type)
    out = list(tables)
    for k in np.random.default_rng([22, seed]).permutation(len(tables)):
        out[k] = tables[k][_rank_in_type(tables[k].type) < left[tables[k].type]]
        left = left - out[k].counts()
    return out


def hold_out(tables, n_samples, seed):
    """Training and development labels, two lists of Events.

    ``tables`` : Events of each recording with ``labelled_spans``; ``n_samples`` : the recordings' lengths
    """
    counts = sum(table.counts() for table in tables)
    held = _held_recordings(tables, counts, seed)
    few = counts < FEW_LABELS
    train, development = [], []
    for k, (table, length) in enumerate(zip(tables, n_samples, strict=True)):
        none = replace(table[:0], labelled_spans=np.zeros((0, 2), dtype=np.int64))
        if held is not None:
            kept, out = (none, table) if k in held else (table, none)
        elif len(table.labelled_spans):
            kept, out = _hold_out_blocks(table, length, few)
        else:
            kept, out = table, table[_every_fifth(table, few)]
        train.append(kept)
        development.append(out)
    return train, development


def _held_recordings(tables, counts, seed):
    """Which recordings are development data: one in five of those that are labelled, if no kind loses half of its
    labels."""
    labelled = [k for k, table in enumerate(tables) if len(table.labelled_spans)]
    if len(labelled) < ONE_IN:
        return None
    held = _one_in_five(labelled, seed)
    lost = sum(tables[k].counts() for k in held)
    return held if (2 * lost <= counts).all() and (lost[counts >= FEW_LABELS] > 0).any() else None


def _hold_out_blocks(labels, n_samples, few):
    """Labels for training and for development: blocks of time, only where labelling is complete and no kind has few."""
    held_out = held_out_spans(n_samples)
    rare = labels.sample[few[labels.type]]
    held_out = held_out[[not ((rare >= low) & (rare < high)).any() for low, high in held_out]]
    edges = np.r_[0, held_out.ravel(), n_samples].reshape(-1, 2)
    held = replace(labels, labelled_spans=_intersect(labels.labelled_spans, held_out))
    kept = replace(labels, labelled_spans=_intersect(labels.labelled_spans, edges))
    in_development = held.is_labelled(labels.sample)
    return kept[~in_development], held[in_development]


def _every_fifth(labels, few):
    """(n,) booleans: of every type with enough labels the last of each five."""
    return (_rank_in_type(labels.type) % ONE_IN == ONE_IN - 1) & ~few[labels.type]


def _intersect(spans, others):
    """Spans that lie in both lists, (k, 2)."""
    start = np.maximum(spans[:, None, 0], others[None, :, 0]).ravel()
    stop = np.minimum(spans[:, None, 1], others[None, :, 1]).ravel()
    return np.column_stack([start, stop])[stop > start]
