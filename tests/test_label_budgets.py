"""The label-budget study: what is done stays done, statistics agree with brute force, recipes differ where they say so."""

import json
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from evlib import label_budgets
from evlib.errors import OptionError
from evlib.label_budgets import METHODS, ORACLE, StudySize, paired_differences, run_study, summarise

matplotlib.use("agg")
TINY = StudySize(train_s=40.0, test_s=20.0, n_types=2, max_epochs=1, frame_epochs=1)
FILTERS = ("averaged snippets", "self-trained filter")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(folder, [0, 1], [12.0], [2, 0], FILTERS, TINY, progress=False)


def test_one_row_per_frame_budget_and_method_in_order(study):
    _, table = study
    assert len(table) == 2 * 2 * (len(FILTERS) + 1)
    assert table["labels_per_type"].drop_duplicates().tolist() == [2, 0]  # all labels come last
    assert table["method"].drop_duplicates().tolist() == [*FILTERS, ORACLE]
    assert (table[table.method == ORACLE].f1 > 0.9).all()
    assert table.f1.between(0, 1).all()


def test_methods_see_the_same_labels_and_more_labels_help_the_average(study):
    _, table = study
    average = table[table.method == "averaged snippets"].groupby("labels_per_type")["f1"].mean()
    assert average[0] > average[2]


def test_what_is_done_is_not_done_again(study, monkeypatch):
    folder, table = study

    def forbidden(*args, **options):
        raise AssertionError("a finished unit was run again")

    monkeypatch.setattr(label_budgets, "_fresh_rows", forbidden)
    again = run_study(folder, [0, 1], [12.0], [2, 0], FILTERS, TINY, progress=False)
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(AssertionError, match="run again"):  # other settings are another study
        run_study(folder, [0], [12.0], [2], FILTERS, replace(TINY, test_s=21.0), progress=False)


def test_a_study_that_was_cut_off_does_the_rest_only(study, tmp_path, monkeypatch):
    folder, table = study
    kept = [file for file in folder.glob("*.json") if json.loads(file.read_text())["method"] != "self-trained filter"]
    for file in kept:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    asked = []
    fresh = label_budgets._fresh_rows

    def spy(seed, snr, missing, size):
        asked.append(missing)
        yield from fresh(seed, snr, missing, size)

    monkeypatch.setattr(label_budgets, "_fresh_rows", spy)
    again = run_study(tmp_path, [0, 1], [12.0], [2, 0], FILTERS, TINY, progress=False)
    assert asked == [{2: ["self-trained filter"], 0: ["self-trained filter"]}] * 2
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("magic",)}, "methods must be among"),
        ({"seeds": []}, "seeds must be"),
        ({"snrs": [-1.0]}, "snrs must be"),
        ({"budgets": [1, -2]}, "budgets must be"),
    ],
)
def test_refusals(tmp_path, change, words):
    options = {"seeds": [0], "snrs": [12.0], "budgets": [1], "methods": FILTERS} | change
    with pytest.raises(OptionError, match=words):
        run_study(tmp_path, **options, size=TINY, progress=False)
    assert not list(tmp_path.iterdir())


def test_recipes_differ_in_the_encoder_alone():
    encoders = {"autoencoder": "A", "variational": "V", "contrastive": "C", "masked": "M"}
    recipes = {method: label_budgets._recipe(method, TINY, encoders) for method in METHODS}
    assert [recipes[m][1].get("pretrain") for m in METHODS[-9:]] == [None, *"AVCM", *"AVCM"]
    assert [recipes[m][1].get("freeze_encoder") for m in METHODS[-9:]] == [False] * 5 + [True] * 4
    rest = [{k: v for k, v in recipes[m][1].items() if k not in ("pretrain", "freeze_encoder")} for m in METHODS[-9:]]
    assert all(options == rest[0] for options in rest)
    assert {recipes[m][0] for m in METHODS[:3]} == {"matched_filter"} and {recipes[m][0] for m in METHODS[3:5]} == {"lstm"}


def made_up(values, method="a", budget=1):
    return pd.DataFrame({"snr": 12.0, "seed": range(len(values)), "labels_per_type": budget, "method": method, "f1": values})


def test_summary_is_the_mean_over_frames_and_leaves_missing_values_out():
    summary = summarise(pd.concat([made_up([0.5, 0.7, None]), made_up([None, None, None], "b")]))
    first, second = summary.itertuples()
    assert (first.mean, first.n) == (pytest.approx(0.6), 2) and first.low == 0.5 and first.high == 0.7
    assert np.isnan(second.mean) and second.n == 0


def test_pairs_are_compared_frame_by_frame():
    # Frames differ far more than methods do: only the paired difference shows it.
    base = np.array([0.1, 0.5, 0.9, 0.3])
    table = pd.concat([made_up(base), made_up(base + 0.01, "b"), made_up(base - 0.02, "c"), made_up(base[::-1], "d")])
    pairs = paired_differences(table, [("b", "a"), ("c", "a"), ("d", "a")])
    assert pairs.verdict.tolist() == ["better", "worse", "open"]
    assert pairs.difference.to_numpy() == pytest.approx([0.01, -0.02, 0.0])
    few = paired_differences(table[table.seed < 2], [("b", "a")])
    assert few.verdict.tolist() == ["open"]  # two frames prove nothing


def test_figure_has_a_line_per_method_and_all_at_the_end():
    from evlib.plots_pretraining import plot_label_budgets

    table = pd.concat([made_up([0.5, 0.7], m, n) for n in (1, 5, 0) for m in ("a", "b", ORACLE)])
    ax = plot_label_budgets(summarise(table))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "all"]
    assert len(ax.lines) == 3 and ax.get_ylabel() and ax.get_legend() is not None
    with pytest.raises(OptionError, match="lacks the column"):
        plot_label_budgets(table)
