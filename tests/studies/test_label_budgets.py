"""Results over few labels: means and paired differences agree with what was put in; the figure shows each method."""

import numpy as np
import pandas as pd
import pytest

from evlib.inspection.plots import plot_label_budgets
from evlib.signals.errors import OptionError
from evlib.studies.label_budgets import paired_differences, summarise


def made_up(values, method="a", budget=1):
    return pd.DataFrame(
        {"snr": 12.0, "seed": range(len(values)), "labels_per_type": budget, "method": method, "f1": values}
    )


def test_summary_is_the_mean_over_seeds_and_leaves_missing_values_out():
    summary = summarise(pd.concat([made_up([0.5, 0.7, None]), made_up([None, None, None], "b")]))
    first, second = summary.itertuples()
    assert (first.mean, first.n) == (pytest.approx(0.6), 2) and first.low == 0.5 and first.high == 0.7
    assert np.isnan(second.mean) and second.n == 0


def test_pairs_are_compared_seed_by_seed():
    # Machines differ far more than methods do: only the paired difference shows it.
    base = np.array([0.1, 0.5, 0.9, 0.3])
    table = pd.concat([made_up(base), made_up(base + 0.01, "b"), made_up(base - 0.02, "c"), made_up(base[::-1], "d")])
    pairs = paired_differences(table, [("b", "a"), ("c", "a"), ("d", "a")])
    assert pairs.outcome.tolist() == ["better", "worse", "open"]
    assert pairs.difference.to_numpy() == pytest.approx([0.01, -0.02, 0.0])
    few = paired_differences(table[table.seed < 2], [("b", "a")])
    assert few.outcome.tolist() == ["open"]  # two machines prove nothing


def test_figure_has_a_line_per_method_and_all_at_the_end():
    table = pd.concat([made_up([0.5, 0.7], m, n) for n in (1, 5, 0) for m in ("a", "b", "oracle")])
    ax = plot_label_budgets(summarise(table))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "all"]
    assert len(ax.lines) == 3 and ax.get_ylabel() and ax.get_legend() is not None
    with pytest.raises(OptionError, match="lacks the column"):
        plot_label_budgets(table)


def test_a_frozen_encoder_is_drawn_beside_the_same_one_fine_tuned():
    from matplotlib.colors import to_rgba

    names = ("frames", "frames, contrastive", "probe, contrastive")
    rows = [{"method": m, "labels_per_type": n, "mean": 0.5, "low": 0.4, "high": 0.7} for m in names for n in (2, 5)]
    ax = plot_label_budgets(pd.DataFrame(rows), order=names)
    lines = {bars.get_label(): bars.lines[0] for bars in ax.containers}
    assert list(lines) == list(names)
    colours = [to_rgba(line.get_color()) for line in lines.values()]
    assert len(set(colours)) == 3
    assert [line.get_linestyle() for line in lines.values()] == ["-", "-", ":"]
    left = [line.get_xdata()[0] for line in lines.values()]
    assert left == sorted(left) and left[1] == 0 and max(left) < 0.5
