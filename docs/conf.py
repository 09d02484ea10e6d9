"""The documentation site: `make docs` builds it from docs/, notebooks/ and the docstrings; nothing is downloaded.

The root of the sources is the repository, so that links between pages, notebooks and figures are those of the
repository. A notebook that was executed into build/ is shown with its outputs, another with its code only.
"""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import evlib  # noqa: E402

project, author, version = "evlib", "evlib contributors", evlib.__version__
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "notebooks/studies/*.ipynb", "CONTRIBUTING.md", "CHANGELOG.md"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design", "sphinx_copybutton"]
html_theme = "pydata_sphinx_theme"
html_title = "evlib"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# All pages stand in the sidebar, by their captions; the bar at the top holds the search only.
html_sidebars = {"**": ["globaltoc.html"]}
html_theme_options = {"navbar_center": [], "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
autodoc_typehints = "none"
# What widgets and progress bars leave in an executed notebook has no picture here.
suppress_warnings = ["mystnb.unknown_mime_type", "docutils.mystnb"]


def _pages():
    """Pages of docs/ that the front page does not name: each is listed under "How to"."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").split()
    return [page.stem for page in sorted((ROOT / "docs").glob("*.md")) if page.stem not in {*index, "index"}]


def _reference():
    """Directives for all public names, by file."""
    for module, names in evlib._MODULES.items():
        about = importlib.import_module(f"evlib.{module}").__doc__.split("\n\n")[0]
        yield f"## evlib.{module}\n\n{about}\n"
        for name in names.split():
            kind = "class" if isinstance(getattr(evlib, name), type) else "function"
            members = "   :members:\n" if kind == "class" else ""
            yield f"```{{eval-rst}}\n.. auto{kind}:: evlib.{name}\n{members}```\n"


def _read(app, docname, source):
    """Executed notebooks in place of those without outputs; lists that follow the files."""
    if docname.startswith("notebooks/"):
        executed = ROOT / "build" / f"{docname.rpartition('/')[2]}.ipynb"
        if executed.is_file():
            source[0] = executed.read_text(encoding="utf-8")
    source[0] = source[0].replace("<!-- other pages -->", "\n".join(_pages()))
    if docname == "docs/reference":
        source[0] = source[0].replace("<!-- public names -->", "\n".join(_reference()))


def _docstring(app, what, name, obj, options, lines):
    """Docstrings are plain text: the first sentence as it is, the rest as it was typed."""
    text = "\n".join(lines).strip()
    first, _, rest = text.partition("\n\n")
    literal = [".. code-block:: text", "", *("   " + line for line in rest.splitlines()), ""] if rest else []
    summary = first.replace("``", "`").replace("*", r"\*").replace("|", r"\|").replace("_", r"\_").replace("`", "")
    lines[:] = [*summary.splitlines(), "", *literal]


def _front_page(app, error):
    """The site opens at its root too."""
    if error is None and app.builder.name == "html":
        start = "docs/index.html"
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={start}"><a href="{start}">evlib</a>'
        Path(app.outdir, "index.html").write_text(page)


def setup(app):
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("build-finished", _front_page)
