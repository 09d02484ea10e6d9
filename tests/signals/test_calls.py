"""Simulated calls: they are where and as long as their truth says, and differ as it is promised."""

import numpy as np
import pytest

from evlib.signals.calls import APART_S, EDGE_S, make_calls
from evlib.signals.errors import EvlibError


def test_calls_are_where_their_events_say():
    """Without noise to speak of, the signal is loud inside of events and nowhere else."""
    recording, events = make_calls(3, 40.0, snr_db=80.0, seed=4)
    signal, rate = recording.read()[:, 0], recording.sampling_rate_hz
    inside = np.zeros(len(signal), bool)
    for start, lasts in zip(events.sample, events.duration_s, strict=True):
        inside[start : start + round(lasts * rate)] = True
        edge = int(EDGE_S * rate)
        middle = signal[start + edge : start + round(lasts * rate) - edge]
        assert middle.std() > 1000
    assert signal[~inside].std() == pytest.approx(1.0, rel=0.05), "noise alone"
    gaps_s = np.diff(events.onset_s) - events.duration_s[:-1]
    assert gaps_s.min() >= APART_S - 2 / rate
    assert events.labelled_spans is None and len(events) > 10


def test_kinds_stay_the_same_and_calls_do_not():
    (one, events), (other, others), again = (make_calls(2, 60.0, 40.0, seed=seed) for seed in (1, 2, 1))
    assert np.array_equal(one.read(), again[0].read()) and not np.array_equal(events.sample, others.sample)
    pitch = {}
    for name, (recording, table) in {"one": (one, events), "other": (other, others)}.items():
        for k in range(2):
            peaks = []
            for start, lasts in zip(table.sample[table.type == k], table.duration_s[table.type == k], strict=True):
                call = recording.read(start, start + int(lasts * 4000))[:, 0]
                peaks.append(np.abs(np.fft.rfft(call, 8192)).argmax() * 4000 / 8192)
            pitch[name, k] = np.median(peaks)
    assert pitch["one", 0] == pytest.approx(pitch["other", 0], rel=0.1)
    assert pitch["one", 1] == pytest.approx(pitch["other", 1], rel=0.1)
    assert pitch["one", 1] > 2 * pitch["one", 0]


def test_the_spread_of_durations_and_the_ratio_are_those_asked_for():
    _, even = make_calls(1, 200.0, spread=0.0, mean_interval_s=0.2)
    _, wide = make_calls(1, 400.0, spread=0.4, mean_interval_s=0.2)
    assert np.ptp(even.duration_s) < 1e-9
    assert np.log(wide.duration_s).std() == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize(
    "wrong", [{"n_types": 0}, {"duration_s": 1.0}, {"snr_db": np.nan}, {"spread": -1}, {"mean_interval_s": 0}]
)
def test_refusals(wrong):
    with pytest.raises(EvlibError, match=next(iter(wrong))):
        make_calls(**wrong)
