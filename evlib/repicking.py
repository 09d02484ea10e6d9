"""Re-picking: events that a matching pursuit explained, put at a better time nearby once their neighbours are known.

The pursuit decides on the clearest events first, while those around them are still in the signal. Where an event looks
like itself some time later, as an oscillation or a bell does one period on, its neighbours then decide for the wrong
place, and its neighbours' amplitudes adapt to it. So a place is judged by its profile likelihood: the greatest over
the amplitudes of the event and of all that overlap with it.

The work grows with the recording and not with what is in it: events in a crowd stay where they are, so that an event has
a bounded number of neighbours; after a move only the events around it are weighed again; and rounds are numbered.
"""

import numpy as np

from .templates import nearest_step, refine_peak

# Overlaps are tabulated in steps of a part of a sample: amplitudes of events that nearly coincide change reluctantly.
RIDGE = 0.05
# An event keeps its place unless this share of it is its own, not to be explained by its neighbours, here and there.
ALONE = 0.5
# An event moves only for as much log-likelihood as makes a candidate certain.
GAIN = 6.0
# So many other places are weighed for each event.
PLACES = 4
# Rounds of moves; in each, the event with the greatest gain of its surroundings moves.
ROUNDS = 40
# So many explained events within a template length on either side are a crowd: templates that explain each other, not
# events. Sixty ringing events that each begin in the ring of nine others come to 10.
CROWD = 16
# Numbers in the largest array of a profile (16 MB): events are weighed in portions of as many as that allows.
PORTION = 1 << 21


def n_near(time, other, reach):
    """(N,) how many of the sorted times ``other`` lie at most ``reach`` away from each time."""
    return np.searchsorted(other, time + reach, side="right") - np.searchsorted(other, time - reach)


def repick(bank, whitened, score, time, type, peak):
    """Move explained events to their next best time nearby where that makes the signal likelier.

    Parameters
    ----------
    bank : TemplateBank
    whitened : (n, C) signal
    score : (n, E) template scores of the signal without the events
    time, type, peak : (N,) samples, type and template score of the events

    Returns
    -------
    time, type, peak, score : as they are after the last move, events sorted by time
    """
    order = np.lexsort((type, time))
    time, type, peak = time[order], type[order], peak[order]
    height = bank.amplitude(peak, type) * bank.norm[type]
    fixed = n_near(time, time, bank.length) >= CROWD
    weigh = ~fixed  # events to be weighed in this round
    left = None  # of the signal without the events; not known before the first move
    for _ in range(ROUNDS):
        rows = np.flatnonzero(weigh)
        gain, place, best, adapt = _proposals(bank, score, time, type, height, rows)
        hopeful = np.flatnonzero(gain > GAIN)
        # Of events whose neighbours overlap, one moves at a time.
        rival, valid = _within(time[rows], time[rows[hopeful]], 4 * bank.length)
        movers = hopeful[gain[hopeful] >= np.where(valid, gain[rival], 0).max(axis=1, initial=0)]
        if len(movers) == 0:
            break
        if left is None:
            left = whitened - bank.render(len(whitened), time, type, height / bank.norm[type])
        row, owner, change = (np.concatenate(values) for values in zip(*(adapt(k) for k in movers), strict=True))
        new_time, new_height = time.copy(), height.copy()
        new_time[rows[movers]], new_height[rows[movers]] = place[movers], best[movers]
        np.add.at(new_height, row, change)
        owner = np.r_[rows[movers], rows[owner]]
        changed = np.r_[rows[movers], row]
        after = _without(bank, left, time, type, height, new_time, new_height, np.unique(changed))
        # What the table of overlaps promised is not always so: then the event stays where it is, for good.
        worse = _is_worse(bank, left, after, time, type, height, new_height, rows[movers], changed, owner)
        if worse.any():
            fixed[rows[movers[worse]]] = True
            undo = changed[np.isin(owner, rows[movers[worse]])]
            new_time[undo], new_height[undo] = time[undo], height[undo]
            changed = np.setdiff1d(changed, undo)
            after = _without(bank, left, time, type, height, new_time, new_height, changed)
        touched = np.unique(changed)
        near = np.sort(np.r_[time[touched], new_time[touched]])
        time, height, left = new_time, new_height, after
        if len(touched):
            score = bank.scores(left)
            peak[touched] = _own_score(bank, score, time[touched], type[touched], height[touched], reach=0)[0][:, 0]
        # Others have the places, the neighbours and the scores that they had.
        weigh = n_near(time, near, 3 * bank.length + bank.reach) > 0
        weigh[rows[hopeful]] = True
        weigh &= ~fixed
        order = np.lexsort((type, time))
        time, type, peak, height, weigh, fixed = (values[order] for values in (time, type, peak, height, weigh, fixed))
    if left is not None:
        score = bank.scores(whitened - bank.render(len(whitened), time, type, bank.amplitude(peak, type)))
    return time, type, peak, score


def _proposals(bank, score, time, type, height, rows):
    """Where each of some events (R,) would go: its gain, its place and its height there, (R,) each.

    And a function that gives of row k the neighbours, k itself and the change of their heights, (K,) each.
    """
    gain, place, best, portions = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows)), []
    widest = int(n_near(time[rows], time, 2 * bank.length).max(initial=1))
    step = max(1, PORTION // widest**2)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        places, own = _places(bank, score, time[part], type[part], height[part])
        evidence, heights, neighbour, change = _profile(bank, score, time, type, height, places, own, part)
        choice, here = evidence.argmax(axis=1), np.arange(len(part))
        gain[start : start + step] = evidence[here, choice] - evidence[:, 0]
        place[start : start + step], best[start : start + step] = places[here, choice], heights[here, choice]
        portions.append((neighbour, change[here, :, choice]))

    def adapt(k):
        neighbour, change = (values[k % step] for values in portions[k // step])
        some = change != 0
        return neighbour[some], np.full(some.sum(), k), change[some]

    return gain, place, best, adapt


def _without(bank, left, time, type, height, new_time, new_height, changed):
    """What is left of the signal once the ``changed`` events have their new times and heights, (n, C)."""
    both = np.r_[time[changed], new_time[changed]], np.r_[type[changed], type[changed]]
    return left + bank.render(len(left), *both, np.r_[height[changed], -new_height[changed]] / bank.norm[both[1]])


def _is_worse(bank, before, after, time, type, height, new_height, movers, changed, owner):
    """Which movers make their surroundings less likely: energy that is left, and improbable heights."""
    difference = np.square(after, dtype=np.float64).sum(1) - np.square(before, dtype=np.float64).sum(1)
    total = np.r_[0.0, np.cumsum(difference)]
    reach = 3 * bank.length + bank.reach
    low, high = (np.clip(np.floor(time[movers] + r).astype(int), 0, len(before)) for r in (-reach, reach))
    norm = bank.norm[type[changed]]
    unlikely = (new_height[changed] - norm) ** 2 - (height[changed] - norm) ** 2
    unlikely = np.bincount(owner, unlikely * _precision(bank, type[changed]), len(time))[movers]
    return total[high] - total[low] + unlikely > 0


def _precision(bank, type):
    """Of the normal distribution of heights about their mean, the norm of the type."""
    return 1 / np.maximum(bank.amplitude_spread * bank.norm[type], 1) ** 2


def _own_score(bank, score, time, type, height, reach):
    """Score of each event's own type around it with the event put back, (N, 2 reach + 1), and its nearest sample."""
    sample, step = nearest_step(time)
    lags = np.arange(-reach, reach + 1)
    share = bank.overlap[type[:, None], step[:, None], bank.length - 1 + lags, type[:, None]]
    index = np.clip(sample[:, None] + lags, 0, len(score) - 1)
    return score[index, type[:, None]] + share * height[:, None], sample


def _places(bank, score, time, type, height):
    """Where each event is and the greatest other peaks of its own score nearby: times and scores, (N, 1 + PLACES)."""
    reach = bank.reach
    own, sample = _own_score(bank, score, time, type, height, reach)
    place = sample[:, None] + np.arange(-reach, reach + 1)
    peak = np.pad((own[:, 1:-1] > own[:, :-2]) & (own[:, 1:-1] >= own[:, 2:]), ((0, 0), (1, 1)))
    peak &= (place > 0) & (place < len(score) - 1)
    peak[:, reach - 1 : reach + 2] = False
    lag = np.argsort(np.where(peak, -own, np.inf), axis=1)[:, :PLACES].clip(1, 2 * reach - 1)
    lag = np.concatenate([np.full((len(time), 1), reach), lag], axis=1)
    offset, value = refine_peak(*(np.take_along_axis(own, lag + k, axis=1) for k in (-1, 0, 1)))
    at = np.take_along_axis(place, lag, axis=1) + offset
    at[:, 0] = time
    value[:, 1:][~np.take_along_axis(peak, lag[:, 1:], axis=1)] = 0
    return at, value


def _profile(bank, score, time, type, height, places, own, rows=None):
    """Log-likelihood of each event at its places, (N, P), its height there, its neighbours (N, K) and the change of theirs.

    The change is (N, K, P): what the neighbours' heights gain when the event is at a place. ``rows``: of these events
    only, by default of all.
    """
    rows = np.arange(len(time)) if rows is None else rows
    neighbour, valid = _within(time, time[rows], 2 * bank.length)
    valid &= neighbour != rows[:, None]
    near_time, near_type = time[neighbour], type[neighbour]
    overlap = _overlap(bank, places[:, None], type[rows, None, None], near_time[:, :, None], near_type[:, :, None])
    overlap[~valid] = 0
    gram = _gram(bank, time, type, neighbour, valid)
    precision = _precision(bank, type)
    diagonal = np.arange(neighbour.shape[1])
    gram[:, diagonal, diagonal] = 1 + RIDGE + precision[neighbour]
    # Slope of the posterior over the neighbours' heights once the event is taken away.
    at = np.clip(nearest_step(near_time)[0], 0, len(score) - 1)
    slope = score[at, near_type] + precision[neighbour] * (bank.norm[near_type] - height[neighbour])
    slope = np.where(valid, slope + overlap[:, :, 0] * height[rows, None], 0)
    solved = np.linalg.solve(gram, np.concatenate([slope[:, :, None], overlap], axis=2))
    alone, shared = solved[:, :, :1], solved[:, :, 1:]
    precision = precision[rows]
    numerator = own + (RIDGE * height[rows] + precision * bank.norm[type[rows]])[:, None] - (overlap * alone).sum(1)
    denominator = 1 + RIDGE + precision[:, None] - (overlap * shared).sum(1)
    free = (denominator > ALONE) & (denominator[:, :1] > ALONE)
    best = numerator / np.where(free, denominator, 1)
    return (
        np.where(free, 0.5 * np.maximum(numerator, 0) * best, 0),
        best,
        neighbour,
        (alone - shared * best[:, None]) * valid[:, :, None],
    )


def _gram(bank, time, type, neighbour, valid):
    """Overlaps of the neighbours (N, K) of each event with each other, (N, K, K)."""
    low, high = int(neighbour.min(initial=len(time))), int(neighbour.max(initial=-1)) + 1
    time, type, neighbour = time[low:high], type[low:high], neighbour - low
    # Each pair is looked up once, in a table of the events that overlap with each, though many share it.
    other, _ = _within(time, time, bank.length)
    pairs = _overlap(bank, time[:, None], type[:, None], time[other], type[other])
    column = neighbour[:, None] - other[:, 0][neighbour][:, :, None]
    inside = (column >= 0) & (column < pairs.shape[1]) & valid[:, :, None] & valid[:, None]
    return np.where(inside, pairs[neighbour[:, :, None], np.where(inside, column, 0)], 0)


def _within(time, middle, reach):
    """Which of the sorted times are at most ``reach`` away from each of (N,), as rows (N, K), and which of them are meant."""
    first, last = np.searchsorted(time, middle - reach), np.searchsorted(time, middle + reach, side="right")
    index = first[:, None] + np.arange((last - first).max(initial=0))
    return np.minimum(index, max(len(time) - 1, 0)), index < last[:, None]


def _overlap(bank, time, type, other_time, other_type):
    """Score of the other events' unit templates at their times in unit events (arrays that broadcast)."""
    lag, step = nearest_step(time - other_time)
    inside = np.abs(lag) < bank.length
    return np.where(inside, bank.overlap[type, step, np.where(inside, bank.length - 1 - lag, 0), other_type], 0)
