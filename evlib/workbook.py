"""What the notebooks share besides the science: folders, style, figures with their numbers, headless runs.

Folders are found from the checkout, not from the working directory, so a notebook behaves alike in
JupyterLab, under papermill and in the tests. ``EVLIB_PROJECT`` moves them all (the tests use that).

``python -m evlib.workbook notebooks/*.ipynb`` executes notebooks in order into ``build/`` and prints what they found.
"""

import argparse
import ast
import io
import json
import logging
import math
import os
import sys
import warnings
from pathlib import Path

import numpy as np

from .signals.errors import DataError, EvlibError, OptionError
from .signals.files import replace_file

MAX_PNG_BYTES = 200_000
# Dots per inch and palette size, from the best looking to the smallest file.
PNG_QUALITY = [(150, 256), (120, 256), (100, 128), (80, 64), (60, 32)]


def project_folder(*parts) -> Path:
    """A path inside of the checkout, its folders made: ``project_folder("data")``, ``"figures"``, ``"build"``."""
    checkout = Path(__file__).resolve().parents[1]
    # Without a checkout around it (a plain install), the working directory is the project.
    root = os.environ.get("EVLIB_PROJECT") or (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd())
    folder = Path(root).resolve().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def data_home():
    """The folder of real recordings that ``EVLIB_DATA_HOME`` names, or None where it is not set.

    A relative path counts from the checkout. DataError when the folder does not exist.
    """
    home = os.environ.get("EVLIB_DATA_HOME")
    if not home:
        return None
    folder = (project_folder() / Path(home).expanduser()).resolve()
    if not folder.is_dir():
        raise DataError(f"EVLIB_DATA_HOME is {home!r}, but there is no folder {folder}")
    return folder


def start(seed=0):
    """Open a notebook: style for figures, quiet libraries, PyTorch's seed; returns a NumPy generator.

    PyTorch draws the first weights of a network from its own global generator, hence that seed; everything else
    in evlib takes a seed or a generator as an argument.
    """
    import seaborn as sns
    import torch

    check_parameters(seed=seed)
    torch.manual_seed(seed)
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.9)
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (9, 4),
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "legend.frameon": False,
        }
    )
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (".*LeafSpec.*", ".*does not have many workers.*", ".*is smaller than the logging interval.*"):
        warnings.filterwarnings("ignore", message=message)
    return np.random.default_rng(seed)


def check_parameters(**parameters):
    """Refuse what a parameters file turned into text or NaN by accident; returns the parameters as a dict.

    >>> check_parameters(minutes=5, learning_rate=1e-3)
    {'minutes': 5, 'learning_rate': 0.001}
    """
    for name, value in parameters.items():
        if isinstance(value, str) and _is_number(value):
            raise OptionError(
                f"parameter {name} is the text {value!r}, not a number (YAML reads 1e-3 as text: write 1.0e-3, "
                "without quotes)"
            )
        if isinstance(value, float) and math.isnan(value):
            raise OptionError(f"parameter {name} is not a number (NaN)")
    return parameters


def save_figure(figure, name, parameters, metrics=None, publish=False) -> Path:
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
    path = project_folder(*(["figures", "published"] if publish else ["figures"])) / f"{name}.png"
    record = {"seed": parameters.get("seed"), "parameters": parameters, "metrics": metrics or {}}
    text = _to_json(record)  # before the picture, so that a failure leaves neither
    with replace_file(path) as temporary:
        temporary.write_bytes(_small_png(figure, name))
    with replace_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(text)
    return path


def save_metrics(name, metrics) -> Path:
    """Write the headline numbers of notebook ``name`` to ``build/metrics/<name>.json``; `run_notebooks` shows them."""
    path = project_folder("build", "metrics") / f"{name}.json"
    text = _to_json(metrics)
    with replace_file(path) as temporary:
        temporary.write_text(text)
    return path


def notebook_parameters(path) -> dict:
    """Names and default values in a notebook's cell tagged ``parameters`` (literals only)."""
    import nbformat

    cells = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    values = {}
    for cell in cells:
        for statement in ast.parse(cell.source).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            try:
                values |= {target.id: ast.literal_eval(statement.value) for target in targets}
            except (AttributeError, ValueError, TypeError):
                raise DataError(
                    f"{path}: parameters must be `name: type = literal`; line {statement.lineno} is not"
                ) from None
    return values


def run_notebooks(paths, parameters=None):
    """Execute notebooks in order into ``build/`` and print their metrics.

    Parameters
    ----------
    paths : notebooks
    parameters : a folder with ``<notebook>.yaml`` files, or a dict that goes to every notebook which declares the name

    Returns
    -------
    dict of notebook name to its metrics. A notebook that fails stops the run with papermill's error.

    Raises
    ------
    OptionError : a parameter that no notebook declares, or a value of another kind than the default's
    DataError : a notebook is missing
    """
    import papermill

    paths = [Path(path) for path in paths]
    for path in paths:
        if not path.is_file():
            raise DataError(f"no notebook at {path}")
    chosen = _chosen_parameters(paths, parameters)
    build, results = project_folder("build"), {}
    for path in paths:
        # Numbers of an earlier run must not pass for this one's.
        metrics = project_folder("build", "metrics") / f"{path.stem}.json"
        metrics.unlink(missing_ok=True)
        papermill.execute_notebook(
            str(path),
            str(build / path.name),
            parameters=chosen[path],
            kernel_name="python3",
            cwd=str(path.parent),
            progress_bar={"desc": path.stem},
        )
        results[path.stem] = json.loads(metrics.read_text()) if metrics.is_file() else {}
    print(f"\n{_results_table(results)}\n\nexecuted notebooks: {build}\nfigures: {project_folder('figures')}")
    return results


def _chosen_parameters(paths, parameters):
    """The parameters of each notebook, checked against what it declares."""
    import yaml

    declared = {path: notebook_parameters(path) for path in paths}
    if parameters is None:
        return {path: {} for path in paths}
    if isinstance(parameters, dict):
        unknown = set(parameters) - {name for names in declared.values() for name in names}
        if unknown:
            raise OptionError(f"no notebook declares the parameter {', '.join(sorted(unknown))} (a spelling slip?)")
        chosen = {path: {k: v for k, v in parameters.items() if k in declared[path]} for path in paths}
    else:
        folder = Path(parameters)
        if not folder.is_dir():
            raise DataError(f"no folder of parameters at {folder}")
        files = {path: folder / f"{path.stem}.yaml" for path in paths}
        chosen = {
            path: (yaml.safe_load(file.read_text()) or {}) if file.is_file() else {} for path, file in files.items()
        }
    for path, values in chosen.items():
        for name, value in values.items():
            if name not in declared[path]:
                raise OptionError(
                    f"{path.name} does not declare the parameter {name}; it has {', '.join(declared[path])}"
                )
            _check_kind(f"parameter {name} of {path.name}", value, declared[path][name])
    return chosen


def _check_kind(what, value, default):
    """Refuse a value of another kind than the default: text for a number, a fraction for a count."""
    if default is None or value is None:
        return
    wanted = (int, float) if type(default) is float else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and type(default) is not bool):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) and _is_number(value) else ""
        raise OptionError(
            f"{what} must be of type {type(default).__name__} like its default {default!r}, got {value!r}{hint}"
        )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_json(value):
    """JSON text; NumPy numbers and arrays become plain ones, NaN becomes null."""

    def plain(x):
        if isinstance(x, dict):
            return {str(k): plain(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        if isinstance(x, (np.ndarray, np.generic)):
            return plain(x.tolist())
        if isinstance(x, float) and not math.isfinite(x):
            return None
        return str(x) if isinstance(x, Path) else x

    return json.dumps(plain(value), indent=2) + "\n"


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
    raise DataError(
        f"figure {name!r} does not fit into {MAX_PNG_BYTES // 1000} kB at {dpi} dpi: show less, or make it smaller"
    )


def _results_table(results):
    """Notebook, metric and value as aligned text."""
    rows = [
        (notebook, metric, f"{value:.4g}" if isinstance(value, float) else str(value))
        for notebook, metrics in results.items()
        for metric, value in metrics.items()
        if not isinstance(value, (dict, list))
    ]
    rows = [("notebook", "metric", "value"), *rows]
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)


def main(arguments=None):
    """The command line: ``python -m evlib.workbook [--params FOLDER] [-p NAME VALUE] NOTEBOOK...``."""
    parser = argparse.ArgumentParser(
        prog="evlib run", description="Execute notebooks into build/ and print their results."
    )
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--params", metavar="FOLDER", help="folder of <notebook>.yaml files (notebooks/params: full runs)"
    )
    group.add_argument(
        "-p", nargs=2, action="append", metavar=("NAME", "VALUE"), help="set one parameter (VALUE as in YAML)"
    )
    options = parser.parse_args(arguments)
    import yaml

    if not options.notebooks:
        print("no notebooks to run")
        return 0
    chosen = {name: yaml.safe_load(value) for name, value in options.p} if options.p else options.params
    try:
        run_notebooks(options.notebooks, chosen)
    except EvlibError as error:
        print(f"evlib: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
