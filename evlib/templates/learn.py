"""Learning a template bank: average labelled snippets, then detect, re-align and re-average on unlabelled signal.

Everything here works on whitened signals held in memory, one (n, C) array per recording, and on label tables on
the same clock. A label marks an event; only inside of completely labelled spans does the absence of a label mean that
there is none.
"""

from dataclasses import replace

import numpy as np
from scipy.special import expit, logsumexp

from ..signals.clock import rows_within, split_time
from ..signals.errors import DataError
from ..signals.events import Events
from .bank import (
    MIN_AMPLITUDE,
    TemplateBank,
    average_snippets,
    correlate_own,
    correlate_snippets,
    cut_all,
    refine_peak,
    shrink_templates,
)
from .overlaps import can_separate, cut_apart, separate_templates
from .pursue import find_candidates

# Templates are looked for within this many seconds on either side of the label.
SEARCH_S = 0.25
# A template ends at a gap of this many seconds, and where less than this share of its greatest energy remains.
GAP_S, SHARE = 0.008, 0.02
# First guess of how far labels lie from the signal's own times, in seconds (standard deviation); then it is learned.
LABEL_JITTER_S = 0.005
# A candidate is an event from this log-likelihood ratio on: prior odds of one event in about 3000 samples.
PRIOR_LOGIT = 8.0
# A detection nearer than this to a label of its type is that label, in seconds.
SAME_LABEL_S = 0.02
# A label is no example of its type where a channel has so many times the energy, in pieces of so many seconds, that it
# has beside half of the type's labels, of which there are at least so many; or, farther away (SEARCH_S), so many times
# what three in four labels of any type have.
PIECE_S, BESIDE_S, LOUDER, FEWEST_ALIKE = 0.02, (0.02, 0.1), 10.0, 3
# Twice the energy that is left around the labelled events with the worst fit is too much, but never less than this
# share of an event's own: the same event, from another sensor or another day, may look different.
WORST, WORST_TIMES, LEAST_UNEXPLAINED = 0.99, 2.0, 5.0
# Most detections used to find where events begin and end; more change the window very little.
WIDEN_EVENTS = 1000


def typical(signals, labels) -> list:
    """The labels without those that something far louder hides: a bump of the sensor, a burst of noise."""
    rate = labels[0].sampling_rate_hz
    piece, reach, before, after = (max(1, round(seconds * rate)) for seconds in (PIECE_S, SEARCH_S, *BESIDE_S))
    pieces = cut_all(signals, [table.time_samples for table in labels], reach, 2 * reach)
    at = np.arange(0, 2 * reach, piece)
    energy = np.add.reduceat(np.square(pieces, dtype=np.float64), at, axis=1)  # (N, pieces, C)
    own = energy[:, (at > reach - before - piece) & (at < reach + after)].max(axis=1)  # (N, C)
    type = np.concatenate([table.type for table in labels])
    usual = own.copy()
    for e in np.flatnonzero(np.bincount(type) >= FEWEST_ALIKE):
        usual[type == e] = np.median(own[type == e], axis=0)
    usual = np.maximum(usual, piece)
    around = np.maximum(usual, np.quantile(own, 0.75, axis=0))
    kept = ((own <= LOUDER * usual) & (energy.max(axis=1) <= LOUDER * around)).all(axis=1)
    ends = np.cumsum([len(table) for table in labels])[:-1]
    return [table[keep] for table, keep in zip(labels, np.split(kept, ends), strict=True)]


def choose_window(signals, labels) -> tuple[int, int]:
    """How far templates reach before and after the label, (before, length) in samples.

    From the strongest lag of the averages outwards, until for ``GAP_S`` the energy is below what chance explains, or
    below ``SHARE`` of the greatest. What comes after a gap is another event that often follows, not this one.
    """
    rate = labels[0].sampling_rate_hz
    reach = max(4, int(round(SEARCH_S * rate)))
    type = np.concatenate([table.type for table in labels])
    pieces = cut_all(signals, [table.time_samples for table in labels], reach, 2 * reach + 1)
    mean, worth = average_snippets(pieces, type, np.ones(len(type)), len(labels[0].names))
    known = worth > 0
    excess = (mean[known] ** 2 - 1 / worth[known, None, None]).sum((0, 2))
    # A running mean over 2 ms separates signal from chance.
    width = max(1, int(round(0.002 * rate)))
    level = np.convolve(excess, np.ones(width) / width, mode="same")
    chance = np.sqrt((2 / worth[known] ** 2).sum() * mean.shape[2] / width)
    near = np.abs(np.arange(2 * reach + 1) - reach) <= max(2, reach // 4)
    peak = int(np.where(near, level, -np.inf).argmax())
    significant = level > max(3 * chance, SHARE * level[peak])
    significant[peak] = True
    lags = np.flatnonzero(significant)
    parts = np.split(lags, np.flatnonzero(np.diff(lags) > max(1, int(round(GAP_S * rate)))) + 1)
    first, last = next((int(part[0]), int(part[-1])) for part in parts if peak in part)
    start = max(0, min(first - width, reach - 2))
    stop = min(2 * reach + 1, max(last + width + 1, reach + 3))
    return reach - start, stop - start


class _LabelledEvents:
    """Labelled events of several recordings in one row, with the times and amplitudes that the signal gives them.

    Where events mostly overlap (``overlapping``) each is seen without its neighbours.
    """

    def __init__(self, signals, labels, length):
        self.signals, self.n_types = signals, len(labels[0].names)
        self.label = np.concatenate([table.time_samples for table in labels])
        self.type = np.concatenate([table.type for table in labels])
        self.time, self.amplitude = self.label, np.ones(len(self.type))
        self.ends = np.cumsum([len(table) for table in labels])[:-1]
        self.overlapping = can_separate(signals, *self.by_recording(self.time, self.type), length)

    def by_recording(self, *columns):
        """Each column (N,) as a list of arrays, one for each recording."""
        return [np.split(column, self.ends) for column in columns]

    def mean_of_type(self, values):
        """(E,) mean of values (N,) over the events of each type; 0 for a type without events."""
        return np.bincount(self.type, values, self.n_types) / np.maximum(np.bincount(self.type, None, self.n_types), 1)

    def average(self, before, length):
        """The template of each type, (E, length, C), and the number of events behind it, (E,)."""
        columns = self.by_recording(self.time, self.type, self.amplitude)
        if self.overlapping:
            return separate_templates(self.signals, *columns, self.n_types, before, length)
        pieces = cut_all(self.signals, columns[0], before, length)
        return average_snippets(pieces, self.type, self.amplitude, self.n_types)

    def around(self, bank, time, margin=0):
        """Snippets around ``time`` (N,), (N, margin + L + margin, C); overlapping events at their own times."""
        if not self.overlapping:
            return cut_all(self.signals, *self.by_recording(time), bank.before + margin, bank.length + 2 * margin)
        columns = self.by_recording(self.time, self.type, self.amplitude)
        return np.concatenate([cut_apart(bank, *own, margin) for own in zip(self.signals, *columns, strict=True)])

    @property
    def search_from(self):
        """Where events are looked for: around their labels; overlapping ones around the times known so far."""
        return self.time if self.overlapping else self.label


def learn_templates(signals, labels, before, length, shrink=True, rounds=3, scale_evidence=True):
    """Template bank from labels alone: average (of events that overlap: least squares), re-align, repeat.

    How far a snippet may move is learned too: exact labels hardly move, labels by hand move freely; the mean move of
    each type is zero, so the bank keeps the labels' time origin.

    Parameters
    ----------
    signals, labels : whitened (n, C), and Events, of each recording
    before, length : samples of a template ahead of the label, and in all
    shrink : Wiener shrinkage of the averages
    rounds : averages; with 1, labels are taken as exact
    scale_evidence : learn ``evidence_scale`` too

    Returns
    -------
    bank : TemplateBank
    jitter : standard deviation of label minus signal time, samples

    Raises
    ------
    DataError : no labelled event at all
    """
    if not any(len(table) for table in labels):
        raise DataError("there is not one labelled event to learn from; give events with at least one row")
    events, names = _LabelledEvents(signals, labels, length), labels[0].names
    first_guess, type = LABEL_JITTER_S * labels[0].sampling_rate_hz, events.type
    jitter = first_guess
    for round_ in range(rounds):
        mean, worth = events.average(before, length)
        bank = TemplateBank(shrink_templates(mean, worth) if shrink else mean, before, names)
        if round_ == rounds - 1:
            break
        pieces = events.around(bank, events.search_from, _search_reach(jitter))
        moves, amplitude = _best_fit(bank, pieces, events.search_from - events.label, type, jitter)
        bias = events.mean_of_type(moves)[type]
        events.time = events.label + moves - bias
        jitter = float(np.clip(np.sqrt(np.mean((moves - bias) ** 2)), 0.2, 5 * first_guess))
        if events.overlapping:
            events.amplitude = amplitude / events.mean_of_type(amplitude)[type]
    bank = replace(bank, amplitude_spread=_amplitude_spread(bank, events), log_rate=_log_rate(labels))
    bank = replace(bank, most_unexplained=_most_unexplained(bank, events))
    if scale_evidence:
        reach = _search_reach(jitter)
        wide = events.around(bank, events.search_from, reach)
        bank = replace(bank, evidence_scale=_evidence_scale(bank, wide, type, reach))
    return bank, jitter


def _search_reach(jitter):
    """Samples on either side within which an event is looked for, three standard deviations of the labels."""
    return int(np.ceil(3 * jitter)) + 1


def _log_rate(labels):
    """Log of each type's share of the events in completely labelled spans, relative to the mean share, (E,).

    Elsewhere events were merely picked, and their numbers say nothing of rates.
    """
    counts = sum(table[table.is_labelled(table.sample)].counts() for table in labels)
    if counts.sum() == 0:
        return np.zeros(len(counts))
    return np.clip(np.log((counts + 0.5) / (counts.mean() + 0.5)), -8.0, 2.0)


def _evidence_scale(bank, wide, type, reach):
    """The exponent of the evidence, at most 1, that makes the labelled types most probable.

    ``wide`` (N, reach + L + reach, C) are the labelled events, of ``type`` (N,). Each type may move to its best place
    within ``reach`` samples, as in detection; an event's own type is the average of the other events of the type.
    """
    count = np.bincount(type, minlength=len(bank.names))
    if (count > 1).sum() < 2:
        return 1.0
    wide, type = wide[count[type] > 1], type[count[type] > 1]
    rows = np.arange(len(type))
    n, weight = (
        values[type][:, None, None].astype(np.float32) for values in (count, bank.norm**2 / (bank.norm**2 + 1))
    )
    others = (n * bank.templates[type] - weight * wide[:, reach : reach + bank.length]) / (n - 1)
    others /= np.maximum(np.sqrt((others**2).sum((1, 2), keepdims=True)), 1e-6)
    evidence, own = np.empty((len(type), len(count))), correlate_own(wide, others, rows)
    for some, score in correlate_snippets(wide, bank.shapes):
        score[np.arange(len(score)), :, type[some]] = own[some]
        evidence[some] = (bank.log_likelihood_ratio(score) - bank.log_rate).max(axis=1)
    evidence = np.where(count > 0, evidence, -1e6)
    grid = np.exp(np.linspace(np.log(1e-3), 0, 60))
    logits = (scale * evidence + bank.log_rate for scale in grid)
    loss = np.array([np.mean(logsumexp(logit, axis=1) - logit[rows, type]) for logit in logits])
    # Where many exponents explain the labels equally well, evidence counts in full.
    return float(grid[np.flatnonzero(loss <= loss.min() + 1e-6)[-1]])


def _best_fit(bank, pieces, moved, type, jitter):
    """How far each labelled event lies from its label, in samples, and its amplitude: likelihood times prior.

    ``pieces`` (N, margin + L + margin, C) were cut ``moved`` (N,) samples from the labels.
    """
    reach = (pieces.shape[1] - bank.length) // 2
    lags, rows = np.arange(-reach, reach + 1), np.arange(len(type))
    score = correlate_own(pieces, bank.shapes, type)
    value = bank.norm[type, None] * score - 0.5 * ((lags + moved[:, None]) / jitter) ** 2
    best = np.clip(value.argmax(axis=1), 1, len(lags) - 2)
    offset, _ = refine_peak(value.T, best, rows)
    return moved + lags[best] + offset, np.maximum(bank.amplitude(score[rows, best], type), MIN_AMPLITUDE)


def _most_unexplained(bank, events):
    """How much energy may be left around an event, as a share of its own (`TemplateBank.unexplained`)."""
    pieces = events.around(bank, events.time)
    amplitude = np.maximum(bank.own_scores(pieces, events.type) / bank.norm[events.type], MIN_AMPLITUDE)
    left = pieces - amplitude[:, None, None] * bank.templates[events.type]
    n = left[0].size
    misfit = ((left.astype(np.float64) ** 2).sum((1, 2)) - n) / np.sqrt(2.0 * n)
    worst = np.quantile(bank.unexplained(misfit, amplitude, events.type), WORST)
    return float(max(WORST_TIMES * worst, LEAST_UNEXPLAINED))


def _amplitude_spread(bank, events):
    """Standard deviation of the amplitudes of labelled events beyond what noise makes of them."""
    norm = bank.norm[events.type]
    amplitude = bank.own_scores(events.around(bank, events.time), events.type) / norm
    extra = (amplitude - events.mean_of_type(amplitude)[events.type]) ** 2 - 1 / norm**2
    return float(np.clip(np.sqrt(max(np.mean(extra), 0.0)), 0.15, 0.5))


def self_train(bank, signals, labels, rounds=5, shrink=True, widen=True, progress=None) -> TemplateBank:
    """Detect, weight by posterior, re-align, re-average, repeat; labelled events keep weight 1.

    ``labels`` are what is known: a detection in a completely labelled span that is no labelled event has weight 0. With
    ``widen`` templates may grow: many detections show where events begin and end, a few labels do not.
    """
    for round_ in range(rounds):
        found = [_weighted_detections(bank, signal, table) for signal, table in zip(signals, labels, strict=True)]
        times, types, weights, distances, matched = zip(*found, strict=True)
        if widen and round_ > 0:
            bank = _widened(bank, signals, labels[0], times, types, weights)
        pieces = cut_all(signals, times, bank.before, bank.length)
        mean, worth = average_snippets(pieces, np.concatenate(types), np.concatenate(weights), len(bank.names))
        known = worth > 0
        mean[~known], worth[~known] = bank.templates[~known], 1.0
        bank = replace(bank, templates=shrink_templates(mean, worth) if shrink else mean)
        # The labels keep the time origin: detections may not drift away from them together.
        distance, type = np.concatenate(distances), np.concatenate(matched)
        own = [distance[type == e] for e in range(len(bank.names))]
        bank = bank.shifted(np.array([np.median(values) if len(values) else 0.0 for values in own]))
        if progress is not None:
            progress()
    return bank


def _weighted_detections(bank, signal, labels):
    """Times, types and weights of labels and detections; distance to, and type of, the labels that were detected."""
    found = find_candidates(bank, signal)
    found = found[(found.margin > 0) & (found.llr > PRIOR_LOGIT - 3)]
    weight = expit(found.llr - PRIOR_LOGIT)
    row, label, distance = nearest_label(found, labels, SAME_LABEL_S * labels.sampling_rate_hz)
    weight[row] = 0.0  # the label itself counts, with weight 1, at the time of the detection
    weight[labels.is_labelled(split_time(found.time)[0])] = 0.0
    time = labels.time_samples
    time[label] = found.time[row]
    keep = weight > 0.05
    columns = (found.time[keep], time), (found.type[keep], labels.type), (weight[keep], np.ones(len(labels)))
    return *map(np.concatenate, columns), distance, labels.type[label]


def _widened(bank, signals, table, times, types, weights):
    """The bank, its window grown to where the averages of what was found begin and end."""
    found = []
    for time, type, weight in zip(times, types, weights, strict=True):
        sure = np.flatnonzero(weight > 0.5)
        sure = sure[:: max(1, len(sure) * len(times) // WIDEN_EVENTS)]
        found.append(Events(*split_time(time[sure]), type[sure], table.names, table.sampling_rate_hz))
    before, length = choose_window(signals, found)
    ahead = max(before - bank.before, 0)
    behind = max(length - before - (bank.length - bank.before), 0)
    templates = np.pad(bank.templates, ((0, 0), (ahead, behind), (0, 0)))
    return replace(bank, templates=templates, before=bank.before + ahead)


def nearest_label(candidates, labels, reach):
    """Pair candidates with labels of their type within ``reach`` samples.

    Every label takes the candidate with the greatest llr in reach; where two labels take the same, the first keeps it.

    Returns
    -------
    rows, owners : (n,) rows of the candidates, and of their labels
    distance : (n,) samples, candidate minus label
    """
    none = np.zeros(0, dtype=int)
    rows, owners = [none], [none]
    for e in np.unique(labels.type):
        own, mine = np.flatnonzero(candidates.type == e), np.flatnonzero(labels.type == e)
        near, valid = rows_within(candidates.time[own], labels.time_samples[mine], reach)
        hit = np.flatnonzero(valid.any(axis=1))
        if len(hit):
            best = np.where(valid, candidates.llr[own][near], -np.inf)[hit].argmax(axis=1)
            chosen, first = np.unique(own[near[hit, best]], return_index=True)
            rows.append(chosen)
            owners.append(mine[hit][first])
    rows, owners = np.concatenate(rows), np.concatenate(owners)
    return rows, owners, candidates.time[rows] - labels.time_samples[owners]
