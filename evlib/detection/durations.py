"""How long events last: what the labels of a kind say, and where in the signal an event of it ends.

Labels give the durations of a kind a middle and a spread. A frame network that was taught where events end has log odds
of an end in every frame; an event ends where these and the log density of the logarithm of its duration, a normal one,
are greatest together. So a clear end is found where it is, and where there is none to be seen an event lasts as long as
its kind does in the middle.
"""

import math

import numpy as np

# Before there are labels, the logarithm of a duration has this standard deviation, which counts like so many labels:
# five that happen to be alike do not say that the next one is. Least it has in the end.
USUAL_SPREAD, BORROWED, LEAST_SPREAD = 0.4, 4, 0.05
# An end is looked for up to this many standard deviations beyond the middle.
FARTHEST = 3.0


def learn_durations(tables, n_types: int) -> tuple:
    """What labels say about how long each type lasts.

    Parameters
    ----------
    tables : Events of each recording, with the same names; durations of 0 and NaN are not known
    n_types : E

    Returns
    -------
    E pairs of the median in seconds and the standard deviation of the natural logarithm; (0, 0) for a type without
    durations, and () where no type has any

    Examples
    --------
    >>> from evlib.signals.events import Events
    >>> calls = Events.from_seconds([0.0, 2.0, 5.0], ["owl", "owl", "sat"], 100, duration_s=[0.5, 2.0, 0.0])
    >>> learn_durations([calls], 2)
    ((1.0, 0.5824184337410565), (0.0, 0.0))
    """
    type, lasts = (np.concatenate([getattr(table, name) for table in tables]) for name in ("type", "duration_s"))
    pairs = []
    for k in range(n_types):
        log = np.log(lasts[(type == k) & (lasts > 0)])
        if not len(log):
            pairs.append((0.0, 0.0))
            continue
        middle = np.median(log)
        own = np.median(np.abs(log - middle)) / 0.6745  # of a normal distribution, whatever a few slips are
        square = ((len(log) - 1) * own**2 + BORROWED * USUAL_SPREAD**2) / (len(log) - 1 + BORROWED)
        pairs.append((float(np.exp(middle)), max(float(np.sqrt(square)), LEAST_SPREAD)))
    return tuple(pairs) if any(median for median, _ in pairs) else ()


def durations_vary(tables, by_s: float) -> bool:
    """Whether durations of any type differ by more than ``by_s`` seconds: else their middle says all that there is.

    >>> from evlib.signals.events import Events
    >>> durations_vary([Events.from_seconds([0.0, 2.0], ["owl", "owl"], 100, duration_s=[0.5, 0.6])], by_s=0.05)
    True
    """
    type, lasts = (np.concatenate([getattr(table, name) for table in tables]) for name in ("type", "duration_s"))
    return any(np.ptp(lasts[(type == k) & (lasts > 0)]) > by_s for k in np.unique(type[lasts > 0]))


def farthest_end(durations, most: int) -> int:
    """Frames behind a beginning in which its end is looked for, of all types, but no more than ``most``; 0 without
    durations. ``durations`` : pairs as of `learn_durations`, the medians in frames"""
    return min(max((math.ceil(median * math.exp(FARTHEST * spread)) for median, spread in durations), default=0), most)


def find_ends(ends: np.ndarray, begin: np.ndarray, median: float, spread: float) -> np.ndarray:
    """The frames in which events of one type end.

    Parameters
    ----------
    ends : (F,) log odds that an event of the type ends, in each frame
    begin : (n,) frames in which events begin
    median, spread : of the durations of the type, see `learn_durations`; the median in frames

    Returns
    -------
    (n,) frames, each behind its ``begin``; one beyond the last frame is given as the last one

    Examples
    --------
    >>> ends = np.full(40, -6.0)
    >>> ends[25] = 2.0
    >>> find_ends(ends, np.array([5, 26]), median=10.0, spread=0.5)
    array([25, 36])
    """
    reach = max(farthest_end([(median, spread)], len(ends)), 1)
    prior = -0.5 * (np.log(np.arange(1, reach + 1) / median) / spread) ** 2
    padded = np.pad(ends, (0, reach), constant_values=ends.min(initial=0.0))
    behind = np.lib.stride_tricks.sliding_window_view(padded, reach)[begin + 1]
    return np.minimum(begin + 1 + np.argmax(behind + prior, axis=1), len(ends) - 1)
