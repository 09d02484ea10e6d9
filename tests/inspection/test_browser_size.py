"""Long recordings do not make the browser large: it keeps a pyramid of lows and highs, not a copy of the signal."""

import tracemalloc

import numpy as np

import evlib


def test_ten_minutes_with_many_events_need_little_memory():
    rng, n_events, names = np.random.default_rng(0), 1600, [f"event_{k:02d}" for k in range(16)]
    recording = evlib.Recording(rng.standard_normal((1_200_000, 6), dtype=np.float32), 2000.0)
    times, types = np.sort(rng.uniform(0, 599, n_events)), rng.choice(names, n_events)
    labels = evlib.Events.from_seconds(times, types, 2000.0, names)
    shifted = rng.choice(names, n_events)
    found = evlib.Events.from_seconds(times, shifted, 2000.0, names, score=rng.uniform(0.3, 1, n_events))
    browser = evlib.EventBrowser(recording, labels, found, refractory_s=0.5)
    browser.png()  # the first picture imports what later ones use
    for kind in ("event", "error", "least_certain", "refractory", "disagreement"):
        assert browser.next(kind) is not None, kind
    tracemalloc.start()
    try:
        png = evlib.EventBrowser(recording, labels, found, refractory_s=0.5).png()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(png) > 10_000
    assert peak < 80e6, f"{peak / 1e6:.0f} MB beside 29 MB of signal"  # an hour may need 500 MB
