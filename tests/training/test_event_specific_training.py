"""Windows of hybrid recordings that event-specific models learn from."""

import numpy as np

import evlib
from evlib.training.event_specific import windows_of

RATE = 2000.0


def test_windows_carry_the_events_in_them():
    """Against a loop over all events: presence, and time from the start of the window."""
    rng = np.random.default_rng(3)
    n, window = 6000, 200
    signal = np.arange(n, dtype=np.float32)[:, None]
    time = np.sort(rng.uniform(0, n - 1, 60))
    sample = np.floor(time + 0.5).astype(int)
    events = evlib.Events(sample, time - sample, rng.integers(3, size=60), ("a", "b", "c"), RATE)
    made = windows_of(lambda: (signal, events), 250, window, rng)
    assert len(made) == 250
    seen = 0
    for k in range(250):
        start = int(made.data[k][0, 0])
        assert np.array_equal(made.data[k], signal[start : start + window])
        for e in range(3):
            inside = [
                t - start
                for t, type in zip(time, events.type, strict=True)
                if type == e and start <= t < start + window - 1
            ]
            assert made.event_labels[k, e] == bool(inside)
            if inside:
                seen += 1
                assert np.abs(np.array(inside) - made.event_timings[k, e]).min() < 1e-3
            else:
                assert np.isnan(made.event_timings[k, e])
    assert seen > 100
