"""Recordings and labels made ready for training: checked, on one clock, with development data held out.

Of five or more labelled recordings one in five is held out as a whole: another day, another person. Of fewer, two
tenths of each are held out. Outside of completely labelled spans a label says little about what is around it: there
single labels are held out, and networks that read the signal do without them. A type with few labels keeps them all.
"""

import hashlib
import logging
from dataclasses import dataclass, replace

import numpy as np

from ..signals.clock import SLACK_SAMPLES, split_time
from ..signals.errors import DataError, OptionError, require_int, require_list
from ..signals.events import Events, warn_of_near_names
from ..signals.gaps import inside, silent
from ..signals.recording import as_list, check_alike
from ..signals.refractory import Refractory
from ..signals.streams import stream
from ..signals.validate import FILE_BLUR_S, label_doubts

# Of few recordings, these two of ten blocks of equal length are development data.
BLOCKS, DEVELOPMENT_BLOCKS = 10, (3, 8)
# One of this many labelled recordings is held out; outside of labelled spans, one of this many labels of a type.
ONE_IN = 5
# A type with fewer labels than this gives none of them to development data.
FEW_LABELS = 5
# Numbers of unlabelled signal that are learned from: 45 minutes of six channels at 2000 Hz, 130 MB whitened.
# Of more, pieces of at most so many seconds.
MOST_UNLABELLED, PIECE_S = 2**25, 600.0


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Checked recordings (labelled ones first, then unlabelled ones) and their labels.

    ``train`` and ``development`` hold a table of events for each recording. They share no event but in recordings
    without labelled spans: there templates learn from every label, and networks that read the signal from
    ``signal_train``. ``seed`` : of everything random in a fit.
    """

    recordings: list
    train: list
    development: list
    names: tuple
    rate: float
    refractory: dict
    seed: int

    @property
    def signal_train(self) -> list:
        """The training labels without those that are development data too, a table for each recording."""
        return [
            train[~np.isin(train.time_samples, held.time_samples)]
            for train, held in zip(self.train, self.development, strict=True)
        ]

    @property
    def apart_samples(self) -> np.ndarray:
        """(E,) the refractory period of each type in samples."""
        return np.array([self.refractory[name] for name in self.names]) * self.rate

    @property
    def has_unlabelled(self) -> bool:
        """Whether any recording is not labelled completely."""
        labelled = [
            sum(int(np.diff(table.labelled_spans).sum()) for table in tables)
            for tables in zip(self.train, self.development, strict=True)
        ]
        return any(n < recording.n_samples for n, recording in zip(labelled, self.recordings, strict=True))

    def outside(self, signals) -> "TrainingData":
        """The same without what is labelled in gaps of the whitened ``signals``, of which a warning tells."""
        train, development = [], []
        for k, (signal, *tables) in enumerate(zip(signals, self.train, self.development, strict=True)):
            start, stop = silent(signal)
            lost = [inside(table.time_samples, start, stop) for table in tables]
            kept = [
                replace(
                    table[~gone], labelled_spans=_intersect(table.labelled_spans, _between(start, stop, len(signal)))
                )
                for table, gone in zip(tables, lost, strict=True)
            ]
            train.append(kept[0])
            development.append(kept[1])
            if len(start):
                logging.getLogger(__name__).warning(
                    "recording %d has gaps (missing or constant samples) of %.3f s in all, the first at %.3f s; "
                    "they are left out, with %d labels",
                    k,
                    (stop - start).sum() / self.rate,
                    start[0] / self.rate,
                    np.count_nonzero(np.concatenate(lost)),
                )
        return replace(self, train=train, development=development)

    def fingerprint(self) -> str:
        """A text that other recordings or labels would not have."""
        digest = hashlib.sha256()
        for recording, train in zip(self.recordings, self.train, strict=True):
            digest.update(repr((recording.shape, recording.sampling_rate_hz, self.names)).encode())
            digest.update(np.ascontiguousarray(recording.read(0, min(100_000, recording.n_samples))).tobytes())
            digest.update(train.time_samples.tobytes() + train.type.tobytes())
        return digest.hexdigest()[:16]


def prepare(
    pairs, unlabelled=(), labels_per_type=None, seed=0, refractory_s=2.0, match_channels="name"
) -> TrainingData:
    """Check what the caller gave, put labels on the recordings' clock and hold development data out.

    The arguments are those of :func:`evlib.fit`.

    Raises
    ------
    OptionError, DataError, ShapeError, UnitError : see the messages
    """
    require_list(pairs=pairs)
    pairs = list(pairs)
    if not pairs:
        raise OptionError("fit needs at least one (recording, events) pair, got an empty list")
    if not all(map(_is_pair, pairs)):
        raise OptionError(
            "fit takes a list of (Recording, Events) pairs, as in fit([(recording, events)]); read_recording and "
            f"read_events read them; got {_kinds(pairs[0])}"
        )
    recordings = check_alike([recording for recording, _ in pairs] + as_list(unlabelled), match_channels)
    recordings[len(pairs) :] = spread_pieces(recordings[len(pairs) :])
    rate = recordings[0].sampling_rate_hz
    names = tuple(dict.fromkeys(name for _, events in pairs for name in events.names))
    warn_of_near_names([events for _, events in pairs])
    if not names:
        raise DataError("the event tables name no event types: there is nothing to learn")
    rule = Refractory(refractory_s, names)
    refractory = rule.by_name(rate)
    tables = [_on_clock(events, recording, number, names) for number, (recording, events) in enumerate(pairs)]
    _log_doubts(pairs, tables, rule)
    if labels_per_type is not None:
        require_int(1, labels_per_type=labels_per_type)
        tables = _draw_labels(tables, labels_per_type, seed)
    train, development = hold_out(tables, [recording.n_samples for recording, _ in pairs], seed)
    nothing = [_without_spans(Events.empty(names, rate)) for _ in recordings[len(pairs) :]]
    if sum(map(len, train)) == 0:
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    return TrainingData(recordings, train + nothing, development + nothing, names, rate, refractory, seed)


def _kinds(value):
    """The kinds of what was given in place of a pair."""
    return f"({', '.join(type(v).__name__ for v in value)})" if isinstance(value, tuple) else type(value).__name__


def _log_doubts(pairs, tables, rule):
    """Say what in the labels makes a detector worse, or a wrong one; ``tables`` are on the clock of the recordings."""
    doubts = [
        f"recording {k}: {text}"
        for k, (recording, events) in enumerate(pairs)
        for text in label_doubts(events, recording)
    ]
    close = [rule.violations(table, max(SLACK_SAMPLES, FILE_BLUR_S * table.sampling_rate_hz)) for table in tables]
    types = np.concatenate([table.type[rows[:, 1]] for table, (rows, _) in zip(tables, close, strict=True)])
    gap_s = np.concatenate([gap_s for _, gap_s in close])
    for k, (name, count) in enumerate(zip(rule.names, sum(table.counts() for table in tables), strict=True)):
        if not count:
            doubts.append(f"there is no label of {name!r}")
        if (types == k).any():
            period = f"the refractory period of {rule.period_s[k]:g} s, the shortest {gap_s[types == k].min():.3g} s"
            doubts.append(f"{(types == k).sum()} intervals of {name!r} are shorter than {period}: lower refractory_s=")
    for text in doubts:
        logging.getLogger(__name__).warning(text)


def _is_pair(pair):
    is_two = isinstance(pair, tuple | list) and len(pair) == 2
    return is_two and isinstance(pair[1], Events) and hasattr(pair[0], "read")


def _on_clock(events, recording, number, names):
    """The labels of one recording on its clock, with ``labelled_spans``."""
    labels, n_samples = events.at_rate(recording.sampling_rate_hz).with_names(names), recording.n_samples
    labels = _once(labels, number)
    outside = (labels.sample < 0) | (labels.time_samples >= n_samples)
    if outside.any():
        raise DataError(
            f"{int(outside.sum())} labels lie outside of recording {number} ({recording.duration_s:.3f} s), the first "
            f"at {labels.onset_s[outside][0]:.3f} s (labels of another recording, or times in samples?)"
        )
    spans = [[0, n_samples]] if labels.labelled_spans is None else labels.labelled_spans
    # A label in the last half of the last sample is the next one's, rounded.
    late = labels.sample >= n_samples
    fraction = np.where(late, np.nextafter(0.5, 0), labels.fraction)
    clipped = {"sample": np.minimum(labels.sample, n_samples - 1), "labelled_spans": np.clip(spans, 0, n_samples)}
    return replace(labels, fraction=fraction, **clipped)


def _once(labels, number):
    """Without labels less than a sample after another of their type (one event labelled twice), with a warning."""
    order = np.lexsort((labels.time_samples, labels.type))
    time, type = labels.time_samples[order], labels.type[order]
    again = order[1:][(np.diff(time) < 1) & (np.diff(type) == 0)]
    if not len(again):
        return labels
    logging.getLogger(__name__).warning(
        "recording %d: %d labels stand less than a sample after another of their type, the first at %.3f s "
        "(a table joined twice?); they are left out",
        number,
        len(again),
        labels.onset_s[again].min(),
    )
    kept = np.ones(len(labels), dtype=bool)
    kept[again] = False
    return labels[kept]


def _without_spans(table):
    return replace(table, labelled_spans=np.zeros((0, 2), dtype=np.int64))


def add_events(table: Events, time, type) -> Events:
    """A table with more events, at ``time`` (n,) samples, of one type or of ``type`` (n,); nobody knows how long they
    last."""
    types, unknown = np.broadcast_to(type, len(time)), np.full(len(time), np.nan)
    new = Events(*split_time(np.asarray(time)), types, table.names, table.sampling_rate_hz, duration_s=unknown)
    return Events.concatenate([table, _without_spans(new)])


def held_out_parts(lengths, seed: int) -> list:
    """Spans (k, 2) of signals of these lengths that are development data: of five or more signals one in five as a
    whole, of fewer signals two tenths of each.

    >>> held_out_parts([100], seed=0)[0].tolist(), sum(map(len, held_out_parts([100] * 10, seed=0)))
    ([[30, 40], [80, 90]], 2)
    """
    if len(lengths) >= ONE_IN:
        held = _one_in_five(range(len(lengths)), seed)
        return [np.array([[0, n]] if k in held else np.zeros((0, 2)), dtype=np.int64) for k, n in enumerate(lengths)]
    edges = [np.linspace(0, n, BLOCKS + 1).astype(int) for n in lengths]
    return [np.column_stack([e[list(DEVELOPMENT_BLOCKS)], e[np.add(DEVELOPMENT_BLOCKS, 1)]]) for e in edges]


def _one_in_five(numbers, seed):
    """A set of one in five of the numbers of recordings, drawn by ``seed``."""
    return set(stream("recordings for development", seed).permutation(numbers)[: len(numbers) // ONE_IN].tolist())


def _draw_labels(tables, labels_per_type, seed):
    """At most ``labels_per_type`` events of each type over all recordings, drawn by ``seed``; nothing else counts as
    labelled."""
    left, out = np.full(len(tables[0].names), labels_per_type), list(tables)
    for k in stream("recordings that give labels", seed).permutation(len(tables)):
        order = stream("labels that are kept", seed, k).permutation(len(tables[k]))
        drawn = tables[k][np.sort(order[_rank_in_type(tables[k].type[order]) < labels_per_type])]
        out[k] = _without_spans(drawn[_rank_in_type(drawn.type) < left[drawn.type]])
        left = left - out[k].counts()
    return out


def _rank_in_type(type):
    """(n,) how many rows of the same type come before each row."""
    order = np.argsort(type, kind="stable")
    first = np.searchsorted(type[order], type[order])
    rank = np.empty(len(type), dtype=np.int64)
    rank[order] = np.arange(len(type)) - first
    return rank


def spread_pieces(recordings: list) -> list:
    """Recordings without labels; of more than `MOST_UNLABELLED` numbers, pieces that are spread evenly over them, so
    that what is learned from fits into memory however long they are.

    >>> from evlib.signals.recording import Recording
    >>> day = Recording(np.broadcast_to(np.float32(0), (24 * 3600 * 2000, 6)), 2000)
    >>> pieces = spread_pieces([day])
    >>> len(pieces), pieces[0].duration_s
    (4, 600.0)
    """
    n_values = sum(recording.n_samples * recording.n_channels for recording in recordings)
    if n_values <= MOST_UNLABELLED:
        return recordings
    pieces = []
    for recording in recordings:
        edges = np.linspace(0, recording.duration_s, 1 + int(np.ceil(recording.duration_s / PIECE_S)))
        pieces += [(recording, *span) for span in zip(edges[:-1], edges[1:], strict=True)]
    n_kept = max(1, MOST_UNLABELLED * len(pieces) // n_values)
    chosen = np.unique(np.linspace(0, len(pieces) - 1, n_kept).round().astype(int))
    kept = [recording.between(*span) for recording, *span in map(pieces.__getitem__, chosen)]
    logging.getLogger(__name__).warning(
        "%.1f h of unlabelled signal are more than is held in memory: %.1f h are learned from, %d pieces spread evenly",
        sum(recording.duration_s for recording in recordings) / 3600,
        sum(piece.duration_s for piece in kept) / 3600,
        len(kept),
    )
    return kept


def hold_out(tables, n_samples, seed: int) -> tuple[list, list]:
    """Training and development labels, a table for each recording.

    ``tables`` : Events of each recording with ``labelled_spans``; ``n_samples`` : the recordings' lengths
    """
    counts = sum(table.counts() for table in tables)
    held, few = _held_recordings(tables, counts, seed), counts < FEW_LABELS
    parts = []
    for k, (table, length) in enumerate(zip(tables, n_samples, strict=True)):
        nothing = _without_spans(table[:0])
        if held is not None:
            parts.append((nothing, table) if k in held else (table, nothing))
        else:
            single = ~table.is_labelled(table.sample) & ~few[table.type]
            single &= _rank_in_type(table.type) % ONE_IN == ONE_IN - 1
            kept, held_labels = _hold_out_blocks(table, length, few) if len(table.labelled_spans) else (table, nothing)
            parts.append((kept, Events.concatenate([held_labels, _without_spans(table[single])])))
    train, development = zip(*parts, strict=True)
    return list(train), list(development)


def _held_recordings(tables, counts, seed):
    """The numbers of the recordings that are development data; None where they are too few, or where a type would lose
    more than half of its labels."""
    labelled = [k for k, table in enumerate(tables) if len(table.labelled_spans)]
    if len(labelled) < ONE_IN:
        return None
    held = _one_in_five(labelled, seed)
    lost = sum(tables[k].counts() for k in held)
    return held if (2 * lost <= counts).all() and (lost[counts >= FEW_LABELS] > 0).any() else None


def _hold_out_blocks(labels, n_samples, few):
    """Labels for training and for development: blocks of time in which no type has few labels."""
    blocks = held_out_parts([n_samples], 0)[0]
    rare = labels.sample[few[labels.type]]
    blocks = blocks[[not ((rare >= low) & (rare < high)).any() for low, high in blocks]]
    others = np.r_[0, blocks.ravel(), n_samples].reshape(-1, 2)
    kept, held = (replace(labels, labelled_spans=_intersect(labels.labelled_spans, part)) for part in (others, blocks))
    in_development = held.is_labelled(labels.sample)
    return kept[~in_development], held[in_development]


def _between(start, stop, n):
    """What lies between spans [start, stop), sorted and apart, in n samples, (k, 2)."""
    edges = np.column_stack([np.r_[0, stop], np.r_[start, n]])
    return edges[edges[:, 1] > edges[:, 0]]


def _intersect(spans, others):
    """What lies in both of two lists of spans, (k, 2)."""
    start = np.maximum(spans[:, None, 0], others[None, :, 0]).ravel()
    stop = np.minimum(spans[:, None, 1], others[None, :, 1]).ravel()
    return np.column_stack([start, stop])[stop > start]
