"""Segments: scores against brute force over a fine clock, over all pairings, and over the textbook's edit distance."""

import itertools

import numpy as np
import pytest

from evlib.scoring.segments import compare_segments, intersection_over_union
from evlib.signals.errors import DataError, OptionError
from evlib.signals.events import Events

NAMES = ("a", "b", "c")


def table(spans, names=NAMES):
    """Events from (start, stop, name) in whole tenths of a second."""
    onset, stop = np.array([[s, e] for s, e, _ in spans], dtype=float).reshape(-1, 2).T / 10
    return Events.from_seconds(onset, [names.index(n) for _, _, n in spans], 1000.0, names, duration_s=stop - onset)


def random_segments(rng, contiguous):
    edges = np.sort(rng.choice(60, 8, replace=False))
    kinds = rng.choice(list(NAMES), 7)
    keep = np.ones(7, bool) if contiguous else rng.random(7) < 0.7
    return [(int(s), int(e), str(n)) for s, e, n, k in zip(edges[:-1], edges[1:], kinds, keep, strict=True) if k]


def painted(spans, name):
    line = np.zeros(60, bool)
    for s, e, n in spans:
        line[s:e] |= n == name
    return line


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def most_matches(first, second, iou):
    def fits(a, b):
        shared = min(a[1], b[1]) - max(a[0], b[0])
        return a[2] == b[2] and shared > 0 and shared / (a[1] - a[0] + b[1] - b[0] - shared) >= iou - 1e-12

    if len(first) > len(second):
        first, second = second, first
    orders = itertools.permutations(second, len(first))
    return max(sum(fits(a, b) for a, b in zip(first, order, strict=True)) for order in orders)


@pytest.mark.parametrize("seed", range(12))
def test_scores_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    first, second = random_segments(rng, seed % 2), random_segments(rng, seed % 3)
    scores = compare_segments(table(first), table(second), iou=0.4)
    present = sorted({n for _, _, n in first + second})
    wanted = {}
    for name in present:
        truth, found = painted(first, name), painted(second, name)
        wanted[name] = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert scores["frame_f1_by_type"] == pytest.approx(wanted)
    assert scores["frame_f1"] == pytest.approx(np.mean(list(wanted.values())))
    orders = [[n for n, _ in itertools.groupby(n for _, _, n in spans)] for spans in (first, second)]
    assert scores["edit"] == pytest.approx(1 - levenshtein(*orders) / max(map(len, orders)))
    hits = most_matches(first, second, 0.4)
    assert scores["hits"] == hits and scores["event_f1"] == pytest.approx(2 * hits / (len(first) + len(second)))


def test_each_number_sees_another_slip():
    truth = table([(0, 20, "a"), (20, 40, "b")])
    perfect = compare_segments(truth, truth)
    assert perfect["frame_f1"] == perfect["event_f1"] == perfect["edit"] == 1.0
    pieces = compare_segments(truth, table([(0, 9, "a"), (9, 10, "c"), (10, 20, "a"), (20, 40, "b")]))
    assert pieces["frame_f1_by_type"]["b"] == 1.0 and pieces["event_f1"] < 0.7 and pieces["edit"] == 0.5
    shifted = compare_segments(truth, table([(0, 26, "a"), (26, 40, "b")]))
    assert shifted["edit"] == shifted["event_f1"] == 1.0 and shifted["frame_f1"] < 0.9
    assert compare_segments(truth, table([(0, 26, "a"), (26, 40, "b")]), iou=0.75)["hits"] == 1


def test_overlapping_events_of_one_type_are_answered_one_to_one():
    spans = [(0, 10, "a"), (2, 12, "a"), (4, 14, "a")]
    assert compare_segments(table(spans), table(spans[:1] * 3), iou=0.4)["hits"] == 3
    assert compare_segments(table(spans), table(spans[:1]), iou=0.4)["hits"] == 1


def test_other_clocks_and_names():
    truth = table([(0, 20, "a"), (20, 40, "b")])
    other = Events.from_seconds([0.0, 2.0], ["a", "b"], 44_100.0, duration_s=[2.0, 2.0])
    assert compare_segments(truth, other)["event_f1"] == 1.0
    with pytest.raises(OptionError, match="no name in common"):
        compare_segments(truth, Events.from_seconds([0.0], ["walk"], 50.0, duration_s=[1.0]))


def test_nothing_to_compare():
    empty = Events.empty(NAMES, 1000.0)
    nothing = compare_segments(empty, empty)
    assert all(np.isnan(nothing[name]) for name in ("frame_f1", "event_f1", "edit"))
    missed = compare_segments(table([(0, 20, "a")]), empty)
    assert missed["frame_f1"] == missed["event_f1"] == missed["edit"] == 0.0
    assert intersection_over_union(np.zeros((0, 2)), np.zeros((3, 2))).shape == (0, 3)
    unknown = Events.from_seconds([0.0], ["a"], 1000.0, duration_s=[np.nan])
    with pytest.raises(DataError, match="the estimated events must all have a duration"):
        compare_segments(table([(0, 20, "a")]), unknown)
    with pytest.raises(OptionError, match="iou"):
        compare_segments(empty, empty, iou=1.5)
