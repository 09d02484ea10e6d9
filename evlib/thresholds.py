"""Per-type thresholds that give the best F1 on development examples."""

import numpy as np

# Pooled counts that every type borrows, worth so many events: a type with few events of its own follows the others.
BORROWED_EVENTS = 20.0
# Thresholds whose F1 is this close to the best, or that decide otherwise of less than half an event, count as equal; of the
# middle half of them, the nearest to even odds is taken, where calibrated log odds have their best F1.
PLATEAU, PLATEAU_EVENTS = 0.002, 0.5
# Thresholds that are tried, evenly from the weakest true candidates to three quarters of them; a few reach to the strongest,
# and a few below them all.
GRID, BELOW, WEAKEST, STRONG = 96, 8, 0.002, (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
# Share of the labels found at best that must be found to tell what share of events they are.
TELLING = 0.8
# Log odds beyond these are as certain as can be.
LOWEST, HIGHEST = -30.0, 60.0


def threshold_grid(logit, is_true):
    """Thresholds worth a try, sorted: every logit there is, or about a hundred values among those of true events."""
    logit = np.clip(np.asarray(logit, dtype=np.float64), LOWEST, HIGHEST)
    every = np.unique(logit) if len(logit) else np.zeros(1)
    if len(every) <= GRID:
        return every
    if not np.any(is_true):
        return np.quantile(every, np.linspace(0, 1, GRID))
    weakest, *strong = np.quantile(logit[is_true], (WEAKEST, *STRONG))
    return np.unique(np.r_[np.linspace(every[0], weakest, BELOW), np.linspace(weakest, strong[0], GRID), strong])


def choose_thresholds(grid, hits, false, n_events, recalled=None, found=None):
    """Thresholds (E,) and the F1 per type (E,) that they reach.

    Parameters
    ----------
    grid : (G,) thresholds, sorted
    hits, false : (E, G) true and false detections at each of them in what is labelled completely
    n_events : (E,) labelled events, there and elsewhere
    recalled, found : (E, G) labelled events that are detected, and all detections, where only some events are labelled;
        see `unlabelled_false`
    """
    plateau = max(PLATEAU, PLATEAU_EVENTS / max(np.sum(n_events), 1.0))
    borrowed = BORROWED_EVENTS / max(np.mean(n_events), 1.0)
    recalled, found = (np.zeros(np.shape(hits)) if part is None else part for part in (recalled, found))
    hits, false, n_events, recalled, found = (
        counts + borrowed * np.mean(counts, 0) for counts in (hits, false, n_events, recalled, found)
    )
    hits, false = hits + recalled, false + unlabelled_false(recalled, found, labelled_share(recalled, found)[:, None])
    f1 = 2 * hits / np.maximum(hits + false + n_events[:, None], 1e-12)
    good = f1 >= f1.max(axis=1, keepdims=True) - plateau
    # The plateau that holds the maximum, not a second one elsewhere.
    best = f1.argmax(axis=1)
    thresholds = np.empty(len(f1))
    for e in range(len(f1)):
        outside = np.flatnonzero(~good[e])
        first = outside[outside < best[e]].max(initial=-1) + 1
        last = outside[outside > best[e]].min(initial=len(grid)) - 1
        # Between two neighbours on the grid the lower of which is too low all values do the same.
        low, high = grid[max(first - 1, 0)], grid[last]
        margin = 0.25 * (high - low)
        thresholds[e] = np.clip(0.0, low + margin, high - margin)
    return thresholds, f1[np.arange(len(f1)), best]


def labelled_share(recalled, found):
    """(...,) the share of events that is labelled: of detections at the threshold where most are labelled.

    ``recalled``, ``found``: (..., G). Strict thresholds, which find much less than is found at best, leave too few to tell.
    """
    enough = recalled >= TELLING * recalled.max(-1, keepdims=True)
    return np.where(enough, recalled / np.maximum(found, 1e-12), 0).max(-1)


def unlabelled_false(recalled, found, share):
    """False detections where only a ``share`` of events is labelled, counted as if they were as rare as the labels.

    If all detections were true, the labelled ones among them would be that share of them; what they are fewer is false.
    Source: Lee and Liu (ICML 2003), precision and recall from positive and unlabelled examples.
    """
    return np.maximum(found * share - recalled, 0)
