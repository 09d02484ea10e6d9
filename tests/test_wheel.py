"""Source archive and wheel, built from a copy of the project, work in a folder that knows nothing of the repository."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_workbook import write_notebook

from evlib import cli, workbook
from evlib.signals.errors import OptionError

HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
NOT_COPIED = ("build", "data", "runs", ".*", "*.egg-info", "__pycache__")


def run(*command, cwd, **environment):
    """Run Python; the traceback is the message where it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EVLIB", "PYTHONPATH"))} | environment
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(repository, tmp_path_factory):
    """The names in the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(repository, folder / "project", ignore=shutil.ignore_patterns(*NOT_COPIED))
    run("-c", HOOK, "sdist", str(folder), cwd=folder / "project")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
        file.extractall(folder, filter="data")
    run("-c", HOOK, "wheel", str(folder), cwd=folder / archive.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return names, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A function that runs Python with the installed wheel, in an empty folder; and that folder."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(site)]
    run("-m", "pip", "install", *options, str(built[1]), cwd=folder)
    return lambda *command, cwd=folder: run(*command, cwd=cwd, PYTHONPATH=str(site)), folder, site


def test_the_source_archive_holds_what_builds_tests_and_documents(built):
    names, _ = built
    wanted = {"pyproject.toml", "LICENSE", "Makefile", "constraints.txt", "docs/architecture.md", "tests/conftest.py"}
    assert wanted | {"notebooks/01_synthetic_data.ipynb", "tests/signals/test_clock.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("build/", "evlib/notebooks"))]


def test_the_wheel_holds_every_file_of_the_package_and_every_notebook(built, repository):
    with zipfile.ZipFile(built[1]) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    package = {path for path in (repository / "evlib").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    notebooks = {p for pattern in ("*.ipynb", "*.yaml") for p in (repository / "notebooks").rglob(pattern)}
    notebooks = {path for path in notebooks if ".ipynb_checkpoints" not in path.parts}
    wanted = {str(path.relative_to(repository)) for path in package}
    assert names == wanted | {f"evlib/{path.relative_to(repository)}" for path in notebooks}


def test_the_wheel_works_outside_of_the_repository(installed):
    python, folder, site = installed
    assert Path(python("-c", "import evlib; print(evlib.__file__)").strip()).is_relative_to(site)
    python("-m", "evlib.cli", "example", "bells")
    python("-m", "evlib.cli", "validate", "bells/recording.npz", "bells/events.tsv")
    python("-m", "evlib.cli", "new", "study")
    assert "TextAlignedModel" in python("-c", "import evlib; print(evlib.load_pretrained('motion').model)")
    code = "from evlib.workbook import project_folder as p, save_metrics; save_metrics('a', {}); print(p())"
    # A notebook runs in the folder that it lies in; a workbook's folders lie beside `notebooks` all the same.
    for place in ("study", "study/notebooks", "study/notebooks/studies"):
        assert python("-c", code, cwd=folder / place).strip() == str((folder / "study").resolve())
    assert (folder / "study" / "build" / "metrics" / "a.json").is_file()
    assert python("-c", code).strip() == str(folder.resolve())


def test_the_wheel_runs_a_notebook_of_a_new_workbook(installed):
    python, folder, _ = installed
    python("-m", "evlib.cli", "new", "small")
    metrics = "from evlib.workbook import save_metrics\nsave_metrics('short', {'seed': seed})"
    write_notebook(folder / "small" / "notebooks" / "short.ipynb", metrics)
    printed = python("-m", "evlib.cli", "run", "notebooks/short.ipynb", "-p", "seed", "7", cwd=folder / "small")
    assert re.search(r"short +seed +7\n", printed) and str(folder.resolve() / "small" / "figures") in printed
    assert {path.name for path in (folder / "small").iterdir()} == {"notebooks", "build", "figures"}


def test_a_new_workbook_holds_all_notebooks(tmp_path, repository, capsys):
    (tmp_path / "study").mkdir()
    assert cli.main(["new", str(tmp_path / "study")]) == 0
    copied = {path.name for path in (tmp_path / "study").rglob("*.ipynb")}
    assert copied == {
        p.name for p in (repository / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    }
    assert "jupyter lab" in capsys.readouterr().out


def test_a_new_workbook_replaces_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(OptionError, match="new or empty folder"):
            workbook.new_workbook(place)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "mine"
