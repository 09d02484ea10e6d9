"""Re-picking: events that a matching pursuit explained, put at a better time nearby once their neighbours are known.

The pursuit decides on the clearest events first, while those around them are still in the signal. Where an event looks
like itself some time later, as an oscillation or a bell does one period on, its neighbours then decide for the wrong
place, and its neighbours' amplitudes adapt to it. So a place is judged by its profile likelihood: the greatest over
the amplitudes of the event and of all that overlap with it.
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
    unlikelihood = None  # of the events as they are; not known before the first move
    for _ in range(ROUNDS):
        places, own = _places(bank, score, time, type, height)
        evidence, best, neighbour, change = _profile(bank, score, time, type, height, places, own)
        choice, gain = evidence.argmax(axis=1), evidence.max(axis=1) - evidence[:, 0]
        # Of events whose neighbours overlap, one moves at a time.
        rival, valid = _within(time, 4 * bank.length)
        rows = np.flatnonzero((gain > GAIN) & (gain >= np.where(valid, gain[rival], 0).max(axis=1, initial=0)))
        if len(rows) == 0:
            break
        if unlikelihood is None:
            unlikelihood = _unlikelihood(bank, whitened, time, type, height)[0]
        moved, adapted = time.copy(), height.copy()
        moved[rows], adapted[rows] = places[rows, choice[rows]], best[rows, choice[rows]]
        near, change = neighbour[rows], change[rows, :, choice[rows]]
        adapted[near[change != 0]] += change[change != 0]
        after, left = _unlikelihood(bank, whitened, moved, type, adapted)
        if after > unlikelihood:
            break  # what the table of overlaps promised is not so
        time, height, unlikelihood, score = moved, adapted, after, bank.scores(left)
        touched = np.unique(np.r_[rows, near[change != 0]])
        peak[touched] = _own_score(bank, score, time[touched], type[touched], height[touched], reach=0)[0][:, 0]
        order = np.lexsort((type, time))
        time, type, peak, height = time[order], type[order], peak[order], height[order]
    if unlikelihood is not None:
        score = bank.scores(whitened - bank.render(len(whitened), time, type, bank.amplitude(peak, type)))
    return time, type, peak, score


def _unlikelihood(bank, whitened, time, type, height):
    """Twice the negative log posterior of events, but for a constant, and what is left of the signal without them."""
    left = whitened - bank.render(len(whitened), time, type, height / bank.norm[type])
    unlikely = (height - bank.norm[type]) ** 2 * _precision(bank, type)
    return np.square(left, dtype=np.float64).sum() + unlikely.sum(), left


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


def _profile(bank, score, time, type, height, places, own):
    """Log-likelihood of each event at its places, (N, P), its height there, its neighbours (N, K) and the change of theirs.

    The change is (N, K, P): what the neighbours' heights gain when the event is at a place.
    """
    neighbour, valid = _within(time, 2 * bank.length)
    valid &= neighbour != np.arange(len(time))[:, None]
    near_time, near_type = time[neighbour], type[neighbour]
    overlap = _overlap(bank, places[:, None], type[:, None, None], near_time[:, :, None], near_type[:, :, None])
    overlap[~valid] = 0
    gram = _overlap(bank, near_time[:, :, None], near_type[:, :, None], near_time[:, None], near_type[:, None])
    gram *= valid[:, :, None] & valid[:, None]
    precision = _precision(bank, type)
    diagonal = np.arange(neighbour.shape[1])
    gram[:, diagonal, diagonal] = 1 + RIDGE + precision[neighbour]
    # Slope of the posterior over the neighbours' heights once the event is taken away.
    at = np.clip(nearest_step(near_time)[0], 0, len(score) - 1)
    slope = score[at, near_type] + precision[neighbour] * (bank.norm[near_type] - height[neighbour])
    slope = np.where(valid, slope + overlap[:, :, 0] * height[:, None], 0)
    solved = np.linalg.solve(gram, np.concatenate([slope[:, :, None], overlap], axis=2))
    alone, shared = solved[:, :, :1], solved[:, :, 1:]
    numerator = own + (RIDGE * height + precision * bank.norm[type])[:, None] - (overlap * alone).sum(1)
    denominator = 1 + RIDGE + precision[:, None] - (overlap * shared).sum(1)
    free = (denominator > ALONE) & (denominator[:, :1] > ALONE)
    best = numerator / np.where(free, denominator, 1)
    return (
        np.where(free, 0.5 * np.maximum(numerator, 0) * best, 0),
        best,
        neighbour,
        (alone - shared * best[:, None]) * valid[:, :, None],
    )


def _within(time, reach):
    """For each of the sorted times those at most ``reach`` away, (N, K), and which of them are meant."""
    first, last = np.searchsorted(time, time - reach), np.searchsorted(time, time + reach, side="right")
    index = first[:, None] + np.arange((last - first).max(initial=0))
    return np.minimum(index, len(time) - 1), index < last[:, None]


def _overlap(bank, time, type, other_time, other_type):
    """Score of the other events' unit templates at their times in unit events (arrays that broadcast)."""
    lag, step = nearest_step(time - other_time)
    inside = np.abs(lag) < bank.length
    return np.where(inside, bank.overlap[type, step, np.where(inside, bank.length - 1 - lag, 0), other_type], 0)
