"""Every code block of README and documentation runs, in order, in one namespace for each page, in an empty folder.

A block after a comment ``<!-- compiled only: why -->`` is only compiled: it takes minutes, or needs what is not here.
"""

import re
import subprocess

import pytest
from test_layering import PACKAGE

import evlib
from evlib import cli
from evlib.signals.synthetic import make_templates

ROOT = PACKAGE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- compiled only: [^\n]+ -->\n)?^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Blocks of the README and of the method that train networks for minutes.
LONG = ("pretrain=found)", "SupervisedTrainer", "pretrain_motion", "evlib.EventBrowser(recording, reference", "make ")
# Commands of a shell that are not evlib's are tested elsewhere (`make`) or belong to the machine.
EVLIB = re.compile(r"^evlib (?!run)(.*)$", re.MULTILINE)


def blocks(page):
    return [(bool(mark), kind, code) for mark, kind, code in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """The files that pages speak of, in an empty folder: short recordings of the simulated frame."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("night", 1), ("next_night", 2)):
        recording, events = evlib.make_recording(make_templates(3, seed=0), duration_s=20.0, seed=seed)
        evlib.write_recording(recording, f"{name}.npz")
        evlib.write_events(events, f"{name}_events.tsv")
    lines = [f"{k / 100},{k % 7},{k % 5}" for k in range(1000)]
    (tmp_path / "phone.csv").write_text("\n".join(["time,x,y", *lines]))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.stem)
def test_every_code_block_runs(page, stand_ins, capsys, monkeypatch):
    fit = evlib.fit
    # Which method is best is not what a page shows: the quickest will do.
    monkeypatch.setattr(evlib, "fit", lambda pairs, method="matched_filter", **more: fit(pairs, method, **more))
    namespace = {"__name__": "page"}
    for compiled_only, kind, code in blocks(page):
        compiled_only |= page.name in ("README.md", "method.md", "studies.md") and any(word in code for word in LONG)
        if kind == "python":
            program = compile(code, str(page), "exec")
            if not compiled_only:
                exec(program, namespace)
        else:
            subprocess.run(["bash", "-n"], input=code, text=True, check=True)
            for command in EVLIB.findall(code) if not compiled_only else ():
                command = command.replace("fit demo", "fit --method matched_filter --quiet demo").partition("#")[0]
                assert cli.main(command.split()) == 0, command


def test_the_site_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert "<!-- other pages -->" in index
    for name in re.findall(r"^[\w/.]+$", index, re.MULTILINE):
        assert name.startswith("..") or (ROOT / "docs" / f"{name}.md").is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target
