"""Every notebook follows one shape: prose first, one cell of literal parameters, nothing reusable, checks at the
end."""

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from evlib.workbook import notebook_parameters

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PARAMETER_FILES = sorted(FOLDER.rglob("params/*.yaml"))


def code_lines(cell):
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


def parse(cell):
    """The syntax tree of a cell, without magic lines."""
    return ast.parse(
        "\n".join("pass" if line.lstrip()[:1] in ("%", "!") else line for line in cell.source.splitlines())
    )


def parameter_problems(cell):
    """What is wrong with the cell of parameters: each line is `name: type = literal  # what it is`."""
    lines = cell.source.splitlines()
    for statement in ast.parse(cell.source).body:
        text = ast.unparse(statement)
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            yield f"parameter without a type: {text}"
            continue
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            yield f"parameter is no literal: {text}"
            continue
        kind = ast.unparse(statement.annotation).split("[")[0]
        if value is not None and kind != type(value).__name__:
            yield f"parameter {text} is declared {kind} but holds a {type(value).__name__}"
        if "#" not in lines[statement.end_lineno - 1]:
            yield f"parameter without a comment: {text}"


def problems(notebook):
    """Everything in which a notebook departs from the shape, as a list of sentences."""
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    found = []

    def expect(holds, sentence):
        if not holds:
            found.append(sentence)

    expect(15 <= len(cells) <= 45, f"{len(cells)} cells, not 15 to 45")
    opening = prose[0] if prose and cells[0].cell_type == "markdown" else ""
    expect(opening.startswith("# "), "the first cell is no title")
    for word in ("Question", "In", "Out"):
        expect(re.search(rf"\*{word}\b", opening), f"the title cell does not say *{word}*")
    expect(re.search(r"\b(second|minute)s?\b", opening), "the title cell does not say how long the small run takes")
    expect(notebook.metadata.get("kernelspec", {}).get("name") == "python3", "the kernel is not python3")
    expect(all(not cell.outputs and cell.execution_count is None for cell in code), "outputs are not stripped")
    lengths = [len(cell.source.splitlines()) for cell in code]
    expect(max(lengths, default=0) <= 25, f"a cell of {max(lengths, default=0)} lines, more than 25")
    expect(sum(lengths) <= 10 * len(lengths), "the mean code cell is longer than 10 lines")
    words, lines = sum(len(text.split()) for text in prose), sum(len(code_lines(cell)) for cell in code)
    expect(words >= 4 * lines, f"{words} words of prose for {lines} lines of code, fewer than 4 to 1")
    nodes = [node for cell in code for node in ast.walk(parse(cell))]
    expect(not any(isinstance(node, ast.ClassDef) for node in nodes), "a class is defined")
    expect(
        not re.search(r"^\s*[!%]\s*(pip|conda)", "\n".join(c.source for c in code), re.MULTILINE),
        "a cell installs packages",
    )
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    expect(len(tagged) == 1, f"{len(tagged)} cells are tagged `parameters`, not one")
    found += [problem for cell in tagged for problem in parameter_problems(cell)]
    checks = [node for node in ast.walk(parse(code[-1])) if isinstance(node, ast.Assert)] if code else []
    expect(checks, "the last code cell asserts nothing")
    expect(all(check.msg for check in checks), "an assert at the end has no message")
    expect(cells and cells[-1].cell_type == "markdown", "the notebook does not end with what we saw")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_the_shape(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook) == []


def test_ordered_notebooks_are_numbered_once():
    numbers = [path.stem.split("_")[0] for path in NOTEBOOKS if path.parent == FOLDER]
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"\d\d[a-z]?", number) for number in numbers)


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_parameter_file_fits_its_notebook(path):
    (notebook,) = [n for n in NOTEBOOKS if n.stem == path.stem]
    declared, values = notebook_parameters(notebook), yaml.safe_load(path.read_text())
    assert set(values) <= set(declared), f"not declared in {notebook.name}: {set(values) - set(declared)}"
    for name, value in values.items():
        wanted = (int, float) if type(declared[name]) is float else (type(declared[name]),)
        assert declared[name] is None or type(value) in wanted, f"{name} is {value!r}, its default {declared[name]!r}"


def good_notebook():
    """A notebook of the right shape, to spoil in one way at a time."""
    v4 = nbformat.v4
    opening = "# Title\n*Question*: is it so? *In*: nothing. *Out*: a figure. The small run takes one minute."
    parameters = "seed: int = 0  # of everything\nrates_hz: list = [100.0]  # Hz"
    cells = [v4.new_markdown_cell(opening), v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for k in range(7):
        cells += [v4.new_markdown_cell("We look at the next number, and say why."), v4.new_code_cell(f"x = {k}\nx")]
    cells += [v4.new_code_cell("assert x == 6, 'x is the last number'"), v4.new_markdown_cell("What we saw: six.")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def test_a_good_notebook_has_no_problems():
    assert problems(good_notebook()) == []


@pytest.mark.parametrize(
    ("cell", "source", "words"),
    [
        (0, "no title", "no title"),
        (0, "# Title *Question* *In* *Out*", "how long"),
        (1, "seed = 0  # of everything", "without a type"),
        (1, "seed: int = 0", "without a comment"),
        (1, "seed: int = 2 * 3  # six", "no literal"),
        (1, "rate: float = 1  # Hz", "declared float but holds a int"),
        (3, "\n".join(["x = 1"] * 26), "more than 25"),
        (3, "\n".join(["x = 1"] * 24), "fewer than 4 to 1"),
        (3, "class A:\n    pass", "class is defined"),
        (3, "%pip install x", "installs packages"),
        (16, "x", "asserts nothing"),
        (16, "assert x", "no message"),
    ],
)
def test_each_departure_is_seen(cell, source, words):
    notebook = good_notebook()
    notebook.cells[cell].source = source
    assert any(words in problem for problem in problems(notebook))


def test_departures_outside_of_the_sources_are_seen():
    notebook = good_notebook()
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[3].metadata["tags"] = ["parameters"]
    del notebook.cells[-1], notebook.metadata["kernelspec"]
    found = " ".join(problems(notebook))
    for words in ("not stripped", "2 cells are tagged", "kernel is not python3", "what we saw"):
        assert words in found


@pytest.mark.parametrize("labelled", [10, 24])
def test_notebook_06_shows_a_log_with_jitter_and_few_labels(tmp_path, monkeypatch, labelled):
    """A recording of one's own, up to the annotator: uneven clock, labels of a part, events closer than 2 s."""
    rng, onset_s = np.random.default_rng(0), 1.0 + 1.5 * np.arange(24)
    time_s = np.arange(4000) / 100 + rng.uniform(-0.004, 0.004, 4000)
    after_s = [(time_s - t).clip(0.0) for t in onset_s]
    x = rng.normal(0, 0.02, 4000) + sum((s > 0) * np.exp(-s / 0.05) for s in after_s)
    rows = (f"{t:.6f},{a:.6f}\n" for t, a in zip(time_s, x, strict=True))
    (tmp_path / "log.csv").write_text("seconds_elapsed,x\n" + "".join(rows))
    (tmp_path / "labels.txt").write_text("".join(f"{t}\t{t}\tstep\n" for t in onset_s[:labelled]))
    monkeypatch.chdir(tmp_path)
    given = {"recording_path": "log.csv", "events_path": "labels.txt", "refractory_s": 0.5}
    scope = given | {"read_options": {"regrid": True}}
    code = [cell for cell in nbformat.read(FOLDER / "06_inspect_detections.ipynb", 4).cells if cell.cell_type == "code"]
    for cell in code[: 1 + next(k for k, cell in enumerate(code) if "annotator = evlib.Annotator" in cell.source)]:
        given = dict(scope) if "parameters" in cell.metadata.get("tags", []) else {}
        exec(cell.source, scope)
        scope |= given
    found = scope["estimated"].onset_s + scope["middle"] / 100
    np.testing.assert_allclose(found, onset_s[labelled // 2 :], atol=0.02)
    assert len(scope["reference"]) == labelled - labelled // 2 and scope["display"]["highpass_hz"] is None
