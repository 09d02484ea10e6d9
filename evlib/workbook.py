"""What the notebooks share besides the science: folders, style, parameters, figures with their numbers, headless runs.

Folders are found from the workbook, not from the working directory, so a notebook behaves alike in JupyterLab, under
papermill and in the tests. A workbook is a folder that holds ``notebooks/params``: a checkout, or what ``evlib new``
(`new_workbook`) made. ``EVLIB_PROJECT`` moves all folders (the tests use that).

``evlib run notebooks/*.ipynb`` (`run_notebooks`) executes notebooks in order into ``build/`` and prints their results;
with ``--sweep`` (`sweep_notebook`) one of them many times, with other parameters each time.
"""

import ast
import base64
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .signals.atomic import replace_file, replace_folder
from .signals.errors import DataError, OptionError

# The folder around the package: the root of the project, where evlib is imported from a checkout.
CHECKOUT = Path(__file__).resolve().parents[1]
# A figure in the repository is at most this large.
MAX_PNG_BYTES = 200_000
# Dots per inch and number of colours, from the best looking to the smallest file.
PNG_QUALITY = [(150, 256), (120, 256), (100, 128), (80, 64), (60, 32)]
# Text that YAML or a person may have meant as a number.
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)
STYLE: dict[str, Any] = {
    "figure.figsize": (9, 4),
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "legend.frameon": False,
}


def project_folder(*parts: str) -> Path:
    """A path inside of the workbook, its folders made: ``project_folder("data")``, ``"figures"``, ``"build"``.

    The workbook is ``EVLIB_PROJECT``, or the nearest one at or above the working directory, or the checkout that evlib
    is imported from, or the working directory.
    """
    here = Path.cwd()
    workbooks = [folder for folder in (here, *here.parents, CHECKOUT) if (folder / "notebooks" / "params").is_dir()]
    root = os.environ.get("EVLIB_PROJECT") or next(iter(workbooks), here)
    folder = Path(root).resolve().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_workbook(folder: str | Path) -> Path:
    """Copy evlib's notebooks and the parameters of their full runs into a new folder.

    Parameters
    ----------
    folder : the workbook to make; it may exist, but must be empty

    Returns
    -------
    Path of its folder of notebooks

    Raises
    ------
    OptionError : ``folder`` is a file, or holds something
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OptionError(f"a workbook needs a new or empty folder, but {folder} holds something: choose another name")
    # In a checkout the notebooks stand beside the package, in an installed evlib inside of it.
    installed = Path(__file__).resolve().parent / "notebooks"
    source = installed if installed.is_dir() else CHECKOUT / "notebooks"
    wanted = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__", "figures", "build", "data")
    with replace_folder(folder) as new:
        shutil.copytree(source, new / "notebooks", ignore=wanted)
    return folder / "notebooks"


def data_home() -> Path | None:
    """The folder of real recordings that ``EVLIB_DATA_HOME`` names, or None where it is not set.

    A relative path counts from the workbook. DataError when the folder does not exist.
    """
    home = os.environ.get("EVLIB_DATA_HOME")
    if not home:
        return None
    folder = (project_folder() / Path(home).expanduser()).resolve()
    if not folder.is_dir():
        raise DataError(f"EVLIB_DATA_HOME is {home!r}, but there is no folder {folder}")
    return folder


def start(namespace: dict[str, Any]) -> dict[str, Any]:
    """Open a notebook, called as ``parameters = workbook.start(globals())`` right after its parameters.

    Sets the style of figures, silences libraries, and seeds PyTorch with the parameter ``seed`` (or the first of
    ``seeds``, or 0): PyTorch draws the first weights of a network from its own global generator. Everything else in
    evlib takes a seed or a generator as an argument.

    Returns
    -------
    dict of the parameters: what has a lower-case name in ``namespace`` and holds a number, text, list or dict

    Raises
    ------
    OptionError : a parameter is a number written as text, or NaN

    Examples
    --------
    >>> start({"minutes": 5, "learning_rate": 1e-3, "CONSTANT": 2, "np": math, "_": 3})
    {'minutes': 5, 'learning_rate': 0.001}
    """
    import seaborn as sns
    import torch

    literal = (bool, int, float, str, list, dict, type(None))
    parameters = {k: v for k, v in namespace.items() if k.islower() and k[0] != "_" and type(v) in literal}
    for name, value in parameters.items():
        _check_parameter(name, value)
    torch.manual_seed(parameters.get("seed", (parameters.get("seeds") or [0])[0]))
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.9, rc=STYLE)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    return parameters


def save_figure(figure: Any, name: str, parameters: dict, metrics: dict | None = None, publish: bool = False) -> Path:
    """Write ``figures/<name>.png`` (at most 200 kB) and, beside it, a JSON of what it shows.

    Parameters
    ----------
    figure : matplotlib figure, or axes of one
    name : file name without ending
    parameters : dict of what the figure was made with; its ``seed`` is repeated at the top of the JSON
    metrics : dict of the numbers that the figure shows
    publish : write to ``figures/published/``, the part that git keeps

    Returns
    -------
    Path of the PNG. OptionError when ``name`` is not a plain file name.
    """
    if not name or Path(name).name != name or Path(name).suffix:
        raise OptionError(f"a figure's name is a file name without folder or ending, got {name!r}")
    figure = figure.get_figure() if hasattr(figure, "get_figure") else figure
    path = project_folder("figures", *(["published"] if publish else [])) / f"{name}.png"
    record = {"seed": parameters.get("seed"), "parameters": parameters, "metrics": metrics or {}}
    text = _to_json(record)  # before the picture, so that a failure leaves neither
    with replace_file(path) as temporary:
        temporary.write_bytes(_small_png(figure, name))
    with replace_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def save_metrics(name: str, metrics: dict) -> Path:
    """Write the headline numbers of notebook ``name`` to ``build/metrics/<name>.json``; `run_notebooks` shows them."""
    path = project_folder("build", "metrics") / f"{name}.json"
    text = _to_json(metrics)
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def notebook_parameters(path: str | Path) -> dict[str, Any]:
    """Names and default values of a notebook's parameters, read by papermill; DataError where one is no literal."""
    import papermill

    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:  # a parser of a damaged file may raise anything
        raise DataError(f"{path} cannot be read as a notebook with a kernel and parameters: {error}") from error
    try:
        return {name: ast.literal_eval(one["default"]) for name, one in found.items()}
    except (ValueError, SyntaxError) as error:
        raise DataError(f"{path}: parameters must be `name: type = literal`; one is not ({error})") from None


def run_notebooks(notebooks: Iterable[str | Path], parameters: str | Path | dict | None = None) -> dict[str, dict]:
    """Execute notebooks in order into ``build/`` and print their metrics.

    Parameters
    ----------
    notebooks : their paths, in order
    parameters : a folder with ``<notebook>.yaml`` files, or a dict that goes to every notebook which declares the name

    Returns
    -------
    dict of notebook name to its metrics. A notebook that fails stops the run with papermill's error.

    Raises
    ------
    OptionError : a parameter that no notebook declares, or a value of another type than the default's
    DataError : a notebook is missing
    """
    import pandas as pd
    import papermill

    paths = [Path(path) for path in notebooks]
    for path in paths:
        if not path.is_file():
            raise DataError(f"no notebook at {path}")
    chosen = _chosen_parameters(paths, parameters or {})
    build, results = project_folder("build"), {}
    for path in paths:
        metrics = project_folder("build", "metrics") / f"{path.stem}.json"
        metrics.unlink(missing_ok=True)  # numbers of an earlier run must not pass for this one's
        options = {"kernel_name": "python3", "cwd": str(path.parent), "progress_bar": {"desc": path.stem}}
        papermill.execute_notebook(str(path), str(build / path.name), parameters=chosen[path], **options)
        results[path.stem] = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    rows = [(n, k, v) for n, found in results.items() for k, v in found.items() if not isinstance(v, dict | list)]
    table = pd.DataFrame(rows, columns=["notebook", "metric", "value"], dtype=object)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    print(f"\nexecuted notebooks: {build}\nfigures: {project_folder('figures')}")
    return results


def sweep_notebook(notebook: str | Path, sweep: str | Path | dict | list, dask: str | int | None = None):
    """Execute a notebook once for each set of parameters and collect its metrics in one table.

    Each run is a workbook of its own, ``build/sweeps/<notebook>/<hash>/``, with its notebook, figures and metrics; the
    table is ``build/sweeps/<notebook>.csv``. A run that fails stops no other. A second call runs what is missing or has
    failed: the hash is that of the notebook and the parameters.

    Parameters
    ----------
    notebook : its path
    sweep : dict of lists: every combination of their values; list of dicts: each of these; or a YAML file of one
    dask : as in `evlib.detection.cluster.run_tasks`

    Returns
    -------
    pandas table with a row for each run: parameters, metrics that are numbers or texts, and ``problem``, "" for none

    Raises
    ------
    OptionError : parameters that the notebook does not declare, or of another type than the default's
    DataError : no notebook, no such file, or one that holds neither lists nor dicts
    """
    import pandas as pd

    from .detection.cluster import run_tasks

    path = Path(notebook).resolve()
    if not path.is_file():
        raise DataError(f"no notebook at {path}")
    sets = _parameter_sets(sweep)
    for values in sets:
        _chosen_parameters([path], values)
    text, folder, runs = path.read_bytes(), project_folder("build", "sweeps", path.stem), []
    for values in sets:
        key = hashlib.sha256(text + json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
        runs.append((path, folder / key, values))
    missing = [run for run in runs if not (run[1] / "done.json").is_file()]
    problems = {place: problem for (_, place, _), _, problem in run_tasks(_run_aside, missing, dask)}
    rows = []
    for _, place, values in runs:
        problem = problems.get(place, "")
        metrics = {} if problem else json.loads((place / "done.json").read_text(encoding="utf-8"))
        rows.append(
            values | {k: v for k, v in metrics.items() if not isinstance(v, dict | list)} | {"problem": problem}
        )
    table = pd.DataFrame(rows)
    with replace_file(folder.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def _run_aside(run):
    """Execute a notebook in a process and a workbook of its own; its metrics are in done.json afterwards."""
    path, place, values = run
    place.mkdir(parents=True, exist_ok=True)
    home = {"EVLIB_DATA_HOME": str(data_home())} if os.environ.get("EVLIB_DATA_HOME") else {}
    parameters = ["-b", base64.b64encode(json.dumps(values).encode()).decode()]  # JSON is YAML
    options = ["-k", "python3", "--cwd", str(path.parent), "--no-progress-bar", *parameters]
    command = [sys.executable, "-m", "papermill", str(path), str(place / path.name), *options]
    ended = subprocess.run(
        command, env=os.environ | home | {"EVLIB_PROJECT": str(place)}, capture_output=True, text=True, errors="replace"
    )
    if ended.returncode:
        raise DataError(f"{place / path.name}: {ended.stderr.strip()[-300:]}")
    metrics = place / "build" / "metrics" / f"{path.stem}.json"
    with replace_file(place / "done.json") as temporary:
        temporary.write_text(metrics.read_text(encoding="utf-8") if metrics.is_file() else "{}", encoding="utf-8")


def _parameter_sets(sweep):
    """The sets of parameters that a sweep means, a dict each."""
    sweep = _read_yaml(Path(sweep), dict | list) if isinstance(sweep, str | Path) else sweep
    if isinstance(sweep, dict) and sweep and all(isinstance(values, list) for values in sweep.values()):
        return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]
    if isinstance(sweep, list) and sweep and all(isinstance(values, dict) for values in sweep):
        return sweep
    raise DataError(f"a sweep is a list of values for each parameter, or a list of sets of parameters; got {sweep!r}")


def _chosen_parameters(paths, parameters):
    """The parameters of each notebook, checked against what it declares."""
    declared = {path: notebook_parameters(path) for path in paths}
    if isinstance(parameters, dict):
        if unknown := set(parameters).difference(*declared.values()):
            raise OptionError(f"no notebook declares the parameter {', '.join(sorted(unknown))} (a spelling slip?)")
        chosen = {path: {k: v for k, v in parameters.items() if k in declared[path]} for path in paths}
    elif (folder := Path(parameters)).is_dir():
        files = {path: folder / f"{path.stem}.yaml" for path in paths}
        chosen = {path: _read_yaml(file) for path, file in files.items() if file.is_file()}
    else:
        raise DataError(f"no folder of parameters at {folder}")
    for path, values in chosen.items():
        for name, value in values.items():
            if name not in declared[path]:
                names = ", ".join(declared[path])
                raise OptionError(f"{path.name} does not declare the parameter {name}; it has {names}")
            _check_parameter(f"{name} of {path.name}", value, declared[path][name])
    return {path: chosen.get(path, {}) for path in paths}


def _read_yaml(file, kind=dict):
    """The dict in a file of parameters, or what else it may hold."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(values, kind):
        raise DataError(f"{file} must hold lines such as 'seed: 3', got a {type(values).__name__}")
    return values


def _check_parameter(name, value, default=None):
    """Refuse a number written as text, NaN, and a value of another type than the default's."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        hint = "(YAML reads 1e-3 as text: write 1.0e-3, without quotes)"
        raise OptionError(f"parameter {name} is the text {value!r}, not a number {hint}")
    if isinstance(value, float) and math.isnan(value):
        raise OptionError(f"parameter {name} is not a number (NaN)")
    # A fraction may be given as a whole number, nothing else may change its type; True is no number.
    wanted = (float, int) if type(default) is float else (type(default),)
    if default is not None and value is not None and type(value) not in wanted:
        expected = f"of type {type(default).__name__} like its default {default!r}"
        raise OptionError(f"parameter {name} must be {expected}, got {value!r}")


def _to_json(value):
    """JSON text; NumPy numbers and arrays become plain ones, NaN becomes null."""
    text = json.dumps(value, default=lambda x: str(x) if isinstance(x, Path) else x.tolist())
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2) + "\n"


def _small_png(figure, name):
    """PNG bytes of a figure, with as many dots and colours as fit into MAX_PNG_BYTES."""
    from PIL import Image

    for dpi, n_colours in PNG_QUALITY:
        full, small = io.BytesIO(), io.BytesIO()
        figure.savefig(full, format="png", dpi=dpi, facecolor="white")
        image = Image.open(full).convert("RGB").quantize(n_colours, dither=Image.Dither.NONE)
        image.save(small, format="png", optimize=True)
        if small.tell() <= MAX_PNG_BYTES:
            return small.getvalue()
    limit = f"{MAX_PNG_BYTES // 1000} kB at {dpi} dpi"
    raise DataError(f"figure {name!r} does not fit into {limit}: show less, or make it smaller")
