"""The candidates that the browser shows in a view are those of a search through the whole recording."""

import numpy as np
import pytest
from planted import make_bank, make_templates, plant, schedule

from evlib.detection.detector import Detector
from evlib.inspection.browser import CandidateTrace
from evlib.signals.errors import UnitError
from evlib.signals.recording import Recording
from evlib.templates.whiten import Whitener

RATE = 2000.0


@pytest.fixture(scope="module")
def searched():
    """A detector, a recording of 35 s, and the candidates of a search through the whole of it."""
    rng = np.random.default_rng(3)
    templates = make_templates(4, 3, RATE, seed=1)
    time, type, n = schedule(rng, 200, 4, gap=310)
    signal = plant(templates, time, type, 9.0, n, rng)
    bank = make_bank(templates, 9.0)
    taps = np.zeros((3, 101))
    taps[:, 50] = 1
    detector = Detector(Whitener(taps, np.zeros(3), RATE), bank, np.array([0.0, 1, 2, 3]), None, -3.0)
    recording = Recording(signal, RATE)
    return detector, recording, detector.candidates(recording)


def test_candidates_in_view_are_those_of_a_search_through_all(searched, monkeypatch):
    detector, recording, all_of_them = searched
    monkeypatch.setattr("evlib.inspection.browser.MAX_TILES", 3)
    trace = CandidateTrace(detector, recording)
    time_s = all_of_them.time / RATE
    for start_s, stop_s in (
        (0.0, 3.0),
        (8.0, 24.0),
        (9.99, 10.01),
        (30.0, recording.duration_s),
        (0.0, recording.duration_s),
    ):
        inside = (time_s >= start_s) & (time_s <= stop_s)
        found_s, type, rise = trace.between(start_s, stop_s)
        np.testing.assert_allclose(found_s, time_s[inside], atol=1e-6)
        np.testing.assert_array_equal(type, all_of_them.type[inside])
        expected = all_of_them.llr[inside] + 3.0 - detector.thresholds[type]
        np.testing.assert_allclose(rise, expected, atol=1e-3)
        assert trace._tile.cache_info().currsize <= 3
    with pytest.raises(UnitError, match="resample"):
        CandidateTrace(detector, Recording(recording.signal, 1000))
