"""A folder of evlib imports only the folders before it, and heavy packages are imported only where they are used."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "evlib"
# The ten rooms, in the order in which one may import another: each only those before it.
FOLDERS = (
    "signals",
    "scoring",
    "templates",
    "networks",
    "training",
    "detection",
    "live",
    "inspection",
    "motion",
    "studies",
)
# The core knows nothing of pictures and of single studies; neither do these know of one another, but for motion of no
# one.
NOT_ABOVE = {"motion": {"inspection"}, "studies": {"motion"}}
HEAVY = {
    "lightning_fabric",
    "matplotlib",
    "seaborn",
    "pandas",
    "ipywidgets",
    "anywidget",
    "IPython",
    "papermill",
    "nbformat",
    "tensorboard",
    "obspy",
    "soundfile",
    "pyxdf",
    "nptdms",
    "mne",
    "edfio",
    "wfdb",
    "sleepecg",
}
# A widget is a class of these packages: its file cannot do without them.
WIDGET_PACKAGES = {"ipywidgets", "anywidget"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def rank(module):
    """The rank of a dotted module below evlib: that of its folder; the doors at the top (cli, workbook) may open every
    room."""
    first = module.split(".")[0]
    return FOLDERS.index(first) if first in FOLDERS else len(FOLDERS)


def imports(path, package=PACKAGE):
    """(line, dotted module below evlib) of every import of evlib in a file, those inside functions too."""
    own = path.relative_to(package).parts[:-1]
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
            if node.module:
                yield node.lineno, ".".join(base)
            else:  # `from . import a, b`
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def heavy_imports(path):
    """(line, package) of heavy packages that importing the file imports too."""
    heavy = HEAVY - WIDGET_PACKAGES if path.parent.name == "inspection" else HEAVY
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


def test_there_are_ten_rooms_and_each_says_what_it_holds():
    assert sorted(FOLDERS) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for folder in FOLDERS:
        tree = ast.parse((PACKAGE / folder / "__init__.py").read_text())
        assert ast.get_docstring(tree) and len(tree.body) == 1, f"{folder}/__init__.py holds one docstring and no code"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_file_imports_only_its_own_folder_and_those_before(path):
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    folder = own.split(".")[0]
    wrong = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if rank(module) > rank(own) or module.split(".")[0] in NOT_ABOVE.get(folder, ())
    ]
    assert not wrong, f"{label(path)} imports what comes after its folder: {wrong}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert list(heavy_imports(path)) == []


@pytest.fixture(scope="module")
def graph():
    """The files that each file imports."""
    return {label(path): {m.replace(".", "/") + ".py" for _, m in imports(path)} for path in FILES}


def test_imports_have_no_cycle(graph):
    order = list(TopologicalSorter(graph).static_order())
    assert set(graph) <= set(order)


def test_the_reader_of_imports_sees_every_form(tmp_path):
    folder = tmp_path / "networks"
    folder.mkdir()
    file = folder / "classifier.py"
    file.write_text(
        "import numpy\nfrom ..signals.errors import A\nfrom .. import cli\nfrom . import pretext\nfrom .masked "
        "import B\n"
        "def f():\n    from evlib.training import loop\n    import evlib.plots\n    import pandas\n"
    )
    found = {module for _, module in imports(file, tmp_path)}
    assert found == {"signals.errors", "cli", "networks.pretext", "networks.masked", "training", "plots"}
    assert list(heavy_imports(file)) == []
    file.write_text("class A:\n    import pandas\nif True:\n    from matplotlib.figure import Figure\n")
    assert {name for _, name in heavy_imports(file)} == {"pandas", "matplotlib.figure"}


def test_fit_reaches_nothing_of_motion_studies_and_inspection(graph):
    """`import evlib.detection` itself brings nothing at all: its file holds a docstring only."""
    reached, pending = set(), ["detection/fit.py"]
    while pending:
        reached.add(file := pending.pop())
        pending += graph.get(file, set()) - reached
    assert {"detection/detector.py", "training/loop.py"} <= reached
    assert not {file.split("/")[0] for file in reached} & {"motion", "studies", "inspection"}
