"""The label-budget study: what is done stays done, statistics agree with brute force, recipes differ where they say
so."""

import json
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

import evlib
from evlib.signals.errors import OptionError
from evlib.signals.synthetic import make_templates
from evlib.studies import label_budgets
from evlib.studies.label_budgets import (
    METHODS,
    ORACLE,
    StudyConfig,
    paired_differences,
    run_on_splits,
    run_study,
    summarise,
)

matplotlib.use("agg")
TINY = StudyConfig(train_s=40.0, test_s=20.0, n_types=2, max_epochs=1, frame_epochs=1)
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

    def spy(split, seed, missing, size):
        asked.append(missing)
        yield from fresh(split, seed, missing, size)

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
    readers, taught = label_budgets.READERS, label_budgets.TAUGHT
    assert [recipes[m][1].get("pretrain") for m in readers + taught] == [None, *"AVCM", *"AVCM", None, *"AVCM"]
    assert [recipes[m][1].get("freeze_encoder") for m in readers + taught] == [False] * 5 + [True] * 4 + [False] * 5
    rest = [
        {k: v for k, v in recipes[m][1].items() if k not in ("pretrain", "freeze_encoder")} for m in readers + taught
    ]
    assert all(options == rest[0] for options in rest)
    assert {recipes[m][0] for m in METHODS[:3]} == {"matched_filter"} and {recipes[m][0] for m in METHODS[3:5]} == {
        "lstm"
    }


def test_only_taught_networks_hear_what_the_filter_found():
    ground = {method: label_budgets._GROUND.get(method, "labelled") for method in METHODS}
    assert {ground[m] for m in label_budgets.READERS} == {"labelled"}
    assert {ground[m] for m in (*label_budgets.TAUGHT, "network", "self-trained filter")} == {"self-trained"}


def test_recordings_are_judged_together_and_remembered_by_what_they_hold(tmp_path, monkeypatch):
    templates = make_templates(2, seed=0)
    made = [evlib.make_recording(templates, 20.0, seed=k) for k in range(4)]
    pairs = [(one.recording, one.events) for one in made]
    splits = [label_budgets.Split(pairs[:2], pairs[2:]), label_budgets.Split(pairs[2:], pairs[:2])]
    table = run_on_splits(tmp_path, splits, [3], ["matched filter"], TINY, progress=False)
    assert table[["snr", "seed"]].to_numpy().tolist() == [[0.0, 0], [0.0, 1]]
    detector = evlib.fit(pairs[:2], method="matched_filter", labels_per_type=3, seed=0, progress=False)
    reports = [evlib.compare(events, evlib.detect(detector, recording)) for recording, events in pairs[2:]]
    hits, others = sum(r.tp for r in reports), sum(r.n_estimated + r.n_reference for r in reports)
    assert table.f1[0] == pytest.approx(2 * hits / others) and table.f1[0] > 0.5

    def forbidden(*args, **options):
        raise AssertionError("run again")

    monkeypatch.setattr(label_budgets, "_fresh_rows", forbidden)
    pd.testing.assert_frame_equal(run_on_splits(tmp_path, splits, [3], ["matched filter"], TINY, progress=False), table)
    moved = [(recording, replace(events, sample=events.sample + 1)) for recording, events in pairs[2:]]
    for other in (splits[::-1], [replace(splits[0], tolerance_s=0.01)], [replace(splits[0], test=moved)]):
        with pytest.raises(AssertionError, match="run again"):
            run_on_splits(tmp_path, other, [3], ["matched filter"], TINY, progress=False)
    with pytest.raises(OptionError, match="methods must be among"):  # nobody knows the true templates of recordings
        run_on_splits(tmp_path, splits, [3], [ORACLE], TINY, progress=False)


def made_up(values, method="a", budget=1):
    return pd.DataFrame(
        {"snr": 12.0, "seed": range(len(values)), "labels_per_type": budget, "method": method, "f1": values}
    )


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
    assert pairs.describe_difference.tolist() == ["better", "worse", "open"]
    assert pairs.difference.to_numpy() == pytest.approx([0.01, -0.02, 0.0])
    few = paired_differences(table[table.seed < 2], [("b", "a")])
    assert few.describe_difference.tolist() == ["open"]  # two frames prove nothing


def test_figure_has_a_line_per_method_and_all_at_the_end():
    from evlib.inspection.plots import plot_label_budgets

    table = pd.concat([made_up([0.5, 0.7], m, n) for n in (1, 5, 0) for m in ("a", "b", ORACLE)])
    ax = plot_label_budgets(summarise(table))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "all"]
    assert len(ax.lines) == 3 and ax.get_ylabel() and ax.get_legend() is not None
    with pytest.raises(OptionError, match="lacks the column"):
        plot_label_budgets(table)


def test_a_frozen_encoder_is_drawn_beside_the_same_one_fine_tuned():
    from matplotlib.colors import to_rgba

    from evlib.inspection.plots import plot_label_budgets

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
