"""A file of evlib imports only files of a lower rank, and heavy packages only where they are used."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "evlib"
RANKS = {
    "errors": 0,
    "files": 0,
    "options": 1,
    "threads": 0,
    "timebase": 1,
    "journal": 1,
    "events": 2,
    "recording": 2,
    "augment": 2,
    "formats": 3,
    "refractory": 3,
    "matching": 3,
    "thresholds": 3,
    "annotations": 3,
    "scores": 3,
    "synthetic": 3,
    "augment_time": 3,
    "encoders": 3,
    "metrics": 4,
    "viewing": 4,
    "refractory_streams": 4,
    "validation": 4,
    "losses": 4,
    "whitening": 4,
    "datasets": 4,
    "templates": 3,
    "repicking": 4,
    "transfer": 4,
    "event_output": 4,
    "candidates": 5,
    "review": 5,
    "candidate_trace": 6,
    "probing": 5,
    "aligned": 5,
    "ambiguity": 5,
    "augment_fitted": 5,
    "delays": 6,
    "time_embeddings": 5,
    "workouts": 1,
    "audio": 1,
    "event_images": 2,
    "significance": 1,
    "text": 2,
    "activity_labels": 1,
    "patches": 2,
    "masking": 2,
    "patch_encoder": 4,
    "frame_encoder": 4,
    "alignment": 3,
    "sessions": 5,
    "session_converters": 6,
    "motion": 2,
    "synthetic_motion": 3,
    "motion_batches": 4,
    "motion_training": 9,
    "motion_evaluation": 10,
    "models": 6,
    "overlaps": 5,
    "learning": 6,
    "window_detection": 7,
    "frame_detection": 7,
    "fusion": 7,
    "development": 8,
    "frame_training": 9,
    "remix": 7,
    "checkpoints": 7,
    "training": 8,
    "training_data": 8,
    "sequences": 9,
    "clip_classifier": 10,
    "discovery": 9,
    "context_training": 9,
    "classifier_training": 9,
    "pretraining": 11,
    "window_pretraining": 10,
    "groundwork": 10,
    "detection": 9,
    "inference": 10,
    "proposals": 11,
    "methods": 12,
    "fitting": 13,
    "oracle": 12,
    "label_budgets": 14,
    "plots": 10,
    "plots_pretraining": 11,
    "plots_templates": 11,
    "plots_inspection": 11,
    "tuning": 11,
    "plots_viewing": 11,
    "annotating": 14,
    "plots_annotations": 11,
    "widgets": 12,
    "widgets.annotator": 15,
    "widgets.twin": 10,
    "widgets.controls": 11,
    "widgets.signal_view": 11,
    "scale": 11,
    "workbook": 11,
    "cli": 16,
}
HEAVY = {
    "lightning",
    "matplotlib",
    "seaborn",
    "pandas",
    "ipywidgets",
    "anywidget",
    "IPython",
    "papermill",
    "nbformat",
    "tensorboard",
}
# A widget is a class of these packages: its file cannot do without them, and nothing else imports it.
HEAVY_IN_WIDGETS = HEAVY - {"ipywidgets", "anywidget"}
MAX_LINES = 450
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def rank(module):
    """The rank of a dotted module below evlib; a folder is one rank, but for the files in it that have their own."""
    first, second = (*module.split("."), "")[:2]
    if f"{first}.{second}" in RANKS:
        return RANKS[f"{first}.{second}"]
    assert first in RANKS, f"evlib/{first}.py has no rank: add it to RANKS, and to the table in the README"
    return RANKS[first]


def imports(path, package=PACKAGE):
    """(line, dotted module below evlib) of every import of evlib in a file, those inside functions too."""
    parts = path.relative_to(package).with_suffix("").parts
    own = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((node.lineno, name.removeprefix("evlib.")) for name in names if name.startswith("evlib."))
            assert "evlib" not in names, f"{path}:{node.lineno}: inside of evlib, import the module that holds the name"
        elif isinstance(node, ast.ImportFrom):
            base = list(own[: len(own) - node.level + 1]) if node.level else []
            module = (node.module or "").split(".") if node.module else []
            if not node.level:
                if module[0] != "evlib":
                    continue
                module = module[1:]
            base += module
            if base and base != list(own):
                yield node.lineno, ".".join(base)
            else:  # `from . import a, b`
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def heavy_imports(path):
    """(line, package) of heavy packages that importing the file imports too."""
    heavy = HEAVY_IN_WIDGETS if path.parent.name == "widgets" else HEAVY
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in heavy)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in heavy:
            yield node.lineno, node.module
        pending.extend(ast.iter_child_nodes(node))


def label(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_file_imports_only_lower_ranks(path):
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    # models/__init__.py only gathers the files beside it.
    gathers = path.name == "__init__.py"
    wrong = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if not rank(module) < rank(own) and not (gathers and module.split(".")[0] == own.split(".")[0])
    ]
    assert not wrong, f"{label(path)} (rank {rank(own)}) imports files of its own or a higher rank: {wrong}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert list(heavy_imports(path)) == []


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_file_is_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_imports_have_no_cycle():
    graph = {label(path): {m.replace(".", "/") + ".py" for _, m in imports(path)} for path in FILES}
    order = list(TopologicalSorter(graph).static_order())
    assert set(graph) <= set(order)


def test_the_reader_of_imports_sees_every_form(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    file = folder / "classifier.py"
    file.write_text(
        "import numpy\nfrom ..errors import A\nfrom .. import events\nfrom . import contrastive\nfrom .masked import B\n"
        "def f():\n    from evlib.training import C\n    import evlib.plots\n    import pandas\n"
    )
    found = {module for _, module in imports(file, tmp_path)}
    assert found == {"errors", "events", "models.contrastive", "models.masked", "training", "plots"}
    assert list(heavy_imports(file)) == []
    file.write_text("class A:\n    import pandas\nif True:\n    from matplotlib.figure import Figure\n")
    assert {name for _, name in heavy_imports(file)} == {"pandas", "matplotlib.figure"}
