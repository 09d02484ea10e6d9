"""Recordings and labels made ready for training: checked, on one clock, with development blocks held out in time."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from .errors import DataError, OptionError, ShapeError, UnitError
from .events import Events
from .options import check_whole
from .recording import Recording
from .refractory import refractory_samples

# Held-out blocks: every fifth tenth of a recording is development data.
BLOCKS, DEVELOPMENT_BLOCKS = 10, (3, 8)


@dataclass(eq=False)
class TrainingData:
    """Checked recordings (labelled ones first, then unlabelled ones) and their labels, split in time."""

    recordings: list
    train: list
    development: list
    names: tuple
    rate: float
    refractory: dict

    @property
    def has_unlabelled(self):
        for recording, train, development in zip(self.recordings, self.train, self.development, strict=True):
            labelled = sum(int((t.complete_spans[:, 1] - t.complete_spans[:, 0]).sum()) for t in (train, development))
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
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Events) and hasattr(pair[0], "read")):
            raise OptionError(
                "fit takes a list of (Recording, Events) pairs; wrap a single pair in a list: fit([(recording, events)])"
            )
    recordings = [recording for recording, _ in pairs] + list(unlabelled)
    rate = check_alike(recordings)
    names = tuple(dict.fromkeys(name for _, events in pairs for name in events.names))
    if not names:
        raise DataError("the event tables name no event types: there is nothing to learn")
    refractory = refractory_table(refractory_s, names, rate)
    train, development = [], []
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
            complete_spans=whole if labels.complete_spans is None else np.clip(labels.complete_spans, 0, recording.n_samples),
        )
        if labels_per_type is not None:
            labels = replace(_draw_labels(labels, labels_per_type, seed, number), complete_spans=np.zeros((0, 2), dtype=np.int64))
        kept, held = _hold_out(labels, recording.n_samples)
        train.append(kept)
        development.append(held)
    if labels_per_type is not None:
        train = _limit(train, labels_per_type, len(names))
    for _ in unlabelled:
        nothing = replace(Events.empty(names, rate), complete_spans=np.zeros((0, 2), dtype=np.int64))
        train.append(nothing)
        development.append(nothing)
    if sum(len(table) for table in train) == 0:
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    return TrainingData(recordings, train, development, names, rate, refractory)


def as_list(recordings):
    """A list of recordings; a single one makes a list of one."""
    return [recordings] if isinstance(recordings, Recording) else list(recordings)


def check_alike(recordings):
    """Refuse recordings that cannot be learned from together; returns their rate in Hz."""
    if not recordings:
        raise OptionError("at least one recording is needed, got an empty list")
    for recording in recordings:
        if not isinstance(recording, Recording):
            raise OptionError(f"recordings must be a list of Recording, got a {type(recording).__name__} in it")
    rate, channels = recordings[0].sampling_rate_hz, recordings[0].shape[1]
    for recording in recordings:
        if recording.sampling_rate_hz != rate:
            raise UnitError(
                f"all recordings must have one rate; got {rate:g} and {recording.sampling_rate_hz:g} Hz "
                f"(use recording.resample({rate:g}))"
            )
        if recording.shape[1] != channels:
            raise ShapeError(f"all recordings must have the same channels; got {channels} and {recording.shape[1]}")
        if recording.duration_s < 1.0:
            raise DataError(f"a recording of {recording.duration_s:.3f} s is too short to learn from; at least 1 s is needed")
    return rate


def held_out_spans(n_samples):
    """(2, 2) first and last sample + 1 of the two tenths of a recording that are development data."""
    edges = np.linspace(0, n_samples, BLOCKS + 1).astype(int)
    return np.column_stack([edges[list(DEVELOPMENT_BLOCKS)], edges[np.add(DEVELOPMENT_BLOCKS, 1)]])


def refractory_table(refractory_s, names, rate):
    """The refractory period of each name in seconds, in whole samples of the rate."""
    periods = refractory_samples(refractory_s, names, rate)  # checks names and values
    return {name: float(period / rate) for name, period in zip(names, periods, strict=True)}


def _draw_labels(labels, labels_per_type, seed, number):
    """At most ``labels_per_type`` labelled events of each type."""
    check_whole(1, labels_per_type=labels_per_type)
    order = np.random.default_rng([10, seed, number]).permutation(len(labels))
    return labels[np.sort(order[_rank_in_type(labels.type[order]) < labels_per_type])]


def _rank_in_type(type):
    """(n,) how many rows of the same type stand before each row."""
    order = np.argsort(type, kind="stable")
    first = np.searchsorted(type[order], type[order])
    rank = np.empty(len(type), dtype=np.int64)
    rank[order] = np.arange(len(type)) - first
    return rank


def _limit(tables, labels_per_type, n_types):
    """Over all recordings together, at most ``labels_per_type`` of each type: the first recordings give first."""
    left = np.full(n_types, labels_per_type)
    out = []
    for table in tables:
        kept = table[_rank_in_type(table.type) < left[table.type]]
        left = left - kept.counts()
        out.append(kept)
    return out


def _hold_out(labels, n_samples):
    """Labels for training and for development: blocks of time, only where labelling is complete."""
    held_out = held_out_spans(n_samples)
    kept_out = np.column_stack([np.r_[0, held_out[:, 1]], np.r_[held_out[:, 0], n_samples]])
    held = replace(labels, complete_spans=_intersect(labels.complete_spans, held_out))
    kept = replace(labels, complete_spans=_intersect(labels.complete_spans, kept_out))
    in_development = held.is_labelled(labels.sample)
    return kept[~in_development], held[in_development]


def _intersect(spans, others):
    """Spans that lie in both lists, (k, 2)."""
    start = np.maximum(spans[:, None, 0], others[None, :, 0]).ravel()
    stop = np.minimum(spans[:, None, 1], others[None, :, 1]).ravel()
    return np.column_stack([start, stop])[stop > start]
