"""The annotator in a real browser: clicks and drags edit the log, undo takes them back, saving changes the file."""

import json

import numpy as np

from evlib.inspection.annotations import AnnotationLog
from evlib.signals.events import read_events

CELLS = [
    """
import numpy as np
from evlib import Annotator, fit, make_recording
from evlib.signals.synthetic import make_templates

simulation = make_recording(make_templates(8, 4, seed=5), duration_s=60, snr=11, seed=5)
recording, truth = simulation.recording, simulation.events
# A detector that learned from few labels: it is often unsure.
detector = fit([(recording, truth)], "matched_filter", labels_per_type=3, refractory_s=1.0, progress=False)
""",
    """
annotator = Annotator(recording, detector, log="annotations.jsonl", highpass_hz=20, view_s=2.5)
annotator
""",
]
PICTURE = "() => document.querySelector('.evlib-signal canvas')?.toDataURL()"
REPLY = (
    "() => [...document.querySelectorAll('.widget-html-content, .evlib-message')].map(e => e.textContent).join(' | ')"
)
# The canvas: the gutter on the left, the margin on the right, and a place between the lanes of two channels.
GUTTER, RIGHT, LANE = 92, 10, 130


def test_clicks_drags_undo_and_save(open_notebook):
    page = open_notebook(CELLS)
    page.page.wait_for_selector(".evlib-signal canvas")
    page.page.wait_for_timeout(500)
    canvas = page.page.locator(".evlib-signal canvas").first
    path = page.folder / "annotations.jsonl"

    def act(what, until, expected):
        """Do something, wait for words on the page, and see which line it wrote."""
        page.changed(REPLY, what)
        page.page.wait_for_function(f"words => ({REPLY})().includes(words)", arg=until)
        assert json.loads(path.read_text().splitlines()[-1])["op"] == expected

    def view():
        """What is in view: its beginning and end, and the seconds of a pixel."""
        start, stop = map(float, canvas.get_attribute("data-view").split())
        return start, stop, (stop - start) / (canvas.bounding_box()["width"] - GUTTER - RIGHT)

    page.screenshot(f"annotator_{open_notebook.front_end}_first", ".jupyter-widgets")
    # Suggestions: accept one, reject one; the picture goes to the next.
    page.changed(PICTURE, lambda: act(lambda: page.click("accept"), "Accepted", "accept"))
    page.changed(PICTURE, lambda: act(lambda: page.click("reject"), "Rejected", "reject"))
    page.screenshot(f"annotator_{open_notebook.front_end}_decided", ".jupyter-widgets")

    # A click on empty signal with shift adds exactly there; undo takes it back.
    page.choose("type", "event_03")
    box = canvas.bounding_box()
    n_rows = len(AnnotationLog(path).rows())
    start, stop, pixel_s = view()
    times = np.clip([start, *(row.time_s for row in AnnotationLog(path).rows()), stop], start + 0.1, stop - 0.1)
    gap = np.argmax(np.diff(times))
    place = float(times[gap : gap + 2].mean())
    click = {"x": GUTTER + (place - start) / pixel_s, "y": LANE}
    page.changed(PICTURE, lambda: act(lambda: canvas.click(position=click, modifiers=["Shift"]), "was added", "add"))
    added = max(AnnotationLog(path).rows(), key=lambda row: row.id)
    assert added.type == "event_03" and abs(added.time_s - place) < 2 * pixel_s

    # Dragging its mark moves it, and the kernel says where to.
    page.page.keyboard.down("Shift")
    page.page.mouse.move(box["x"] + click["x"], box["y"] + LANE)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + click["x"] + 12, box["y"] + LANE, steps=4)
    act(page.page.mouse.up, "Moved event_03", "move")
    page.page.keyboard.up("Shift")
    moved = AnnotationLog(path)[added.id]
    assert abs(moved.time_s - added.time_s - 12 * pixel_s) < 2 * pixel_s
    page.page.wait_for_timeout(300)
    page.screenshot(f"annotator_{open_notebook.front_end}_added", ".jupyter-widgets")

    # Keys: u takes the move and the new event back.
    page.page.locator(".evlib-signal").first.focus()
    act(lambda: page.page.keyboard.press("u"), "Undone: move", "undo")
    act(lambda: page.page.keyboard.press("u"), "Undone: add", "undo")
    assert len(AnnotationLog(path).rows()) == n_rows

    # Everything in view is right and complete; saving writes the table, and saves again what is new.
    act(lambda: page.click("accept all in view"), "suggestions in view", "accept")
    act(lambda: page.click("view is complete"), "is complete", "review")
    act(lambda: page.click("save"), "Saved", "save")
    table = page.folder / "annotations.tsv"
    first = read_events(table)
    assert len(first) >= 2 and len(first.labelled_spans) >= 1
    page.page.wait_for_timeout(300)
    page.screenshot(f"annotator_{open_notebook.front_end}_complete", ".jupyter-widgets")
    page.changed(PICTURE, lambda: page.click("next ▸"))
    act(lambda: page.click("accept"), "Accepted", "accept")
    act(lambda: page.click("save"), f"Saved {len(first) + 1} events", "save")
    assert len(read_events(table)) == len(first) + 1


def test_fine_tuning_shows_what_changed(open_in_lab):
    accept = "for row in annotator.annotations.suggestions():\n    annotator.annotations.accept(row.id)"
    accept += "\nannotator.signal.show(10, 20)"
    page = open_in_lab([*CELLS, accept])
    page.page.wait_for_selector(".evlib-signal canvas")
    page.click("fine-tune now")
    page.page.wait_for_function(f"() => ({REPLY})().includes('gained')", timeout=60_000)
    page.changed(PICTURE, lambda: page.click("next change"))
    page.page.wait_for_timeout(500)
    page.screenshot("annotator_fine_tuned", ".jupyter-widgets")
