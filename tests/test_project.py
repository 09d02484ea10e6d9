"""The project's own files agree with each other: dependencies, environment, Makefile, README, public names."""

import ast
import http.client
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from browser import serve
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from required import missing
from test_layering import FOLDERS, HEAVY

import evlib

MAX_TRACKED_BYTES = 1_000_000
# Of a model that comes with evlib.
MAX_WEIGHTS_BYTES = 5_000_000


@pytest.fixture(scope="module")
def pyproject(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def tracked(repository):
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := repository / name).is_file()]


def pins(repository):
    requirements = map(Requirement, (repository / "constraints.txt").read_text().split())
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements}


def test_every_dependency_is_pinned_to_a_version_that_it_allows(pyproject, repository):
    pinned = pins(repository)
    groups = [pyproject["dependencies"], *pyproject["optional-dependencies"].values()]
    wanted = [r for group in groups for r in map(Requirement, group) if r.name != "evlib"]
    wrong = [str(r) for r in wanted if (v := pinned.get(canonicalize_name(r.name))) is None or v not in r.specifier]
    assert not wrong


def test_every_extra_is_part_of_all(pyproject):
    extras = pyproject["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.extras == set(extras) - {"all", "docs", "dev"}
    assert "evlib[all,docs]" in extras["dev"]


def test_conda_environment_installs_what_pyproject_says(pyproject, repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    assert environment["name"] == pyproject["name"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, packages = environment["dependencies"]
    name, version = python.split("=")
    assert name == "python" and version in Requirement("python" + pyproject["requires-python"]).specifier
    assert pip == "pip"
    assert packages == {"pip": ["-c constraints.txt", "-e .[dev]"]}


def test_conda_recipe_needs_what_pyproject_needs(pyproject, repository):
    recipe = yaml.safe_load((repository / "conda" / "recipe" / "recipe.yaml").read_text())
    other = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
    other["lightning-fabric"] = "pytorch-lightning"
    wanted = {other.get(r.name, r.name): r.specifier for r in map(Requirement, pyproject["dependencies"])}
    wanted["python"] = Requirement("python" + pyproject["requires-python"]).specifier
    assert {r.name: r.specifier for r in map(Requirement, recipe["requirements"]["run"])} == wanted
    assert recipe["package"] == {"name": pyproject["name"], "version": pyproject["version"]}
    (script,) = recipe["build"]["python"]["entry_points"]
    assert dict([script.split(" = ")]) == pyproject["scripts"]
    assert recipe["about"]["license"] == pyproject["license"]


def test_pyproject_names_every_folder_of_the_package(repository):
    setuptools = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["packages"] == ["evlib", *(f"evlib.{folder}" for folder in FOLDERS), "evlib.notebooks"]


def test_version_stands_once(pyproject):
    assert evlib.__version__ == pyproject["version"]


def test_importing_evlib_imports_nothing_else():
    code = "import sys, evlib; dir(evlib); print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "evlib" in loaded and not loaded & (HEAVY | {"numpy", "torch", "scipy", "sklearn"})


@pytest.mark.parametrize("name", [name for name in evlib.__all__ if name != "__version__"])
def test_public_name_resolves(name):
    value = getattr(evlib, name)
    assert value.__name__ == name
    assert value.__doc__, f"evlib.{name} has no docstring"
    assert name in dir(evlib)


@pytest.mark.parametrize(("name", "home"), sorted(evlib._RENAMED.items()))
def test_a_moved_name_says_where_it_is(name, home):
    module, _, new = home.rpartition(".")
    with pytest.raises(ImportError, match=f"from evlib.{module} import {new}"):
        getattr(evlib, name)
    assert hasattr(importlib.import_module(f"evlib.{module}"), new)


@pytest.mark.parametrize("name", sorted(evlib._GONE))
def test_a_name_that_is_gone_says_what_to_write(name):
    with pytest.raises(ImportError, match="is gone; write"):
        getattr(evlib, name)


def test_no_public_name_is_a_module():
    modules = {module.name for module in pkgutil.iter_modules(evlib.__path__)}
    assert not modules & set(evlib.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'detekt'"):
        evlib.detekt  # noqa: B018
    assert evlib.signals.clock is importlib.import_module("evlib.signals.clock")


def test_python_blocks_of_the_readme_compile_and_use_names_that_exist(repository):
    text = (repository / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, "the README shows no Python"
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "evlib":
                assert hasattr(evlib, node.attr), f"the README uses evlib.{node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "evlib":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_make_has_the_targets_that_are_promised(repository):
    makefile = (repository / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert {"setup", "run", "run-full", "test", "lab", "app", "lint", "format", "clean"} <= targets
    readme = (repository / "README.md").read_text()
    assert set(re.findall(r"`?\bmake ([a-z][a-z-]*)`", readme)) <= targets
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert phony == targets


def command_of_the_app(repository, *options):
    """The options of Voila that ``make app`` starts, without the notebook."""
    make = ["make", "--no-print-directory", "-n", "-o", ".venv/.stamp", "V=.venv", "app", "APP=notebook", *options]
    listing = subprocess.run(make, cwd=repository, capture_output=True, encoding="utf-8", check=True).stdout
    words = shlex.split(listing.splitlines()[-1])
    assert words[1:3] == ["-m", "voila"] and words[-1] == "notebook"
    return words[3:-1]


def test_the_app_shows_tracebacks_on_request_only(repository):
    assert not any("traceback" in option or "debug" in option for option in command_of_the_app(repository))
    assert "--show_tracebacks=True" in command_of_the_app(repository, "DEBUG=1")


def test_the_app_needs_its_token_and_answers_this_computer_only(repository, tmp_path):
    pytest.importorskip("voila")
    (tmp_path / "notebooks").mkdir()
    command = ["voila", *command_of_the_app(repository), str(tmp_path / "notebooks"), "--no-browser", "--port={port}"]
    with serve(command, tmp_path, "/voila/static/voila.js", {"_CONFIG": "config"}) as base:
        token = re.search(r"127.0.0.1:[0-9]+/[?](token=[0-9a-f]{32,})", (tmp_path / "server.log").read_text())[1]

        def answer(query, host):
            connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=20)
            connection.request("GET", f"/?{query}", headers={"Host": host})
            response = connection.getresponse()
            connection.close()
            return response.status, response.getheader("Location", "").partition("?")[0]

        assert answer(token, "localhost") == (200, "")
        assert answer("", "localhost") == answer("token=wrong", "localhost") == (302, "/login")
        assert answer(token, "evil.example") == answer("", "evil.example") == (403, "")


def test_continuous_integration_can_be_executed(repository):
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(("home", "required"), [(None, "browser mosquitto"), ("recordings", "browser mosquitto data")])
def test_continuous_integration_requires_what_its_machine_has(home, required, repository, tmp_path):
    """A clone anywhere passes: without a folder of real recordings its tests are skipped."""
    folder = tmp_path / "clone" / ".ci"
    folder.mkdir(parents=True)
    shutil.copy(repository / ".ci" / "run", folder)
    # Nothing is installed and nothing is built: these programs only say what they were given.
    for program, answer in {"make": 'echo "$1: $EVLIB_REQUIRE"', "apt-get": "true", "id": "echo 0"}.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"EVLIB_DATA_HOME": home} if home else {})
    done = subprocess.run(["bash", folder / "run"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{target}: {required}" for target in ("lint", "docs", "test")]


@pytest.mark.parametrize("ci", ["", "true"])
def test_what_is_missing_is_skipped_unless_it_is_required(ci, monkeypatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("EVLIB_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="a folder"):
        missing("data", "name a folder")
    monkeypatch.setenv("EVLIB_REQUIRE", "browser data")
    with pytest.raises(pytest.fail.Exception, match="a folder .*names data"):
        missing("data", "name a folder")


def test_tracked_files_are_small(tracked):
    most = {True: MAX_WEIGHTS_BYTES, False: MAX_TRACKED_BYTES}
    assert [path.name for path in tracked if path.stat().st_size >= most[path.suffix == ".safetensors"]] == []


def test_published_figures_have_their_numbers_beside_them(repository):
    for picture in (repository / "figures" / "published").glob("*.png"):
        assert picture.stat().st_size <= 200_000, picture.name
        assert picture.with_suffix(".json").is_file(), picture.name


def test_tracked_files_name_no_folder_of_one_machine(tracked, repository):
    # Spelled in two halves, so that this file passes too. Continuous integration alone may look beside the checkout.
    pattern = re.compile(rb"(?<![\w/])(?:\.\./)*shar" rb"ed/|/wor" rb"k/|/home/\w|/Us" rb"ers/\w")
    wrong = {
        f"{path.relative_to(repository)}: {match[0].decode()}"
        for path in tracked
        if path != repository / ".ci" / "run" and path.suffix != ".png" and (match := pattern.search(path.read_bytes()))
    }
    assert not wrong
