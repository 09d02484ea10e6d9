"""Random streams: each purpose draws from a generator of its own, so that no two purposes share their draws.

A generator follows from the purpose, the seed and whatever else the draws depend on. A number in this table belongs to
one purpose for good: with another number a purpose would draw something else from the same seed.
"""

import numpy as np

STREAMS = {
    "templates": 0,
    "event times": 1,
    "event amplitudes": 2,
    "noise": 3,
    "transients": 4,
    "variation of events": 5,
    "variation of kinds": 6,
    "context crops": 7,
    "labels that are kept": 10,
    "hybrid recordings for development": 11,
    "hybrid recordings for training": 12,
    "discovery": 13,
    "pretraining windows": 14,
    "windows for development": 16,
    "frame crops": 17,
    "views of patches": 19,
    "simulated motion": 20,
    "labelled windows": 21,
    "recordings that give labels": 22,
    "isolated events": 23,
    "people held out": 24,
    "sessions from windows": 25,
    "calls": 26,
    "kinds of calls": 27,
    # Each of these numbers belongs to two purposes: a new one would change the results of one of them.
    "windows for training": 15,
    "labels of probes": 15,
    "recordings for development": 18,
    "batches of patches": 18,
}


def stream(purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of a purpose in `STREAMS`, for a seed and further whole numbers.

    >>> first, again, other = (stream(purpose, 0).random() for purpose in ("noise", "noise", "transients"))
    >>> first == again, first == other
    (True, False)
    """
    return np.random.default_rng([STREAMS[purpose], *numbers])
