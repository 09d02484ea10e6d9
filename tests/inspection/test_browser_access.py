"""Notebook 06 for everybody, in a real browser: by keys alone, for screen readers, in both themes, on a narrow page."""

import json

import pytest

# What axe may look at: the rest of the page belongs to JupyterLab and Voila, and to cells without a widget.
WIDGETS = ".evlib-widget"
PARAMETERS = "n_types, duration_s = 3, 20.0"
THEME = "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab %s'}).then(() => true)"
LIGHT, DARK = THEME % "Light", THEME % "Dark"
# The lightness of the corner of a canvas, from 0 to 255.
PAPER = """() => {
    const canvas = document.querySelector('.evlib-signal canvas');
    return String(canvas.getContext('2d').getImageData(2, canvas.height / 2, 1, 1).data[0]);
}"""
# Widgets, and parts of them, that reach beyond the page; and controls that lie on each other.
MISPLACED = """() => [...document.querySelectorAll('.evlib-widget')].flatMap(root => {
    const right = root.getBoundingClientRect().right + 1, wrong = [];
    const what = 'button, select, input, .widget-label, .noUi-target, .evlib-signal, .evlib-head, .widget-html, img';
    const controls = [...root.querySelectorAll(what)].filter(e => e.getClientRects().length && e.offsetHeight);
    for (const [k, e] of controls.entries()) {
        const a = e.getBoundingClientRect();
        if (a.right > right) wrong.push('beyond the page: ' + e.outerHTML.slice(0, 90));
        for (const o of controls.slice(k + 1)) {
            const b = o.getBoundingClientRect(), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            if (wide > 2 && high > 2 && !e.contains(o) && !o.contains(e))
                wrong.push('on each other: ' + e.outerHTML.slice(0, 90) + o.outerHTML.slice(0, 90));
        }
    }
    return wrong;
})"""
# What has the focus of the keyboard: its class, whether it belongs to a widget, and whether one sees it.
FOCUS = """() => {
    const e = document.activeElement;
    return [e.className, e.closest('.evlib-widget') ? 'inside' : 'outside', getComputedStyle(e).outlineStyle];
}"""


def cells_of_notebook_06(repository):
    """Its cells up to the annotator, with a small recording."""
    notebook = json.loads((repository / "notebooks" / "06_inspect_detections.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    first = next(k for k, cell in enumerate(cells) if cell.startswith("recording_path"))
    last = next(k for k, cell in enumerate(cells) if "annotator = evlib.Annotator" in cell)
    return [*cells[: first + 1], PARAMETERS, *cells[first + 1 : last + 1]]


def wait_for_widgets(page):
    page.page.locator(".evlib-signal canvas").nth(1).wait_for()
    page.page.locator("img.widget-image").nth(2).wait_for()
    page.page.wait_for_function("() => [...document.images].every(image => image.complete)")
    page.page.wait_for_timeout(1500)


def check_theme(page, name, dark):
    """No barrier, the canvas on the paper of the page, and everything in its place on a wide and on a narrow page."""
    lightness = int(page.page.evaluate(PAPER))
    assert lightness < 60 if dark else lightness > 200
    assert page.find_barriers(WIDGETS) == []
    for width in (1280, 700):
        page.page.set_viewport_size({"width": width, "height": 1700})
        page.page.wait_for_timeout(1000)
        assert page.page.evaluate(MISPLACED) == [], width
        page.screenshot(f"access_{name}_{width}", WIDGETS)


def test_notebook_06_in_lab(open_in_lab, repository):
    page = open_in_lab(cells_of_notebook_06(repository))
    wait_for_widgets(page)
    check_theme(page, "lab_light", dark=False)
    # The canvas follows the theme: out of sight (a notebook is long) once it is looked at, in sight at once.
    canvas = page.page.locator(".evlib-signal canvas").first
    page.page.evaluate(DARK)
    canvas.scroll_into_view_if_needed()
    page.page.wait_for_function(f"() => Number(({PAPER})()) < 60")
    page.changed(PAPER, lambda: page.page.evaluate(LIGHT))
    page.changed(PAPER, lambda: page.page.evaluate(DARK))
    check_theme(page, "lab_dark", dark=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_notebook_06_in_voila(open_in_voila, repository, theme):
    page = open_in_voila(cells_of_notebook_06(repository), theme)
    wait_for_widgets(page)
    check_theme(page, f"voila_{theme}", dark=theme == "dark")


HOSTILE = """
import numpy as np, evlib
names = ["<img src=x onerror=window.hit=1>", "$x_{$", "<b>bold</b>", "long " + "x" * 300]
signal = np.random.default_rng(0).normal(size=(8000, 2)).astype("f4")
signal[6000:7000, 1] = np.nan
recording = evlib.Recording(signal, 2000, names[:2], name=names[0])
events = evlib.Events.from_seconds([0.5, 1.0, 1.5, 2.0], names, 2000)
browser = evlib.EventBrowser(recording, events, events[1:], view_s=4)
annotator = evlib.Annotator(recording, names=names, log="log.jsonl", view_s=4)
"""
AS_TEXT = "() => window.hit === undefined && !document.querySelector('.evlib-widget :is(img, b b)')"


def test_keys_alone_are_enough(open_notebook):
    page = open_notebook([HOSTILE, "browser", "annotator"])
    signals = page.page.locator(".evlib-signal")
    signals.nth(1).wait_for()
    page.page.wait_for_timeout(800)
    keys = page.page.keyboard
    # Names out of files are text, and are all there.
    assert page.page.evaluate(AS_TEXT)
    assert "<img src=x" in page.page.locator(WIDGETS).first.inner_text()
    # From the first control to the end: what has the focus is seen, and the signal is left again.
    page.page.locator(f"{WIDGETS} button").first.focus()
    seen = []
    for _ in range(60):
        seen.append(page.page.evaluate(FOCUS))
        keys.press("Tab")
        if page.page.evaluate(FOCUS)[1] == "outside":
            break
    assert any("evlib-signal" in name for name, *_ in seen) and "evlib-signal" not in seen[-1][0]
    assert len(seen) < 40 and all(outline != "none" for _, _, outline in seen), seen
    # Backwards too.
    signals.first.focus()
    keys.press("Shift+Tab")
    assert "evlib-signal" not in page.page.evaluate(FOCUS)[0]

    # The browser in words: what is selected, and the picture.
    signals.first.focus()
    said = "() => document.querySelector('.evlib-said').textContent || '(silent)'"
    _, words = page.changed(said, lambda: keys.press("n"), until="miss")
    told = "() => document.querySelector('.evlib-signal canvas').getAttribute('aria-label')"
    page.page.wait_for_function(f"() => ({told})().includes('miss')")
    picture = page.page.evaluate(told)
    assert "reference <img src=x" in picture and "Channels: <img" in picture

    # The annotator: the cursor, a new event exactly there, another place for it, and gone again.
    log = page.folder / "log.jsonl"

    def lines():
        # The first edit makes the log.
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def edited(act, op):
        count = len(lines())
        act()
        for _ in range(100):
            page.page.wait_for_timeout(100)
            written = lines()
            if len(written) > count and written[-1]["op"] == op:
                return written[-1]
        raise AssertionError(f"{op} did not reach the log")

    signals.nth(1).focus()
    keys.press("Shift+ArrowRight")
    added = edited(lambda: keys.press("Shift+Enter"), "add")
    assert added["time_s"] == pytest.approx(2.0 + 4 / 200)
    keys.press("Shift+ArrowRight")
    keys.press("Shift+ArrowRight")
    moved = edited(lambda: keys.press("m"), "move")
    assert moved["time_s"] == pytest.approx(2.0 + 3 * 4 / 200)
    edited(lambda: keys.press("Delete"), "delete")
    keys.press("F2")  # a key of the browser or of nobody changes nothing
    undone = edited(lambda: keys.press("u"), "undo")
    assert undone["op"] == "undo"
    page.screenshot(f"keys_{open_notebook.front_end}", WIDGETS)
