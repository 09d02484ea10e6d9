"""LiveView without a front end: it shows a session that runs in a thread, with its gaps, alarms and errors."""

import base64
import threading
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest

import evlib
from evlib.inspection.live import GAP, LAG_S
from evlib.live.session import Session, read_journal
from evlib.live.sources import Replay
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.synthetic import make_templates

pytestmark = pytest.mark.filterwarnings("ignore:channels by position")


@pytest.fixture(scope="module")
def simulation():
    return evlib.make_recording(make_templates(3, seed=4), 40.0, snr=8.0, seed=1)


@pytest.fixture(scope="module")
def detector(simulation):
    return evlib.fit([tuple(simulation)], "matched_filter", seed=3, progress=False)


@pytest.fixture(scope="module")
def gappy(simulation):
    """A recording with a gap from 30 to 32 s."""
    signal = simulation.recording.read()
    signal[60_000:64_000] = np.nan
    return evlib.Recording(signal, 2000.0, ["<b>left</b>", *simulation.recording.channels[1:]], "mV")


class Held(Replay):
    """A replay that waits at a sample until it is let go, and breaks there with an error, if one is given."""

    def __init__(self, recording, at, error=None, **options):
        super().__init__(recording, **options)
        self.at, self.error, self.go, self.arrived = at, error, threading.Event(), threading.Event()

    def blocks(self, start=0):
        for block in super().blocks(start):
            yield block
            start += len(block)
            if start >= self.at:
                self.arrived.set()
                while not self.go.wait(0.02):
                    yield block[:0]
                if self.error:
                    raise self.error


def view_of(detector, source, folder, **options):
    options = {"refresh_s": 0.05} | options
    return evlib.LiveView(Session(detector, source, folder, match_channels="position"), **options)


def spans(ax):
    """Spans of an axis that are shaded as gaps."""
    boxes = [patch.get_bbox() for patch in ax.patches if patch.get_alpha() == GAP["alpha"]]
    return [(box.x0, box.x1) for box in boxes]


def test_it_shows_signal_events_and_gaps_until_the_signal_ends(detector, gappy, tmp_path):
    before = plt.get_fignums(), threading.active_count()
    view = view_of(detector, Replay(gappy), tmp_path, view_s=12.0, highpass_hz=20.0)
    assert view.state == "ready" and not view.buttons["start"].disabled and view.buttons["stop"].disabled
    view.buttons["start"].click()
    assert view.wait(60) and view.state == "ended" and view.error is None
    assert view.buttons["start"].disabled and view.buttons["stop"].disabled
    found = read_journal(tmp_path)
    top, middle, bottom = view.figure().axes
    assert spans(top) == spans(middle) == [(30.0, 32.0)]
    shown = found[found.onset_s >= 28.0]
    marks = middle.collections[-1].get_segments()
    np.testing.assert_allclose([segment[0, 0] for segment in marks], shown.onset_s)
    lines = [line for line in middle.lines if len(line.get_xdata()) > 1000]
    assert len(lines) == 6 and all(28 <= line.get_xdata()[0] < line.get_xdata()[-1] <= 40 for line in lines)
    assert middle.get_xlim() == (28.0, 40.0) and bottom.get_xlim() == (-30, 0)
    assert middle.get_yticklabels()[0].get_text().startswith("<b>left</b>") and "mV" in view.session.units
    words = f"{len(shown)} events, decided up to 40.0 s; gaps: 30.0 to 32.0 s"
    assert words in view.message.picture and view.message.value == "the signal has ended"
    for fact in (f"events <b>{len(found)}</b>", "signal <b>40.0 s</b>", "samples lost <b>4000</b>"):
        assert fact in view.facts.value
    bundle = view._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == bytes(view.picture.value)
    assert (plt.get_fignums(), threading.active_count()) == before


def test_it_can_be_stopped_and_another_session_goes_on(detector, gappy, tmp_path):
    source = Held(gappy, 50_000)
    view = view_of(detector, source, tmp_path).start()
    assert view.state == "running" and source.arrived.wait(60)
    with pytest.raises(OptionError, match="goes on where it stopped"):
        view.start()
    view.buttons["stop"].click()
    source.go.set()
    assert view.wait(60) and view.state == "stopped" and "goes on here" in view.message.value
    more = view_of(detector, Replay(gappy), tmp_path).start()
    assert more.wait(60) and more.state == "ended"
    whole = evlib.detect(detector, gappy, match_channels="position")
    np.testing.assert_allclose(read_journal(tmp_path).onset_s, whole.onset_s, atol=1e-6)


def test_the_line_says_how_far_events_are_decided(detector, gappy, tmp_path):
    source = Held(gappy, 50_000)
    view = view_of(detector, source, tmp_path, view_s=2.0).start()
    assert source.arrived.wait(60)
    view.draw()
    decided_s = view.session.stream.decided_samples / 2000
    assert 0 < decided_s < 23
    (edge,) = view.figure().axes[0].texts
    assert edge.get_text() == f"◂ decided up to {decided_s:.1f} s" and edge.get_position()[0] == 23.0
    source.go.set()
    assert view.wait(60)
    assert view.figure().axes[0].texts[0].get_text() == "decided up to here"


def test_an_error_of_the_session_is_told_as_text(detector, gappy, tmp_path):
    source = Held(gappy, 10_000, ValueError("<b>the sensor</b> broke"))
    source.go.set()
    view = view_of(detector, source, tmp_path).start()
    assert view.wait(60) and view.state == "failed" and isinstance(view.error, ValueError)
    assert view.message.value == "the session failed: ValueError: <b>the sensor</b> broke" and view.message.warning


def test_an_alarm_is_told_while_samples_come_late(detector, gappy, tmp_path):
    source = Held(gappy, 4000, speed=20.0)
    session = Session(detector, source, tmp_path, match_channels="position", lag_alarm_s=0.3)
    view = evlib.LiveView(session, refresh_s=0.05).start()
    assert source.arrived.wait(60)
    for _ in range(600):
        time.sleep(0.05)
        if view.message.value:
            break
    assert view.message.value == "samples come more than 0.3 s behind real time" and view.message.warning
    assert session.late and view.session.status()["lag_s"] > 0.3
    lag = view.figure().axes[2].lines[0].get_ydata()
    assert max(lag) > 0.3
    view.stop()
    source.go.set()
    assert view.wait(60)


def test_memory_is_bounded(detector, gappy, tmp_path):
    view = view_of(detector, Replay(gappy), tmp_path, view_s=3.0)
    block = gappy.read(0, 500)
    for k in range(2000):
        view._take(500 * k, block)
    kept = sum(len(block) for _, block in view._blocks)
    assert 6000 <= kept <= 6500 and view._blocks[-1][0] == 500 * 1999
    assert view._lags.maxlen == LAG_S / 0.05 + 1


def test_slips_are_refused(detector, gappy, tmp_path):
    with pytest.raises(OptionError, match="Session"):
        evlib.LiveView(detector)
    session = Session(detector, Replay(gappy), tmp_path, match_channels="position")
    with pytest.raises(OptionError, match="refresh_s"):
        evlib.LiveView(session, refresh_s=0)
    with pytest.raises(UnitError, match="highpass_hz"):
        evlib.LiveView(session, highpass_hz=2000)
