"""Notebooks in a real browser: JupyterLab and Voila on 127.0.0.1, driven by Playwright with the system's Chromium.

The fixtures `open_in_lab`, `open_in_voila` and `open_notebook` (both, one after the other) are functions: cells in, a
running :class:`Page` out. When the test ends, errors in the console, in the kernel, in an output or in a dialog make it
fail. Screenshots go to the folder that the environment variable EVLIB_SCREENSHOTS names, if it names one.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from required import missing

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CHROMIUM_OPTIONS = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"]
TOKEN = "evlib"
SETTLED_MS = 800
# A picture's pixels, once it is there; null before.
PICTURE = """() => {
    const image = [...document.querySelectorAll('img.widget-image')].find(i => i.complete && i.naturalWidth);
    if (!image) return null;
    const canvas = Object.assign(document.createElement('canvas'), {width: image.naturalWidth, height:
    image.naturalHeight}); canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""
KERNEL_IS_IDLE = """() => {
    const widget = window.jupyterapp?.shell?.currentWidget;
    return widget?.context?.isReady && widget.sessionContext?.session?.kernel?.status === 'idle';
}"""


def write_notebook(path, cells):
    """A notebook of code cells, given as strings."""
    import nbformat.v4 as nb

    notebook = nb.new_notebook(cells=[nb.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    Path(path).write_text(json.dumps(notebook))


class Page:
    """A notebook that has run, in a front end: Playwright's ``page``, the ``folder`` of the notebook, and what tests
    do."""

    def __init__(self, page, folder, base):
        self.page, self.folder, self.base, self.errors = page, folder, base, []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _heard(self, message):
        # Voila asks a public server for icons; a test needs no network, and does not reach it.
        if message.type == "error" and message.location.get("url", "").startswith((self.base, "blob:")):
            self.errors.append(f"{message.text} ({message.location['url']})")

    def _received(self, frame):
        # What fails in a cell, and what fails in the kernel because of a click and is shown nowhere.
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        if re.search(r'"msg_type": ?"error"', text):
            self.errors += re.findall(r'"evalue": ?"[^"]*"', text) or [text]

    def changed(self, script, act, until="", timeout_s=60):
        """Do something and wait until ``script``, a JavaScript function, gives another value; returns old and new.

        What was done before comes to an end first: ``old`` is a value that has not changed for a while.
        The new value contains ``until``: on a slow machine an answer to something earlier may come in between.
        """
        options = {"timeout": 1e3 * timeout_s, "polling": 100}
        self.page.wait_for_function(script, **options)
        old, now = None, self.page.evaluate(script)
        while now != old:
            self.page.wait_for_timeout(SETTLED_MS)
            old, now = now, self.page.evaluate(script)
        act()
        other = f"([old, until]) => {{ const now = ({script})(); return now && now !== old && now.includes(until) }}"
        self.page.wait_for_function(other, arg=[old, until], **options)
        return old, self.page.evaluate(script)

    def control(self, kind, text):
        """The widget of a CSS class whose label or caption is ``text``."""
        if kind == "jupyter-button":
            return self.page.locator(f".{kind}", has_text=text).first
        label = self.page.locator(".widget-label", has_text=text)
        return self.page.locator(f".{kind}", has=label).first

    def click(self, text):
        """Press the button with this caption."""
        self.control("jupyter-button", text).click()

    def slide(self, text, key="ArrowRight", times=1):
        """Move the slider with this label by keys."""
        self.control("widget-slider", text).locator(".noUi-handle").first.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def choose(self, text, option):
        """Choose from the drop-down list with this label."""
        self.control("widget-dropdown", text).locator("select").select_option(option)

    def find_barriers(self, scope):
        """What axe finds serious or critical in the parts of the page that a CSS selector names."""
        from axe_playwright_python.base import AXE_FILE_PATH

        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.evaluate(AXE_FILE_PATH.read_text())
        options = {
            "resultTypes": ["violations"],
            "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
        }
        run = "([scope, options]) => axe.run({include: [...document.querySelectorAll(scope)]}, options)"
        found = self.page.evaluate(run, [scope, options])["violations"]
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    def screenshot(self, name, selector=None):
        """Keep what is seen, or one element of it."""
        folder = os.environ.get("EVLIB_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            seen = self.page if selector is None else self.page.locator(selector).first
            seen.screenshot(path=Path(folder) / f"{name}.png")

    def wait_for_error(self, timeout_s=60):
        """Wait until something went wrong; for tests that want to see it."""
        end = time.monotonic() + timeout_s
        while not self.errors and time.monotonic() < end:
            self.page.wait_for_timeout(100)

    def check(self):
        """Nothing went wrong so far: no error in the console, in the kernel, in an output or in a dialog."""
        self.page.wait_for_timeout(200)  # messages on their way
        dialogs = self.page.locator(".jp-Dialog").all_inner_texts()
        failed = self.page.locator(
            ".jp-OutputArea-output", has_text="Traceback (most recent call last)"
        ).all_inner_texts()
        wrong = [*self.errors, *dialogs, *failed]
        assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def chromium():
    """A running browser; without one the test is skipped."""
    # Not for the whole session: Playwright keeps an event loop running, in which other tests could start none.
    wanted = None if CHROMIUM else "Chromium (Debian: apt install chromium)"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        wanted = "the package playwright"
    if wanted:
        missing("browser", f"browser tests need {wanted}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@contextlib.contextmanager
def serve(command, folder, answer, environment):
    """Run a server on a free port until the block ends; wait until the path ``answer`` answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base, log = f"http://127.0.0.1:{port}", folder / "server.log"
    # A server that is left alone takes the settings of whoever runs the tests.
    environment = os.environ | {f"JUPYTER{name}_DIR": str(folder / path) for name, path in environment.items()}
    with log.open("w") as out:
        command = [sys.executable, "-m", *(part.format(port=port) for part in command)]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(base + answer, timeout=5).close()
                break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.25)
        else:
            raise AssertionError(f"the server does not answer:\n{log.read_text()[-2000:]}")
        yield base
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory):
    """JupyterLab on an empty folder."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (folder / "config" / "labconfig").mkdir(parents=True)
    (folder / "config" / "labconfig" / "page_config.json").write_text('{"buildCheck": false, "buildAvailable": false}')
    command = ["jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder / 'notebooks'}"]
    environment = {"LAB_SETTINGS": "settings", "LAB_WORKSPACES": "workspaces", "_CONFIG": "config"}
    with serve(command, folder, f"/api?token={TOKEN}", environment) as base:
        yield SimpleNamespace(base=base, folder=folder / "notebooks")


@pytest.fixture(scope="session")
def voila_server(tmp_path_factory):
    """Voila on an empty folder."""
    folder = tmp_path_factory.mktemp("voila")
    (folder / "notebooks").mkdir()
    command = ["voila", str(folder / "notebooks"), "--no-browser", "--port={port}", f"--token={TOKEN}"]
    command += ["--Voila.ip=127.0.0.1", "--Voila.tornado_settings=allow_remote_access=", "--show_tracebacks=True"]
    with serve(command, folder, "/voila/static/voila.js", {"_CONFIG": "config"}) as base:
        yield SimpleNamespace(base=base, folder=folder / "notebooks")


def _new_page(browser, server, cells):
    """A page, a fresh notebook in a folder of its own, and its address below the server's root."""
    number = len(list(server.folder.iterdir()))
    folder = server.folder / f"page{number}"
    folder.mkdir()
    write_notebook(folder / "notebook.ipynb", cells)
    # Tall: JupyterLab takes what is out of sight out of the page.
    page = browser.new_page(viewport={"width": 1300, "height": 1700})
    page.set_default_timeout(90_000)
    page.route(lambda url: not url.startswith((server.base, "data:", "blob:")), lambda route: route.abort())
    return Page(page, folder, server.base), f"{folder.name}/notebook.ipynb"


def _close(pages, end_kernel):
    """End kernels and close pages, whatever else; then say what went wrong in them."""
    try:
        for page in pages:
            page.check()
    finally:
        for page in pages:
            end_kernel(page.page)
            page.page.close()


@pytest.fixture
def open_in_lab(chromium, lab_server):
    """Open cells in JupyterLab and run them all; with ``run=False`` they ran elsewhere, and the page does not trust
    them."""
    opened = []

    def open_(cells, run=True):
        page, address = _new_page(chromium, lab_server, cells)
        opened.append(page)
        if not run:
            papermill = "-m papermill -k python3 --no-progress-bar notebook.ipynb notebook.ipynb".split()
            subprocess.run([sys.executable, *papermill], cwd=page.folder, check=True, capture_output=True)
        page.page.goto(f"{lab_server.base}/lab/tree/{address}?token={TOKEN}&reset")
        page.page.wait_for_function(KERNEL_IS_IDLE)
        if run:
            assert page.page.evaluate(
                "() => window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)"
            )
        return page

    yield open_
    _close(opened, lambda page: page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"))


@pytest.fixture
def open_in_voila(chromium, voila_server):
    """Open cells as a page of Voila, which runs them all, in its light or dark theme."""
    opened = []

    def open_(cells, theme="light"):
        page, address = _new_page(chromium, voila_server, cells)
        opened.append(page)
        page.page.goto(f"{voila_server.base}/voila/render/{address}?theme={theme}&token={TOKEN}", timeout=200_000)
        page.page.wait_for_selector(".jupyter-widgets")
        return page

    yield open_
    _close(opened, lambda page: page.goto("about:blank"))  # leaving the page ends its kernel


@pytest.fixture(params=["lab", pytest.param("voila", marks=pytest.mark.slow)])
def open_notebook(request):
    """Open cells in JupyterLab, and in another test as a page of Voila."""
    open_ = request.getfixturevalue(f"open_in_{request.param}")
    open_.front_end = request.param
    return open_
