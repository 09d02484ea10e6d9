"""White noise with events of known kinds in it: what a recording is once its noise is whitened."""

import numpy as np

from evlib.signals.events import Events
from evlib.signals.synthetic import add_events, make_templates
from evlib.templates.bank import TemplateBank

RATE = 2000.0
# Of the learned templates: samples ahead of the onset, and in all.
BEFORE, LENGTH = 20, 130


def make_bank(templates, amplitude=15.0, **options):
    """The bank that knows the templates and their mean amplitude."""
    sampled = templates.sampled(RATE, BEFORE / RATE, (LENGTH - BEFORE) / RATE)
    return TemplateBank(amplitude * sampled, BEFORE, templates.names, **options)


def plant(templates, time_samples, type, amplitude, n_samples, rng=None):
    """Events at any times, in white noise of standard deviation 1 (none without ``rng``), (n_samples, C) float32."""
    shape = (n_samples, templates.n_channels)
    signal = np.zeros(shape) if rng is None else rng.standard_normal(shape)
    amplitude = np.broadcast_to(np.asarray(amplitude, dtype=float), len(type))
    add_events(signal, templates, np.asarray(type), np.asarray(time_samples, dtype=float), amplitude, RATE)
    return signal.astype(np.float32)


def schedule(rng, n_events, n_types, gap=300, start=400):
    """Times (floats) at least ``gap`` samples apart, types each equally often, and the length of a signal for them."""
    time = start + np.cumsum(gap + rng.uniform(0, 60, n_events))
    type = rng.permutation(np.arange(n_events) % n_types)
    return time, type, int(time[-1]) + 400


def table(time, type, names, **options):
    """Events from times in samples."""
    sample = np.floor(np.asarray(time, dtype=float) + 0.5).astype(int)
    return Events(sample, time - sample, np.asarray(type), names, RATE, **options)


def near(found, time, type, reach):
    """(N, M) which of the found events (N) lie at most ``reach`` samples from events of their own type, (M,) each."""
    return (np.abs(found.time[:, None] - time) <= reach) & (found.type[:, None] == type)


__all__ = ["BEFORE", "LENGTH", "RATE", "make_bank", "make_templates", "near", "plant", "schedule", "table"]
