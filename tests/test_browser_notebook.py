"""Notebook 06 in a real browser, as a notebook and as a page: every widget is there, and a click changes its
picture."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "06_inspect_detections.ipynb"
# Widget: a caption that no other one has.
WIDGETS = {
    "event_browser": "next error",
    "threshold_explorer": "apply to the detector",
    "template_view": "single events shown",
    "timing_view": "without the bias of each type",
    "annotator": "fine-tune now",
}
OUTPUT = ".jp-OutputArea-output"
CANVAS = "() => document.querySelectorAll('.evlib-signal canvas')[0]?.toDataURL()"
ANNOTATOR_CANVAS = "() => document.querySelectorAll('.evlib-signal canvas')[1]?.toDataURL()"


def cells(**parameters):
    """The code of the notebook, with other parameters."""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            yield cell.source
        if "parameters" in cell.metadata.get("tags", []):
            yield "\n".join(f"{name} = {value!r}" for name, value in parameters.items())


@pytest.mark.slow
def test_every_widget_of_the_notebook_is_drawn(open_notebook):
    page = open_notebook(list(cells(duration_s=40.0, n_types=4, reviewed_s=[10.0])))
    page.page.set_viewport_size({"width": 1300, "height": 12_000})  # JupyterLab draws only what is in sight
    for name, caption in WIDGETS.items():
        output = page.page.locator(OUTPUT, has_text=caption).first
        output.locator("canvas, img.widget-image").first.wait_for()
        page.screenshot(f"notebook_{name}_{open_notebook.front_end}", f'{OUTPUT}:has-text("{caption}")')
    page.changed(CANVAS, lambda: page.click("next error"))
    page.changed(ANNOTATOR_CANVAS, lambda: page.click("accept"))
    page.page.wait_for_timeout(500)
    page.screenshot(f"notebook_{open_notebook.front_end}")
