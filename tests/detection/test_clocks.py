"""Two sensors on two clocks: the lag is found from events that both see, and one clock stays as it is."""

import numpy as np
import pytest

import evlib
from evlib.detection import clocks
from evlib.detection.oracle import oracle_detector
from evlib.signals.recording import Recording

RATE, SECOND = 2000.0, (3, 4, 5)


@pytest.fixture(scope="module")
def detector():
    return oracle_detector(evlib.make_recording(duration_s=30, seed=1))


@pytest.fixture(scope="module")
def pair():
    return tuple(evlib.make_recording(duration_s=62, seed=2))


def late(recording, offset_s, skew):
    """The recording whose second sensor has events later, by the offset and more and more."""
    time_s = np.array([0.0, recording.duration_s])
    return Recording(recording.align_clocks(SECOND, time_s, -(offset_s + skew * time_s)).read(), RATE)


def test_one_clock_stays_as_it_is(detector, pair):
    recording, _ = pair
    assert clocks.on_one_clock(detector, recording) is recording
    dead = recording.read()
    dead[:, 3:] = 0
    assert clocks.clock_lag(detector, Recording(dead, RATE)) is None, "a sensor that sees nothing has no clock"
    assert clocks.clock_lag(detector, recording.between(0, 30)) is None


@pytest.mark.parametrize(("offset_s", "skew"), [(0.3, 0.01), (-1.0, -0.002)])
def test_a_lag_is_found_said_and_taken_back(detector, pair, offset_s, skew, caplog):
    recording, events = pair
    apart = late(recording, offset_s, skew)
    lag = clocks.clock_lag(detector, apart)
    assert lag.channels == SECOND
    # The lag is that at times of the first clock.
    assert np.allclose(lag.lag_s, (offset_s + skew * lag.time_s) / (1 - skew), atol=3e-3)
    found = evlib.detect(detector, apart)
    assert "another clock" in caplog.text
    seen = (events.onset_s > 2) & (events.onset_s < 60)
    assert evlib.compare(events[seen], found[(found.onset_s > 2) & (found.onset_s < 60)]).f1 > 0.97


def test_validate_says_it(detector, pair):
    recording, _ = pair
    text = str(evlib.validate(late(recording, 0.2, 0.01), detector=detector))
    assert "another clock" in text and "align_clocks" in text
    assert "clock" not in str(evlib.validate(recording, detector=detector))
