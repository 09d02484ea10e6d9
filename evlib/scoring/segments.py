"""Segments: events that last, scored by their overlap and by their order.

Three numbers that see different slips. *Frame F1* counts seconds, and does not see whether they are in one piece.
*Event F1* counts whole segments that overlap enough with a true one, and punishes pieces. The *edit score* compares the
order of the segments alone, and forgives shifted edges (Lea et al. 2017, https://arxiv.org/abs/1611.05267).
"""

from itertools import groupby

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ..signals.errors import DataError, require, require_number
from ..signals.events import Events
from ..signals.gaps import covered
from .matching import on_one_clock

# An overlap this little below the least one is equal to it but for rounding.
ROUNDING = 1e-9


def compare_segments(reference: Events, estimated: Events, iou: float = 0.5) -> dict:
    """Scores of segments: events with durations.

    Parameters
    ----------
    reference, estimated : Events with durations, on any clocks and with any names that overlap
    iou : least intersection over union, in seconds, of an estimated segment and the one of the same type that it
        answers, one to one

    Returns
    -------
    dict : ``frame_f1`` (macro: mean over the types that occur, of seconds), ``event_f1`` (of all segments), ``edit``
        (0 to 1), ``hits``, ``n_reference``, ``n_estimated``, and ``frame_f1_by_type``. Without any segment they are NaN

    Raises
    ------
    DataError : durations that are unknown
    OptionError : no name in common; an ``iou`` that is no share

    Examples
    --------
    >>> day = Events.from_seconds([0.0, 60.0], ["sit", "walk"], sampling_rate_hz=50, duration_s=[60.0, 40.0])
    >>> late = Events.from_seconds([0.0, 70.0], ["sit", "walk"], sampling_rate_hz=50, duration_s=[70.0, 30.0])
    >>> scores = compare_segments(day, late)
    >>> scores["event_f1"], scores["edit"], round(scores["frame_f1"], 3)
    (1.0, 1.0, 0.89)
    """
    require_number(0, 1, iou=iou)
    reference, estimated = on_one_clock(reference, estimated)
    first, second = (_spans(table, what) for table, what in ((reference, "reference"), (estimated, "estimated")))
    kinds = range(len(reference.names))
    hits = sum(_matches(first[reference.type == k], second[estimated.type == k], iou) for k in kinds)
    both = len(reference) + len(estimated)
    by_type = _frame_f1(reference, first, estimated, second)
    return {
        "frame_f1": float(np.mean(list(by_type.values()))) if by_type else float("nan"),
        "event_f1": 2 * hits / both if both else float("nan"),
        "edit": _edit_score(reference.type_names, estimated.type_names),
        "hits": hits,
        "n_reference": len(reference),
        "n_estimated": len(estimated),
        "frame_f1_by_type": by_type,
    }


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) of spans (n, 2) and (m, 2); 0 where neither lasts.

    >>> intersection_over_union(np.array([[0.0, 2.0]]), np.array([[1.0, 3.0], [0.0, 2.0], [5.0, 6.0]])).round(3)
    array([[0.333, 1.   , 0.   ]])
    """
    first, second = first[:, None], second[None]
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    shared = np.maximum(shared, 0.0)
    whole = np.ptp(first, axis=2) + np.ptp(second, axis=2) - shared
    return np.divide(shared, whole, out=np.zeros(shared.shape), where=whole > 0)


def _spans(table, what):
    """(n, 2) seconds from onset to end."""
    message = f"the {what} events must all have a duration to be compared as segments"
    require(np.isfinite(table.duration_s).all(), DataError, message)
    return np.stack([table.onset_s, table.onset_s + table.duration_s], axis=1)


def _matches(first, second, iou):
    """The most pairs that overlap enough."""
    overlap = intersection_over_union(first, second)
    near = csr_array((overlap >= iou - ROUNDING) & (overlap > 0))
    return int((maximum_bipartite_matching(near, "column") >= 0).sum()) if near.nnz else 0


def _frame_f1(reference, first, estimated, second):
    """Type -> F1 in seconds, of the types that occur."""
    edges = np.unique(np.r_[first.ravel(), second.ravel()])
    length, scores = np.diff(edges, append=edges[-1:]), {}
    for k in np.union1d(reference.type, estimated.type):
        both = [
            covered(*np.searchsorted(edges, spans[table.type == k]).T, len(edges))
            for spans, table in ((first, reference), (second, estimated))
        ]
        shared, all_in_all = length[both[0] & both[1]].sum(), sum(length[one].sum() for one in both)
        scores[reference.names[k]] = float(2 * shared / all_in_all) if all_in_all else float("nan")
    return scores


def _edit_score(reference, estimated):
    """1 - the changes that turn one order of types into the other, of the most that can be needed."""
    first, second = ([name for name, _ in groupby(names)] for names in (reference, estimated))
    longest = max(len(first), len(second))
    if not longest:
        return float("nan")
    codes = {name: k for k, name in enumerate({*first, *second})}
    second_codes = np.array([codes[name] for name in second], dtype=int)
    # Levenshtein's distance by rows; the last step of each row is a running minimum.
    place = np.arange(len(second) + 1)
    row = place.copy()
    for name in first:
        new = np.r_[row[0] + 1, np.minimum(row[1:] + 1, row[:-1] + (second_codes != codes[name]))]
        row = np.minimum.accumulate(new - place) + place
    return 1 - int(row[-1]) / longest
