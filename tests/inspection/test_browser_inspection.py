"""ThresholdExplorer, TemplateView and TimingView in JupyterLab and in Voila: hands on the controls change the
picture."""

from browser import PICTURE

DATA = """
import evlib
from evlib.detection.oracle import oracle_detector

simulation = evlib.make_recording(duration_s=60.0, snr=9.0, seed=1)
recording, reference = simulation
train = evlib.make_recording(simulation.templates, duration_s=120.0, snr=9.0, seed=0)
detector = evlib.fit([tuple(train)], method="matched_filter", progress=False)
report = evlib.compare(reference, evlib.detect(detector, recording), 0.005, refractory_s=2.0,
duration_s=recording.duration_s)
"""
# What the kernel knows, read through the page: a label that follows the detector.
EXPLORER = """
import ipywidgets
explorer = evlib.ThresholdExplorer(detector, recording, reference)
first = ipywidgets.HTML()
def show(change=None):
    first.value = f'<span class="first-threshold">{explorer.detector.thresholds[0]:.3f}</span>'
explorer.message.observe(show, "value")
show()
ipywidgets.VBox([explorer, first])
"""
THRESHOLD = "() => document.querySelector('.first-threshold')?.innerText"
NUMBERS = "() => document.querySelector('.evlib-numbers')?.innerText"

WIDGET = ".jp-OutputArea-output .widget-vbox"


def test_thresholds_are_moved_and_applied(open_notebook):
    page = open_notebook([DATA, EXPLORER])
    page.changed(NUMBERS, lambda: page.slide("threshold", times=90))
    page.changed(PICTURE, lambda: page.slide("tolerance", "ArrowLeft", times=4))
    page.changed(PICTURE, lambda: page.slide("refractory", "ArrowRight", times=3))
    page.changed(THRESHOLD, lambda: page.click("apply"))
    page.screenshot(f"threshold_explorer_{open_notebook.front_end}", WIDGET)
    page.changed(THRESHOLD, lambda: page.click("reset"))
    page.changed(PICTURE, lambda: page.choose("type", "event_07"))


def test_templates_and_their_events(open_notebook):
    view = "evlib.TemplateView(detector, recording, reference, truth=oracle_detector(simulation))"
    page = open_notebook([DATA, view])
    page.changed(PICTURE, lambda: page.slide("single events", "ArrowLeft", times=8))
    page.changed(PICTURE, lambda: page.click("▶"))
    page.screenshot(f"template_view_{open_notebook.front_end}", WIDGET)
    page.changed(PICTURE, lambda: page.click("◀"))


def test_timing_errors(open_notebook):
    page = open_notebook([DATA, "evlib.TimingView(report, detector, recording)"])
    page.screenshot(f"timing_view_{open_notebook.front_end}", WIDGET)
    page.changed(NUMBERS, lambda: page.page.get_by_label("without the bias").check())
    page.changed(PICTURE, lambda: page.choose("type", "event_03"))
    page.changed(PICTURE, lambda: page.page.get_by_text("between types").click())
    page.screenshot(f"timing_view_kinds_{open_notebook.front_end}", WIDGET)


SMALL = """
import evlib
reference = evlib.Events.from_seconds([1.0, 1.5, 2.0], ["heel", "toe", "heel"], 2000)
evlib.TimingView(evlib.compare(reference, reference.shift(1)))
"""


def test_a_notebook_that_ran_elsewhere_shows_the_picture(open_in_lab):
    page = open_in_lab([SMALL], run=False)
    picture = page.page.locator(".jp-RenderedImage img")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500
    assert page.page.locator(".jupyter-widgets").count() == 0
