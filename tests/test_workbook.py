"""Folders, figures with their numbers, checked parameters, headless runs."""

import json
import re

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from evlib import cli, workbook
from evlib.signals.errors import DataError, OptionError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("EVLIB_PROJECT", str(tmp_path))
    return tmp_path


def picture(noise=0):
    figure = Figure(figsize=(9, 6))
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1])
    if noise:
        image = np.random.default_rng(0).random((noise, noise, 3))
        ax.imshow(image, interpolation="nearest", aspect="auto")
    return figure


def write_notebook(path, *sources, parameters="seed: int = 0  # of everything\nrate: float = 1.0  # Hz"):
    v4 = nbformat.v4
    cells = [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(v4.new_code_cell, sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_folders_do_not_depend_on_the_working_directory(repository, tmp_path, monkeypatch):
    monkeypatch.delenv("EVLIB_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert workbook.project_folder("figures") == repository / "figures"
    monkeypatch.setenv("EVLIB_PROJECT", str(tmp_path))
    assert workbook.project_folder("a", "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_data_home(project, monkeypatch):
    monkeypatch.delenv("EVLIB_DATA_HOME", raising=False)
    assert workbook.data_home() is None
    (project / "recordings").mkdir()
    monkeypatch.setenv("EVLIB_DATA_HOME", "recordings")
    assert workbook.data_home() == project / "recordings"
    monkeypatch.setenv("EVLIB_DATA_HOME", "elsewhere")
    with pytest.raises(DataError, match="no folder .*elsewhere"):
        workbook.data_home()


@pytest.fixture
def notebook_style():
    with matplotlib.rc_context():
        yield


def test_start_seeds_torch_and_returns_the_parameters(notebook_style):
    import torch

    parameters = {"seeds": [3], "rate": 1e-3, "method": "lstm", "path": None}
    drawn = []
    for namespace in (parameters, parameters, {"seed": 4}):
        others = {"np": np, "RATE": 2.0, "In": [], "_": 1, "make": picture}  # what else a notebook holds
        assert workbook.start(others | namespace) == namespace
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("value", "words"), [("1e-3", "text .* not a number"), ("5", "text"), ("nan", "text"), (float("nan"), "NaN")]
)
def test_numbers_given_as_text_and_nan_are_refused(value, words):
    with pytest.raises(OptionError, match=f"rate is .*{words}"):
        workbook.start({"rate": value})


def test_figure_has_its_numbers_beside_it(project):
    metrics = {"f1": np.float32(0.5), "worst": float("nan"), "counts": np.arange(3)}
    path = workbook.save_figure(picture(), "line", {"seed": 7, "minutes": 5}, metrics)
    assert path == project / "figures" / "line.png"
    assert Image.open(path).size[0] == 9 * workbook.PNG_QUALITY[0][0]
    record = json.loads(path.with_suffix(".json").read_text())
    assert record == {
        "seed": 7,
        "parameters": {"seed": 7, "minutes": 5},
        "metrics": {"f1": 0.5, "worst": None, "counts": [0, 1, 2]},
    }
    published = workbook.save_figure(picture().axes[0], "line", {}, publish=True)
    assert published.parent.name == "published"


def test_a_busy_figure_is_made_small_enough_or_refused(project):
    path = workbook.save_figure(picture(noise=400), "busy", {})
    assert path.stat().st_size <= workbook.MAX_PNG_BYTES
    assert Image.open(path).size[0] < 9 * workbook.PNG_QUALITY[0][0]
    huge = Figure(figsize=(20, 15))
    huge.subplots().imshow(np.random.default_rng(0).random((600, 600)), interpolation="nearest")
    with pytest.raises(DataError, match="'huge' does not fit into 200 kB"):
        workbook.save_figure(huge, "huge", {})
    assert not (project / "figures" / "huge.json").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a.png"])
def test_figure_name_is_a_plain_name(project, name):
    with pytest.raises(OptionError, match="without folder or ending"):
        workbook.save_figure(picture(), name, {})


def test_declared_parameters_are_read(tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", "x = 1", parameters="a: int = -1  # one\nb = [1.0,\n 'x']\nc: str = None"
    )
    assert workbook.notebook_parameters(path) == {"a": -1, "b": [1.0, "x"], "c": None}
    path = write_notebook(tmp_path / "b.ipynb", parameters="a = 1\nb = a + 1")
    with pytest.raises(DataError, match="literal`; one is not .*a"):
        workbook.notebook_parameters(path)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"epochs": 3}, "no notebook declares the parameter epochs"),
        ({"rate": "1e-3"}, "text '1e-3', not a number.*write 1.0e-3"),
        ({"rate": "fast"}, "type float like its default 1.0, got 'fast'"),
        ({"seed": 0.5}, "type int"),
        ({"seed": True}, "type int"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(project, tmp_path, parameters, words):
    path = write_notebook(tmp_path / "a.ipynb", "raise SystemError")
    with pytest.raises(OptionError, match=words):
        workbook.run_notebooks([path], parameters)
    folder = tmp_path / "params"
    folder.mkdir()
    (folder / "a.yaml").write_text("\n".join(f"{name}: {value}" for name, value in parameters.items()))
    with pytest.raises(OptionError, match="a.ipynb"):
        workbook.run_notebooks([path], folder)
    assert not (project / "build" / "a.ipynb").exists()


def test_missing_notebooks_and_folders_are_refused(project, tmp_path):
    with pytest.raises(DataError, match="no notebook at"):
        workbook.run_notebooks([tmp_path / "none.ipynb"])
    with pytest.raises(DataError, match="no folder of parameters"):
        workbook.run_notebooks([write_notebook(tmp_path / "a.ipynb")], tmp_path / "none")


def test_run_executes_and_prints_what_was_found(project, tmp_path, capsys):
    save = (
        "from evlib.workbook import save_metrics\nimport os\nsave_metrics('a', {'rate': rate, 'folder': os.getcwd()})"
    )
    path = write_notebook(tmp_path / "a.ipynb", save)
    assert cli.main(["run", str(path), "-p", "rate", "2"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"notebook +metric +value\n +a +rate +2\n", printed) and str(project / "figures") in printed
    assert json.loads((project / "build" / "metrics" / "a.json").read_text()) == {"rate": 2, "folder": str(tmp_path)}
    executed = nbformat.read(project / "build" / "a.ipynb", as_version=4)
    assert executed.cells[-1].execution_count is not None
    assert all(cell.get("execution_count") is None for cell in nbformat.read(path, as_version=4).cells)


def test_a_sweep_collects_the_metrics_of_all_runs_and_runs_again_only_what_failed(project, tmp_path, capsys):
    source = (
        "from evlib import workbook\nassert seed < 2 or (workbook.project_folder() / 'mended').exists(), 'too many'"
    )
    save = "workbook.save_metrics('n', {'twice': 2 * seed, 'at': rate, 'list': [1]})"
    path = write_notebook(tmp_path / "n.ipynb", source, save)
    (tmp_path / "sweep.yaml").write_text("seed: [1, 2]\nrate: [0.5]\n")
    arguments = ["run", str(path), "--sweep", str(tmp_path / "sweep.yaml")]
    assert cli.main([*arguments, "--dask", "2"]) == 2
    assert "too many" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "build" / "sweeps" / "n.csv")
    assert table.columns.tolist() == ["seed", "rate", "twice", "at", "problem"]
    assert (
        table.twice[0] == 2
        and table["at"][0] == 0.5
        and table[["twice", "at"]].isna().all(axis=1).tolist() == [False, True]
    )
    done = {place: place.stat().st_mtime_ns for place in tmp_path.glob("build/sweeps/n/*/done.json")}
    for place in tmp_path.glob("build/sweeps/n/*"):
        (place / "mended").touch()
    table = workbook.sweep_notebook(path, [{"seed": 1, "rate": 0.5}, {"seed": 2, "rate": 0.5}])
    assert table.twice.tolist() == [2, 4] and table.problem.tolist() == ["", ""]
    assert len(done) == 1 and all(place.stat().st_mtime_ns == time for place, time in done.items())


@pytest.mark.parametrize(
    ("sweep", "error", "words"),
    [
        ({"sed": [1]}, OptionError, "no notebook declares the parameter sed"),
        ({"seed": [0.5]}, OptionError, "must be of type int"),
        ({"seed": 1}, DataError, "a list of values for each parameter"),
        ([], DataError, "or a list of sets of parameters"),
        ("none.yaml", DataError, "cannot be read as YAML"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(project, tmp_path, sweep, error, words):
    with pytest.raises(error, match=words):
        workbook.sweep_notebook(write_notebook(tmp_path / "n.ipynb"), sweep)
    assert not list(tmp_path.glob("build/sweeps/n/*"))
