"""The event browser in a real browser: jumps, zoom, filters and clicks change the picture, without an error."""

CELLS = [
    """
import numpy as np
from dataclasses import replace
from evlib import EventBrowser, make_recording
from evlib.detection.oracle import oracle_detector

simulation = make_recording(duration_s=60, snr=12, seed=0)
truth = simulation.events
rng = np.random.default_rng(0)
# An estimate with known mistakes: ten events missed, five types confused, six times wrong.
chosen = rng.permutation(len(truth))
type, sample, noise = truth.type.copy(), truth.sample.copy(), rng.normal(0, 0.3, len(truth))
type[chosen[10:15]] = (type[chosen[10:15]] + 1) % 16
sample[chosen[15:21]] += 120
score = rng.uniform(0.5, 1, len(truth))
estimated = replace(truth, sample=sample, type=type, fraction=truth.fraction + noise, score=score)
estimated = estimated[np.isin(np.arange(len(truth)), chosen[:10], invert=True)]
""",
    """
browser = EventBrowser(simulation.recording, truth, estimated, oracle_detector(simulation), highpass_hz=20, view_s=4)
browser
""",
]
PICTURE = "() => document.querySelector('.evlib-signal canvas')?.toDataURL()"
SAYS = "() => document.querySelector('.evlib-said')?.textContent || '(silent)'"


def test_jumps_zoom_filters_and_clicks_change_the_picture(open_notebook):
    page = open_notebook(CELLS)
    page.page.wait_for_selector(".evlib-signal canvas")
    page.page.wait_for_timeout(500)
    canvas = page.page.locator(".evlib-signal canvas")
    if open_notebook.front_end == "lab":
        page.screenshot("event_browser_first", ".jp-OutputArea-output .jupyter-widgets")

    _, said = page.changed(SAYS, lambda: page.click("next error"), until="error 1 of 32")
    assert said.startswith("error 1 of 32"), said
    page.changed(PICTURE, lambda: page.click("next error"))
    _, said = page.changed(SAYS, lambda: page.click("next disagreement"), until="disagreement")
    assert said.startswith("disagreement"), said
    page.page.wait_for_timeout(300)
    page.screenshot(f"event_browser_{open_notebook.front_end}", ".jupyter-widgets")

    # Zoom by wheel: the picture changes at once, and the kernel answers with finer bins.
    box = canvas.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200)
    page.changed(PICTURE, lambda: page.page.mouse.wheel(0, -1200))
    page.page.wait_for_timeout(400)
    page.screenshot(f"event_browser_{open_notebook.front_end}_zoomed", ".jupyter-widgets")

    # Keys belong to the signal: a letter jumps, arrows move, and the notebook takes none of them for itself.
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] - 30})
    _, said = page.changed(SAYS, lambda: page.page.keyboard.press("u"), until="least certain 1 of")
    assert said.startswith("least certain 1 of"), said
    page.changed(PICTURE, lambda: page.page.keyboard.press("ArrowRight"))
    for _ in range(6):
        page.changed(PICTURE, lambda: page.page.keyboard.press("-"))
    page.page.wait_for_timeout(500)
    page.screenshot(f"event_browser_{open_notebook.front_end}_wide", ".jupyter-widgets")

    # Hiding the hits leaves the errors.
    button = "() => document.querySelector('.widget-toggle-button')?.textContent || '(silent)'"
    page.changed(PICTURE, lambda: page.page.locator(".widget-toggle-button").first.click())
    assert page.page.evaluate(button).strip().endswith("hit 0")
