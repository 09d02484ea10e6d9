"""The volume under the surface, against plain loops, and what it must do."""

import numpy as np
import pytest

from evlib.scoring.anomalies import vus_pr
from evlib.signals.errors import DataError, ShapeError


def by_loops(score, anomalous, buffer):
    """The definition, threshold by threshold."""
    spans, inside = [], False
    for k, flag in enumerate([*anomalous, False]):
        if flag and not inside:
            spans.append([k, k])
        if flag:
            spans[-1][1] = k
        inside = flag
    areas = []
    for width in range(buffer + 1):
        label = np.array(anomalous, float)
        for start, end in spans:
            for step in range(1, width // 2 + 1):
                for at in (start - step, end + step):
                    if 0 <= at < len(label) and not anomalous[at]:
                        label[at] = min(1.0, label[at] + np.sqrt(1 - step / width))
        parts, open_part = [], []
        for k in range(len(label) + 1):
            if k < len(label) and label[k] > 0:
                open_part.append(k)
            elif open_part:
                parts.append(open_part)
                open_part = []
        area, before = 0.0, 0.0
        for threshold in sorted(set(score), reverse=True):
            told = score >= threshold
            recall = min((label * told).sum() / ((sum(anomalous) + label.sum()) / 2), 1.0)
            recall *= np.mean([told[part].any() for part in parts])
            area += (recall - before) * (label * told).sum() / told.sum()
            before = recall
        areas.append(area)
    return np.mean(areas)


@pytest.mark.parametrize("seed", range(10))
def test_it_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    anomalous = np.repeat(rng.random(8) < 0.4, 5)
    anomalous[:2], anomalous[20:24] = False, True
    score = np.round(rng.normal(size=40) + anomalous, 1 if seed % 2 else 6)
    assert vus_pr(score, anomalous, 7) == pytest.approx(by_loops(score, anomalous, 7))


def test_better_scores_have_more_volume_and_a_shift_costs_less_with_a_buffer():
    anomalous = np.zeros(400, bool)
    anomalous[[*range(100, 140), *range(300, 320)]] = True
    rng = np.random.default_rng(0)
    scores = [gain * anomalous + rng.normal(size=400) for gain in (0.0, 1.0, 3.0, 10.0)]
    volumes = [vus_pr(score, anomalous, 20) for score in scores]
    assert volumes == sorted(volumes) and volumes[0] < 0.3 and volumes[-1] > 0.85
    late = np.roll(anomalous, 5).astype(float)
    assert vus_pr(late, anomalous, 40) > vus_pr(late, anomalous, 0)
    one = np.where(np.arange(400) < 200, anomalous, False).astype(float)
    assert vus_pr(one, anomalous, 0) < 0.5, "one of two spans was missed"
    assert vus_pr(np.exp(scores[1]), anomalous, 20) == pytest.approx(volumes[1]), "only the order counts"


def test_what_cannot_be_judged_is_refused():
    for score, anomalous, error, message in (
        (np.zeros(3), np.zeros(3), DataError, "only one of them"),
        (np.zeros(3), np.ones(3), DataError, "only one of them"),
        (np.array([0.0, np.nan]), np.array([0, 1]), DataError, "finite"),
        (np.zeros(3), np.zeros(4), ShapeError, "one length"),
    ):
        with pytest.raises(error, match=message):
            vus_pr(score, anomalous, 0)
