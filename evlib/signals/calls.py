"""Simulated calls: events that last, each as long as it happens to, with their truth.

A kind of call is a tone with a pitch of its own that rises or falls and trembles. Pitch, sweep, loudness and above all
duration differ from call to call, so no fixed shape explains a kind; they begin and end within some milliseconds.
"""

import numpy as np

from .errors import require_int, require_number, require_positive, require_rate
from .events import Events
from .recording import Recording
from .streams import stream
from .synthetic import require_memory

# Of the kinds: pitch in shares of the sampling rate, from the first to the last; seconds that a call lasts in the
# middle; how far a call sweeps, in logarithms of its pitch; and how often it trembles, in Hz.
PITCH, LASTS_S, SWEEP, TREMBLE_HZ = (0.075, 0.35), (0.15, 0.6), (-0.3, 0.3), (8.0, 30.0)
# Standard deviations of logarithms, from call to call.
PITCH_SPREAD, SWEEP_SPREAD, LOUDNESS_SPREAD = 0.03, 0.2, 0.3
# Share by which loudness trembles, seconds in which it rises and falls, least seconds between calls, and seconds
# without calls at either end.
TREMBLE, EDGE_S, APART_S, MARGIN_S = 0.5, 0.01, 0.1, 0.5


def make_calls(
    n_types: int = 4,
    duration_s: float = 120.0,
    snr_db: float = 0.0,
    sampling_rate_hz: float = 4000.0,
    spread: float = 0.4,
    mean_interval_s: float = 1.0,
    seed: int = 0,
) -> tuple[Recording, Events]:
    """One channel with calls in white noise, and their onsets and durations.

    Parameters
    ----------
    n_types : kinds of calls; kind k is the same for every seed
    snr_db : of a call of middle loudness, power against that of the noise in the whole band
    spread : standard deviation of the natural logarithm of durations within a kind
    mean_interval_s : between the end of a call and the next one, on average

    Raises
    ------
    OptionError, UnitError : values out of range

    Examples
    --------
    >>> recording, events = make_calls(duration_s=30.0)
    >>> recording.shape, events.names, bool((events.duration_s > 0.02).all())
    ((120000, 1), ('call_00', 'call_01', 'call_02', 'call_03'), True)
    """
    rate = require_rate(sampling_rate_hz)
    require_int(1, n_types=n_types)
    require_positive(mean_interval_s=mean_interval_s)
    require_number(4 * MARGIN_S, 1e5, duration_s=duration_s)
    require_number(-100, 100, snr_db=snr_db)
    require_number(0, 2, spread=spread)
    require_memory(duration_s, rate)
    kinds, rng = stream("kinds of calls", n_types), stream("calls", seed)
    n = int(duration_s * rate)
    signal = rng.standard_normal(n)
    # More calls than there is time for; those that end too late are left out.
    most = int(duration_s / min(APART_S, mean_interval_s)) + 1
    type = rng.integers(n_types, size=most)
    lasts_s = np.geomspace(*LASTS_S, n_types)[type] * np.exp(spread * rng.standard_normal(most))
    waits_s = APART_S + rng.exponential(max(mean_interval_s - APART_S, 0.0), most)
    onset = np.round((MARGIN_S + np.cumsum(waits_s + lasts_s) - lasts_s) * rate).astype(np.int64)
    length = np.maximum(np.round(lasts_s * rate), 1).astype(np.int64)
    kept = onset + length <= n - MARGIN_S * rate
    onset, length, type = onset[kept], length[kept], type[kept]
    pitch = np.geomspace(*PITCH, n_types)[type] * np.exp(PITCH_SPREAD * rng.standard_normal(len(type)))
    sweep = kinds.uniform(*SWEEP, n_types)[type] * np.exp(SWEEP_SPREAD * rng.standard_normal(len(type)))
    tremble = kinds.uniform(*TREMBLE_HZ, n_types)[type] / rate
    amplitude = np.sqrt(2) * 10 ** (snr_db / 20) * np.exp(LOUDNESS_SPREAD * rng.standard_normal(len(type)))
    # Of each sample of a call: its call, and its place in it.
    call = np.repeat(np.arange(len(type)), length)
    place = np.arange(len(call)) - np.repeat(np.cumsum(length) - length, length)
    phase = np.cumsum(pitch[call] * np.exp(sweep[call] * (place / length[call] - 0.5)))
    edge = np.minimum(np.minimum(place, length[call] - 1 - place) / (EDGE_S * rate), 1.0)
    loud = edge * (1 + TREMBLE * np.sin(2 * np.pi * tremble[call] * place))
    signal[onset[call] + place] += amplitude[call] * loud * np.sin(2 * np.pi * phase)
    names = tuple(f"call_{k:02d}" for k in range(n_types))
    events = Events(onset, np.zeros(len(type)), type, names, rate, duration_s=length / rate)
    return Recording(signal[:, None].astype(np.float32), rate, name=f"calls_snr{snr_db:g}dB_seed{seed}"), events
