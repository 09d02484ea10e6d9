"""Learning a template bank: average labelled snippets, then detect, re-align and re-average on unlabelled signal.

Everything here works on whitened signals held in memory, one (n, C) array per recording, and on label tables on
the same clock. A label says where an event is; only inside of completely labelled spans does its absence say
anything.
"""

from dataclasses import replace

import numpy as np
from scipy.special import logsumexp

from ..signals.clock import split_time
from ..signals.errors import DataError
from ..signals.events import Events
from .bank import (
    MIN_AMPLITUDE,
    TemplateBank,
    average_snippets,
    correlate_snippets,
    cut_snippets,
    refine_peak,
    shrink_templates,
)
from .overlaps import can_separate, cut_apart, separate_templates
from .pursue import find_candidates

# A template is looked for within this time on either side of the label.
SEARCH_S = 0.25
# What comes after so long a gap, or is so small a share of the strongest, is no part of it.
GAP_S, SHARE = 0.008, 0.02
# A label may be this far from where the signal says (first guess; the data then say how far).
LABEL_JITTER_S = 0.005
# Log prior odds of an event per candidate in self-training: about one in 3000 samples.
PRIOR_LOGIT = 8.0
# Where events begin and end is told by about so many of them.
WIDEN_EVENTS = 1000


def choose_window(signals, labels, rate):
    """How far templates reach before and after the label, (before, length) in samples.

    From the strongest lag of the averages outwards, until for ``GAP_S`` nothing stands out: less than luck makes, or
    less than ``SHARE`` of the strongest. What comes after a gap is another event that often follows, not this one.
    """
    reach = max(4, int(round(SEARCH_S * rate)))
    type = np.concatenate([table.type for table in labels])
    pieces = _cut(signals, [table.time_samples for table in labels], reach, 2 * reach + 1)
    mean, worth = average_snippets(pieces, type, np.ones(len(type)), len(labels[0].names))
    known = worth > 0
    excess = (mean[known] ** 2 - 1 / worth[known, None, None]).sum((0, 2))
    # Averages over 2 ms tell a lag with signal from one with luck.
    width = max(1, int(round(0.002 * rate)))
    level = np.convolve(excess, np.ones(width) / width, mode="same")
    luck = np.sqrt((2 / worth[known] ** 2).sum() * mean.shape[2] / width)
    near = np.abs(np.arange(2 * reach + 1) - reach) <= max(2, reach // 4)
    peak = int(np.where(near, level, -np.inf).argmax())
    stands = level > max(3 * luck, SHARE * level[peak])
    stands[peak] = True
    gap = max(1, int(round(GAP_S * rate)))
    lags = np.flatnonzero(stands)
    here = int(np.searchsorted(lags, peak))
    jumps = np.diff(lags) > gap
    first = here - int(np.argmax(np.r_[jumps[:here][::-1], True]))
    last = here + int(np.argmax(np.r_[jumps[here:], True]))
    start = max(0, min(int(lags[first]) - width, reach - 2))
    stop = min(2 * reach + 1, max(int(lags[last]) + width + 1, reach + 3))
    return reach - start, stop - start


def _cut(signals, times, before, length):
    """Snippets of all recordings, (N, length, C)."""
    return np.concatenate(
        [cut_snippets(signal, time, before, length) for signal, time in zip(signals, times, strict=True)]
    )


def learn_templates(signals, labels, before, length, rate, shrink=True, align=True, rounds=3, weigh=True):
    """Template bank from labels alone: average (of events that overlap: least squares), re-align, repeat.

    Returns the bank, the label jitter in samples (standard deviation of label minus signal time) and the aligned
    times. How far a snippet may move is itself learned: exact labels hardly move, hand labels move freely; the mean
    move of each type is zero, so the bank keeps the labels' time origin. ``weigh``: learn ``trust`` too.
    """
    counts = sum(table.counts() for table in labels)
    if counts.sum() == 0:
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    times, types = [table.time_samples for table in labels], [table.type for table in labels]
    amplitudes, type = [np.ones(len(table)) for table in labels], np.concatenate(types)
    jitter = LABEL_JITTER_S * rate
    names, dense = labels[0].names, can_separate(signals, times, types, length)

    def around(k, margin):
        """Snippets of one recording with a margin, and how far from its label each was cut."""
        if dense:
            pieces = cut_apart(bank, signals[k], times[k], types[k], amplitudes[k], margin)
            return pieces, times[k] - labels[k].time_samples
        pieces = cut_snippets(signals[k], labels[k].time_samples, before + margin, length + 2 * margin)
        return pieces, np.zeros(len(types[k]))

    for round_ in range(rounds if align else 1):
        if dense:
            mean, worth = separate_templates(signals, times, types, amplitudes, len(names), before, length)
        else:
            pieces = _cut(signals, times, before, length)
            mean, worth = average_snippets(pieces, type, np.ones(len(type)), len(names))
        bank = TemplateBank(shrink_templates(mean, worth) if shrink else mean, before, names)
        if not align or round_ == rounds - 1:
            break
        reach = int(np.ceil(3 * jitter)) + 1
        moves, heights = zip(
            *(_best_fit(bank, *around(k, reach), types[k], jitter) for k in range(len(labels))), strict=True
        )
        moved = np.concatenate(moves)
        count = np.maximum(np.bincount(type, minlength=len(names)), 1)
        bias = np.bincount(type, moved, len(names)) / count
        times = [table.time_samples + move - bias[table.type] for table, move in zip(labels, moves, strict=True)]
        jitter = float(np.clip(np.sqrt(np.mean((moved - bias[type]) ** 2)), 0.2, LABEL_JITTER_S * 5 * rate))
        if dense:
            scale = np.bincount(type, np.concatenate(heights), len(names)) / count
            amplitudes = [height / scale[table.type] for table, height in zip(labels, heights, strict=True)]
    if dense:
        pieces = np.concatenate([around(k, 0)[0] for k in range(len(labels))])
    bank = replace(bank, amplitude_spread=_amplitude_spread(bank, pieces, type), log_rate=_log_rate(labels))
    if weigh:
        reach = int(np.ceil(3 * jitter)) + 1
        wide = np.concatenate([around(k, reach)[0] for k in range(len(labels))])
        bank = replace(bank, trust=_trust(bank, wide, type, reach))
    return bank, jitter, times


def _log_rate(labels):
    """Log of each type's share of the events in completely labelled spans, relative to the mean share, (E,).

    Where labels were merely picked, their numbers say nothing of rates.
    """
    counts = np.zeros(len(labels[0].names))
    for table in labels:
        counts += table[table.is_labelled(table.sample)].counts()
    if counts.sum() == 0:
        return np.zeros(len(counts))
    return np.clip(np.log((counts + 0.5) / (counts.mean() + 0.5)), -8.0, 2.0)


def _trust(bank, wide, type, reach):
    """What evidence is worth in telling types apart: the exponent that makes labelled types most probable, at most 1.

    ``wide`` (N, reach + L + reach, C) are the labelled events, of ``type`` (N,). Each type may move to its best place
    within ``reach`` samples, as in detection, and each event is weighed against its own type's average without itself.
    """
    count = np.bincount(type, minlength=len(bank.names))
    if (count > 1).sum() < 2:
        return 1.0
    usable = count[type] > 1
    pieces, type = wide[usable], type[usable]
    n, rows = count[type][:, None, None].astype(np.float32), np.arange(len(type))
    keep = (bank.norm**2 / (bank.norm**2 + 1))[type][:, None, None].astype(np.float32)
    middle = pieces[:, reach : reach + bank.length]
    without = (n * bank.templates[type] - keep * middle) / (n - 1)
    without /= np.maximum(np.sqrt((without**2).sum((1, 2), keepdims=True)), 1e-6)
    evidence = np.empty((len(type), len(count)))
    own = np.empty((len(type), 2 * reach + 1))
    for some, score in correlate_snippets(pieces, without, rows):
        own[some] = score
    for some, score in correlate_snippets(pieces, bank.shapes):
        here = np.arange(len(score))
        score[here, :, type[some]] = own[some]
        evidence[some] = (bank.log_likelihood_ratio(score) - bank.log_rate).max(axis=1)
    evidence = np.where(count > 0, evidence, -1e6)
    grid = np.exp(np.linspace(np.log(1e-3), 0, 60))
    loss = [
        np.mean(logsumexp(t * evidence + bank.log_rate, axis=1) - (t * evidence + bank.log_rate)[rows, type])
        for t in grid
    ]
    # Where many exponents explain the labels equally well, evidence is trusted in full.
    return float(grid[np.flatnonzero(loss <= np.min(loss) + 1e-6)[-1]])


def _best_fit(bank, pieces, moved, type, jitter):
    """How far each labelled event lies from its label, in samples, and its amplitude: likelihood times prior.

    ``pieces`` (N, margin + L + margin, C) were cut ``moved`` (N,) samples from the labels.
    """
    reach = (pieces.shape[1] - bank.length) // 2
    lags = np.arange(-reach, reach + 1)
    score = np.empty((len(type), len(lags)))
    for some, part in correlate_snippets(pieces, bank.shapes, type):
        score[some] = part
    value = bank.norm[type, None] * score - 0.5 * ((lags + moved[:, None]) / jitter) ** 2
    best = np.clip(value.argmax(axis=1), 1, len(lags) - 2)
    rows = np.arange(len(type))
    offset, _ = refine_peak(*(value[rows, best + step] for step in (-1, 0, 1)))
    return moved + lags[best] + offset, np.maximum(bank.amplitude(score[rows, best], type), MIN_AMPLITUDE)


def _amplitude_spread(bank, pieces, type):
    """Standard deviation of the amplitudes of labelled events beyond what noise makes of them."""
    amplitude = np.einsum("nlc,nlc->n", pieces, bank.shapes[type]) / bank.norm[type]
    centre = np.bincount(type, amplitude, len(bank.names)) / np.maximum(np.bincount(type, minlength=len(bank.names)), 1)
    extra = (amplitude - centre[type]) ** 2 - 1 / bank.norm[type] ** 2
    return float(np.clip(np.sqrt(max(np.mean(extra), 0.0)), 0.15, 0.5))


def self_train(bank, signals, labels, rounds=5, shrink=True, widen=True, progress=None):
    """Detect, weigh by posterior, re-align, re-average, repeat; labelled events keep weight 1.

    ``labels`` say what is known: a detection in a completely labelled span that is no labelled event has weight 0. With
    ``widen`` templates may grow: many detections show where events begin and end, a few labels do not.
    """
    names = bank.names
    for round_ in range(rounds):
        times, types, weights, offsets, offset_types = [], [], [], [], []
        for signal, table in zip(signals, labels, strict=True):
            found = find_candidates(bank, lambda a, b, s=signal: s[a:b], len(signal))
            found = found[(found.margin > 0) & (found.llr > PRIOR_LOGIT - 3)]
            weight = 1 / (1 + np.exp(-(found.llr - PRIOR_LOGIT)))
            row, label, distance = nearest_label(found, table, 0.02 * table.sampling_rate_hz)
            offsets.append(distance)
            offset_types.append(table.type[label])
            weight[row] = 0.0  # the label itself comes in with weight 1, at the time the signal says
            weight[table.is_labelled(np.floor(found.time + 0.5).astype(int))] = 0.0
            time = table.time_samples
            time[label] = found.time[row]
            keep = weight > 0.05
            times.append(np.r_[found.time[keep], time])
            types.append(np.r_[found.type[keep], table.type])
            weights.append(np.r_[weight[keep], np.ones(len(table))])
        type, weight = np.concatenate(types), np.concatenate(weights)
        if widen and round_ > 0:
            bank = _widened(bank, signals, labels[0], times, types, weights)
        mean, worth = average_snippets(_cut(signals, times, bank.before, bank.length), type, weight, len(names))
        known = worth > 0
        mean[~known], worth[~known] = bank.templates[~known], 1.0
        bank = replace(bank, templates=shrink_templates(mean, worth) if shrink else mean)
        # The labels keep the time origin: detections may not walk away from them together.
        offset_type = np.concatenate(offset_types)
        drift = np.array(
            [
                np.median(np.concatenate(offsets)[offset_type == e]) if (offset_type == e).any() else 0.0
                for e in range(len(names))
            ]
        )
        bank = bank.shifted(drift)
        if progress is not None:
            progress()
    return bank


def _widened(bank, signals, table, times, types, weights):
    """The bank, its window grown to where the averages of what was found begin and end."""
    found = []
    for time, type, weight in zip(times, types, weights, strict=True):
        sure = np.flatnonzero(weight > 0.5)
        sure = sure[:: max(1, len(sure) * len(times) // WIDEN_EVENTS)]  # more would tell no more
        found.append(Events(*split_time(time[sure]), type[sure], table.names, table.sampling_rate_hz))
    before, length = choose_window(signals, found, table.sampling_rate_hz)
    ahead = max(before - bank.before, 0)
    behind = max(length - before - (bank.length - bank.before), 0)
    templates = np.pad(bank.templates, ((0, 0), (ahead, behind), (0, 0)))
    return replace(bank, templates=templates, before=bank.before + ahead)


def nearest_label(candidates, labels, reach):
    """Pair candidates with labels of their type within ``reach`` samples: rows, labels, candidate minus label time.

    Every label takes the candidate with the best llr in reach, and no candidate twice.
    """
    rows, owners = [], []
    for e in np.unique(labels.type):
        own, mine = np.flatnonzero(candidates.type == e), np.flatnonzero(labels.type == e)
        time, at = candidates.time[own], labels.time_samples[mine]
        low, high = np.searchsorted(time, at - reach), np.searchsorted(time, at + reach, side="right")
        width = int((high - low).max(initial=0))
        if width == 0:
            continue
        index = low[:, None] + np.arange(width)
        valid = index < high[:, None]
        llr = np.where(valid, candidates.llr[own][np.minimum(index, len(own) - 1)], -np.inf)
        best = llr.argmax(axis=1)
        hit = valid.any(axis=1)
        chosen = own[index[hit, best[hit]]]
        # Two labels in reach of one candidate: the first keeps it.
        chosen, first = np.unique(chosen, return_index=True)
        rows.append(chosen)
        owners.append(mine[hit][first])
    if not rows:
        none = np.zeros(0, dtype=int)
        return none, none, np.zeros(0)
    rows, owners = np.concatenate(rows), np.concatenate(owners)
    return rows, owners, candidates.time[rows] - labels.time_samples[owners]
