"""LiveView in JupyterLab and in Voila: it is started and stopped, its picture follows the signal, and it has no
barrier."""

from browser import PICTURE

DATA = """
import evlib, numpy as np, tempfile
from evlib.live.session import Session
from evlib.live.sources import Replay
from evlib.signals.synthetic import make_templates

recording, reference = evlib.make_recording(make_templates(3, seed=4), 60.0, snr=9.0, seed=1)
detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
signal = np.tile(recording.read(), (10, 1))
signal[10_000:14_000] = np.nan
names = ["<img src=x onerror=window.hit=1>", *recording.channels[1:]]
replay = Replay(evlib.Recording(signal, 2000.0, names), speed=2.0)
view = evlib.LiveView(Session(detector, replay, tempfile.mkdtemp(), match_channels="position"), highpass_hz=20.0)
"""
FACTS = "() => document.querySelector('.evlib-facts')?.innerText"
MESSAGE = "() => document.querySelector('.evlib-message')?.textContent || '(silent)'"
WORDS = "() => document.querySelector('.evlib-widget img.widget-image')?.alt"
AS_TEXT = "() => window.hit === undefined && !document.querySelector('.evlib-widget :is(img:not(.widget-image), b b)')"


def test_a_live_session_is_started_seen_and_stopped(open_notebook):
    page = open_notebook([DATA, "view"])
    page.page.wait_for_function(f"() => ({FACTS})()?.includes('ready')")
    page.changed(PICTURE, lambda: page.control("jupyter-button", "start").press("Enter"))
    page.page.wait_for_function(f"() => ({WORDS})()?.includes('gaps: 5.0 to 7.0 s')", timeout=60_000)
    page.screenshot(f"live_view_{open_notebook.front_end}", ".evlib-widget")
    assert page.find_barriers(".evlib-widget") == [] and page.page.evaluate(AS_TEXT)
    assert "running" in page.page.evaluate(FACTS)
    _, message = page.changed(MESSAGE, lambda: page.click("stop"), until="stopped")
    assert "a new Session with the same folder goes on here" in message
    page.page.wait_for_function(f"() => ({FACTS})().includes('stopped')")
    assert page.control("jupyter-button", "stop").is_disabled()
