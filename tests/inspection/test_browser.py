"""The fixtures for tests in a browser: they see a picture change, and they see errors."""

import pytest
from browser import PICTURE
from playwright.sync_api import TimeoutError as Waited

SLIDER_AND_PICTURE = """
import io
import ipywidgets
from matplotlib.figure import Figure

picture = ipywidgets.Image(format="png")
waves = ipywidgets.IntSlider(3, 1, 10, description="waves")
idle = ipywidgets.IntSlider(3, 1, 10, description="idle")

def draw(change=None):
    figure, buffer = Figure((4, 2)), io.BytesIO()
    figure.subplots().plot([k % waves.value for k in range(50)])
    figure.savefig(buffer, format="png")
    picture.value = buffer.getvalue()

waves.observe(draw, "value")
draw()
ipywidgets.VBox([waves, idle, picture])
"""


def test_a_slider_redraws_a_picture(open_notebook):
    page = open_notebook([SLIDER_AND_PICTURE])
    page.changed(PICTURE, lambda: page.slide("waves"))
    with pytest.raises(Waited):
        page.changed(PICTURE, lambda: page.slide("idle"), timeout_s=2)


BROKEN = """
import ipywidgets
broken = ipywidgets.Button(description="divide")
broken.on_click(lambda button: 1 / 0)
broken
"""


def test_errors_are_seen(open_notebook):
    page = open_notebook([BROKEN])
    page.check()
    # What a callback raises is shown nowhere in the page.
    page.click("divide")
    page.wait_for_error()
    with pytest.raises(AssertionError, match="division by zero"):
        page.check()
    page.errors.clear()
    page.page.evaluate("() => setTimeout(() => { throw new Error('a widget broke') })")
    page.wait_for_error()
    with pytest.raises(AssertionError, match="a widget broke"):
        page.check()
    page.errors.clear()  # the fixture would complain too


def test_a_cell_that_fails_is_seen(open_notebook):
    page = open_notebook(["import ipywidgets\nipywidgets.Button()", "1 / 0"])
    page.page.get_by_text("ZeroDivisionError: division by zero").wait_for()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.check()
    page.errors.clear()
    page.page.evaluate("() => document.querySelectorAll('.jp-OutputArea-output').forEach(output => output.remove())")
