"""Synthetic recordings with their truth: signal, events, amplitudes, templates and noise spectrum.

A kind of event is a template: on each channel a sum of damped modes that starts after a delay of up to
5 ms and has died away after about 40 ms. Templates have unit energy over all channels, so an event of
amplitude ``snr * noise_std`` has the matched-filter output ``snr`` in white noise of ``noise_std``.
Noise is white plus 1/f (together ``noise_std`` per channel), a slow sway ten times as large lies under it, and
transients that are no events are added. With ``variation`` no two events of a kind are quite alike: what stays is the
relation of the strengths of their modes. Nothing touches global random state: the same seed gives the same
recording, the same templates with another seed give another recording of the same events.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np

from .clock import duration_to_samples
from .errors import OptionError, require_choice, require_int, require_number, require_positive, require_rate
from .events import Events
from .recording import Recording, add_windows
from .streams import stream

# An event reaches a channel up to this many seconds before or after its onset (at 2000 Hz).
MAX_DELAY_S = 0.005
# An event starts this long after the first sample and before the last, so that all of it is inside.
MARGIN_S = 0.06
# Longer simulations do not fit into memory.
MOST_SAMPLES = 2e8
# Standard deviations at variation 1, from event to event: of the logarithm of all frequencies together, of decay times,
# of channel gains and of lengths; of channel delays in seconds. Chosen so that true mean templates lose some 30 points
# of F1 at a signal-to-noise ratio of 12.
EVENT_SPREADS = {"frequency": 0.14, "decay": 0.5, "gain": 0.6, "length": 0.3, "delay_s": 0.0007}
# The same from the template to all events of a kind.
KIND_SPREADS = {"frequency": 0.06, "decay": 0.2, "gain": 0.3}
# Share of hits that bounce; the time until they hit again and its strength are drawn from these ranges.
BOUNCES, BOUNCE_AFTER_S, BOUNCE_GAIN = 0.3, (0.003, 0.012), (0.3, 0.7)


@dataclass(frozen=True, eq=False)
class SyntheticTemplates:
    """Continuous-time templates, E types x C channels x M damped modes.

    ``frequency_hz`` (E, C, M), ``decay_s`` (E, C, M), ``gain`` (E, C, M), ``phase`` (E, C, M), ``delay_s`` (E, C);
    ``duration_s`` one number, or (E,).
    Calling it evaluates the shapes at any time: an onset need not fall on a sample.
    """

    frequency_hz: np.ndarray
    decay_s: np.ndarray
    gain: np.ndarray
    phase: np.ndarray
    delay_s: np.ndarray
    duration_s: float | np.ndarray = 0.04
    rise_s: float = 0.001

    @property
    def n_types(self) -> int:
        """E, the number of kinds of events."""
        return self.delay_s.shape[0]

    @property
    def n_channels(self) -> int:
        """C, the number of channels."""
        return self.delay_s.shape[1]

    @property
    def names(self) -> tuple:
        """Event names, ``event_00`` and on."""
        return tuple(f"event_{k:02d}" for k in range(self.n_types))

    def __call__(self, type, time_s):
        """Evaluate templates: ``type`` (N,) integers, ``time_s`` (N, L) seconds after the onset -> (N, L, C)."""
        type = np.asarray(type)
        time_s = np.asarray(time_s, dtype=np.float64)[:, :, None] - self.delay_s[type][:, None, :]
        duration_s = self.duration_s if np.ndim(self.duration_s) == 0 else self.duration_s[type][:, None, None]
        inside = (time_s > 0) & (time_s < duration_s)
        t = np.where(inside, time_s, 0.0)
        # A soft attack and a cosine end keep the shape inside the band of the sampling rate.
        envelope = (1 - np.exp(-t / self.rise_s)) * np.cos(0.5 * np.pi * t / duration_s) ** 2
        wave = np.zeros_like(t)
        for m in range(self.gain.shape[2]):
            frequency, decay, gain, phase = (
                getattr(self, name)[type][:, None, :, m] for name in ("frequency_hz", "decay_s", "gain", "phase")
            )
            wave += gain * np.exp(-t / decay) * np.sin(2 * np.pi * frequency * t + phase)
        return np.where(inside, envelope * wave, 0.0)

    def sampled(self, sampling_rate_hz, before_s=0.0, after_s=0.05):
        """Templates at whole samples, (E, L, C), from ``before_s`` ahead of the onset to ``after_s`` behind it."""
        start, stop = -duration_to_samples(before_s, sampling_rate_hz), duration_to_samples(after_s, sampling_rate_hz)
        time_s = np.arange(start, stop) / sampling_rate_hz
        return self(np.arange(self.n_types), np.broadcast_to(time_s, (self.n_types, len(time_s))))


def make_templates(n_types=16, n_channels=6, sampling_rate_hz=2000.0, seed=0, n_modes=3) -> SyntheticTemplates:
    """Draw the templates of ``n_types`` kinds of events, each of unit energy at ``sampling_rate_hz``.

    Modes lie between 3 % and 25 % of the sampling rate (60-500 Hz at 2000 Hz) and are shared by the channels of a
    type, which differ in gain, phase and delay (up to +-5 ms).

    >>> templates = make_templates(seed=1)
    >>> bool(np.allclose((templates.sampled(2000.0, 0.01, 0.06) ** 2).sum((1, 2)), 1))
    True
    """
    rate = require_rate(sampling_rate_hz)
    require_int(1, n_types=n_types, n_channels=n_channels, n_modes=n_modes)
    require_int(0, seed=seed)
    rng = stream("templates", seed)
    scale = 2000.0 / rate
    shape = (n_types, n_channels, n_modes)
    frequency = np.exp(rng.uniform(np.log(0.03 * rate), np.log(0.25 * rate), (n_types, 1, n_modes)))
    templates = SyntheticTemplates(
        frequency_hz=np.broadcast_to(frequency, shape),
        decay_s=np.broadcast_to(rng.uniform(0.006, 0.015, (n_types, 1, n_modes)) * scale, shape),
        gain=rng.standard_normal(shape),
        phase=rng.uniform(0, 2 * np.pi, shape),
        delay_s=rng.uniform(-MAX_DELAY_S, MAX_DELAY_S, (n_types, n_channels)) * scale,
        duration_s=0.04 * scale,
        rise_s=0.001 * scale,
    )
    energy = (templates.sampled(rate, 0.01 * scale, 0.06 * scale) ** 2).sum((1, 2))
    object.__setattr__(templates, "gain", templates.gain / np.sqrt(energy)[:, None, None])
    return templates


def noise_spectrum(frequency_hz, sampling_rate_hz, noise_std=1.0, pink_share=0.3, sway_ratio=10.0, sway_hz=0.8):
    """Two-sided power spectral density of the noise at ``frequency_hz`` (variance per bin of a white noise of 1).

    A mean of 1 over all frequencies is a variance of 1. White and 1/f noise (``pink_share`` of the variance, flat
    below 1 Hz) sum to ``noise_std ** 2``; the sway has ``sway_ratio * noise_std`` and lies below about ``2 * sway_hz``.
    """
    f = np.abs(np.asarray(frequency_hz, dtype=np.float64))
    grid = np.linspace(0, sampling_rate_hz / 2, 200_001)
    pink, pink_mean = 1 / np.maximum(f, 1.0), np.mean(1 / np.maximum(grid, 1.0))
    # The sway is far narrower than the grid of any other part: its mean over all frequencies in closed form.
    sway = np.exp(-0.5 * (f / sway_hz) ** 2) / (np.sqrt(np.pi / 2) * sway_hz / (sampling_rate_hz / 2))
    return noise_std**2 * ((1 - pink_share) + pink_share * pink / pink_mean + sway_ratio**2 * sway)


def schedule_rounds(n_types, duration_s, rng, refractory_s=2.0, missed=0.05, swaps=0.3):
    """Kinds follow one another 0.15-0.25 s apart in an order that changes slowly, as bells do -> (onset_s, type).

    A round holds every kind once; from round to round neighbours change places with probability ``swaps``, the pace
    drifts, and an event is missing with probability ``missed``. Each kind returns after more than ``refractory_s``.
    """
    require_number(0, 1, missed=missed, swaps=swaps)
    order = rng.permutation(n_types)
    pace, clock = rng.uniform(0.155, 0.175), MARGIN_S + rng.uniform(0, 0.2)
    # With few kinds the next round would begin too soon: the round then ends with a rest.
    last = np.full(n_types, -np.inf)
    onsets, types = [], []
    while clock < duration_s:
        pace = np.clip(pace + rng.normal(0, 0.002), 0.152, 0.18)
        gaps = np.clip(pace * (1 + 0.06 * rng.standard_normal(n_types)), 0.15, 0.25)
        times = clock + np.r_[0, np.cumsum(gaps[:-1])]
        times = times + max(0.0, np.max(last[order] + refractory_s * 1.02 - times))
        keep = (rng.random(n_types) >= missed) & (times < duration_s - MARGIN_S)
        onsets.append(times[keep])
        types.append(order[keep])
        last[order] = times
        clock = times[-1] + gaps[-1]
        place = int(rng.integers(2))
        while place + 1 < n_types:
            if rng.random() < swaps:
                order[[place, place + 1]] = order[[place + 1, place]]
            place += 2
    return np.concatenate(onsets), np.concatenate(types)


def schedule_poisson(n_types, duration_s, rng, refractory_s=2.0, mean_interval_s=3.0):
    """Every kind on its own: a dead time of ``refractory_s``, then an exponential wait -> (onset_s, type).

    Different kinds may overlap in any way.
    """
    if not mean_interval_s > refractory_s:
        raise OptionError(f"mean_interval_s must be longer than refractory_s, got {mean_interval_s} and {refractory_s}")
    n = int(duration_s / mean_interval_s * 2 + 20)
    waits = refractory_s + rng.exponential(mean_interval_s - refractory_s, (n_types, n))
    waits[:, 0] = rng.uniform(0, mean_interval_s, n_types)
    onset_s = MARGIN_S + np.cumsum(waits, axis=1)
    keep = onset_s < duration_s - MARGIN_S
    return onset_s[keep], np.broadcast_to(np.arange(n_types)[:, None], onset_s.shape)[keep]


SCHEDULES = {"rounds": schedule_rounds, "poisson": schedule_poisson}


@dataclass(frozen=True, eq=False)
class Simulation:
    """A synthetic recording with its truth; unpacks into ``recording, events``.

    ``amplitude`` (n,) follows the rows of ``events``; ``templates`` and ``noise`` (the arguments of
    :func:`noise_spectrum`) are what the oracle and the Cramer-Rao bound know. Where events vary, ``shapes`` are those
    of the single events, one row each, without bounces.
    """

    recording: Recording
    events: Events
    amplitude: np.ndarray
    templates: SyntheticTemplates
    noise: dict
    shapes: SyntheticTemplates | None = None

    def __iter__(self):
        return iter((self.recording, self.events))

    def noise_psd(self, frequency_hz):
        """The true noise spectrum at ``frequency_hz``, see :func:`noise_spectrum`."""
        return noise_spectrum(frequency_hz, self.recording.sampling_rate_hz, **self.noise)


def require_memory(duration_s: float, rate: float) -> None:
    """Refuse to simulate more than fits into memory."""
    if duration_s * rate > MOST_SAMPLES:
        raise OptionError(
            f"{duration_s:g} s at {rate:g} Hz are {duration_s * rate:.3g} samples, more than {MOST_SAMPLES:.3g} "
            "(make several recordings with other seeds)"
        )


def make_recording(
    templates: SyntheticTemplates | None = None,
    duration_s: float = 60.0,
    snr: float = 12.0,
    schedule: str = "rounds",
    seed: int = 0,
    sampling_rate_hz: float = 2000.0,
    refractory_s: float = 2.0,
    amplitude_spread: float = 0.25,
    noise_std: float = 1.0,
    pink_share: float = 0.3,
    sway_ratio: float = 10.0,
    transients_per_s: float = 0.2,
    variation: float = 0.0,
    noise_seed: int | None = None,
    **schedule_options,
) -> Simulation:
    """Simulate a recording; ``recording, events = make_recording(...)`` or keep the whole :class:`Simulation`.

    Parameters
    ----------
    templates : from :func:`make_templates`; default 16 types on 6 channels
    snr : mean matched-filter output sqrt(template energy) / noise_std
    schedule : "rounds" or "poisson"
    amplitude_spread : standard deviation of the log amplitude
    transients_per_s : unlabelled bursts of random shape, as strong as events
    variation : how much the events of a kind differ in pitch, damping, channel gains, delays and length, how many of
        them bounce, and how much the kinds differ from ``templates``: 0 not at all, 1 so much that mean templates find
        them poorly. Each event keeps the energy of its kind: a filter of its own true shape has the output ``snr``
    noise_seed : of noise and transients; default: ``seed``. Another one, with other templates and another rate, makes
        another sensor that sees the same events
    schedule_options : of ``schedule_rounds`` or ``schedule_poisson``

    >>> recording, events = make_recording(duration_s=10.0, seed=3)
    >>> recording.shape, len(events.names)
    ((20000, 6), 16)
    """
    rate = require_rate(sampling_rate_hz)
    require_choice(SCHEDULES, schedule=schedule)
    require_positive(duration_s=duration_s, snr=snr, noise_std=noise_std)
    require_number(refractory_s=refractory_s, amplitude_spread=amplitude_spread, sway_ratio=sway_ratio)
    require_number(transients_per_s=transients_per_s, variation=variation)
    require_number(0, 1, pink_share=pink_share)
    require_int(0, seed=seed)
    if duration_s <= 4 * MARGIN_S:
        raise OptionError(f"duration_s must be longer than {4 * MARGIN_S} s, got {duration_s}")
    require_memory(duration_s, rate)
    templates = make_templates(sampling_rate_hz=rate) if templates is None else templates
    if not isinstance(templates, SyntheticTemplates):
        raise OptionError(f"templates come from make_templates, got {templates!r} (for a length write duration_s=...)")
    # One stream per part: changing the noise leaves the schedule as it was.
    require_int(0, noise_seed=seed if noise_seed is None else noise_seed)
    timing, loudness = (stream(part, seed) for part in ("event times", "event amplitudes"))
    noise, bursts = (stream(part, seed if noise_seed is None else noise_seed) for part in ("noise", "transients"))
    plan = SCHEDULES[schedule]
    onset_s, type = plan(templates.n_types, duration_s, timing, refractory_s=refractory_s, **schedule_options)
    order = np.lexsort((type, onset_s))
    events = Events.from_seconds(onset_s[order], type[order], rate, templates.names)
    amplitude = snr * noise_std * np.exp(amplitude_spread * loudness.standard_normal(len(events)))
    n_samples = int(round(duration_s * rate))
    noise_options = {"noise_std": noise_std, "pink_share": pink_share, "sway_ratio": sway_ratio}
    signal = coloured_noise(n_samples, templates.n_channels, rate, noise, **noise_options)
    shapes = None
    if variation == 0:
        add_events(signal, templates, events.type, events.time_samples, amplitude, rate)
    else:
        change = stream("variation of events", seed)
        # How the kinds differ from their templates is the same in all recordings of these templates.
        same = stream("variation of kinds", 0, zlib.crc32(np.ascontiguousarray(templates.frequency_hz).tobytes()))
        kinds = _varied(templates, np.arange(templates.n_types), variation, KIND_SPREADS, rate, same)
        shapes = _varied(kinds, events.type, variation, EVENT_SPREADS, rate, change)
        hit = np.arange(len(events))
        again = hit[change.random(len(hit)) < BOUNCES * min(variation, 1.0)]
        after_s, gain = change.uniform(*BOUNCE_AFTER_S, len(again)), change.uniform(*BOUNCE_GAIN, len(again))
        time = np.r_[events.time_samples, events.time_samples[again] + after_s * rate]
        add_events(signal, shapes, np.r_[hit, again], time, np.r_[amplitude, gain * amplitude[again]], rate)
    _add_transients(signal, rate, bursts, transients_per_s, snr * noise_std)
    recording = Recording(signal.astype(np.float32), rate, name=f"synthetic_{schedule}_snr{snr:g}_seed{seed}")
    return Simulation(recording, events, amplitude, templates, noise_options, shapes)


def _varied(templates, type, variation, spreads, rate, rng):
    """Shapes of single events, one row for each of ``type`` (N,), that differ by ``spreads`` and keep their energy."""
    n, channels = len(type), templates.n_channels
    scale = np.mean(templates.duration_s) / 0.04

    def factor(name, *shape):
        return np.exp(variation * spreads[name] * rng.standard_normal(shape))

    changes = {
        "frequency_hz": np.minimum(templates.frequency_hz[type] * factor("frequency", n, 1, 1), 0.45 * rate),
        "decay_s": templates.decay_s[type] * factor("decay", n, 1, 1),
        "gain": templates.gain[type] * factor("gain", n, channels, 1),
        "phase": templates.phase[type],
        "delay_s": templates.delay_s[type],
    }
    if "delay_s" in spreads:
        changes["delay_s"] += variation * scale * spreads["delay_s"] * rng.standard_normal((n, channels))
        length_s = np.broadcast_to(templates.duration_s, templates.n_types)[type] * factor("length", n)
        changes["duration_s"] = np.minimum(length_s, 0.12 * scale)  # at most three times the length of a template
    shapes = replace(templates, **changes)
    longest_s = np.max(shapes.duration_s)
    first, stop = (duration_to_samples(reach * longest_s, rate) for reach in (0.25, 1.25))
    time_s = np.arange(-first, stop) / rate

    def energy(waves, rows):
        parts = np.array_split(rows, max(1, len(rows) // 1024))  # bounded memory
        return np.concatenate([(waves(part, np.tile(time_s, (len(part), 1))) ** 2).sum((1, 2)) for part in parts])

    wanted = energy(templates, np.arange(templates.n_types))[type]
    ratio = wanted / np.maximum(energy(shapes, np.arange(n)), 1e-12)
    return replace(shapes, gain=shapes.gain * np.sqrt(ratio)[:, None, None])


def coloured_noise(n_samples, n_channels, sampling_rate_hz, rng, **spectrum):
    """Gaussian noise with the spectrum of :func:`noise_spectrum`, (n_samples, n_channels)."""
    import scipy.fft

    n = scipy.fft.next_fast_len(n_samples, real=True)
    shape = np.sqrt(noise_spectrum(np.fft.rfftfreq(n, 1 / sampling_rate_hz), sampling_rate_hz, **spectrum))
    signal = np.empty((n_samples, n_channels))
    for c in range(n_channels):
        white = rng.standard_normal(n)
        signal[:, c] = scipy.fft.irfft(scipy.fft.rfft(white) * shape, n)[:n_samples]
    return signal


def add_events(signal, templates, type, time_samples, amplitude, sampling_rate_hz):
    """Add events to ``signal`` (n, C) in place, at times that need not be whole samples."""
    earliest, latest = min(templates.delay_s.min(), 0.0), max(templates.delay_s.max(), 0.0)
    before = duration_to_samples(-earliest, sampling_rate_hz) + 1
    after = duration_to_samples(np.max(templates.duration_s) + latest, sampling_rate_hz) + 1
    for start in range(0, len(type), 4096):  # bounded memory: 4096 events at a time
        rows = slice(start, start + 4096)
        sample = np.floor(time_samples[rows]).astype(int)
        index = sample[:, None] + np.arange(-before, after)
        wave = templates(type[rows], (index - time_samples[rows, None]) / sampling_rate_hz)
        add_windows(signal, sample - before, wave * amplitude[rows, None, None])


def _add_transients(signal, rate, rng, per_second, size):
    """Bursts that are no events: shaped noise of 5-60 ms on some channels, half to twice as strong as an event."""
    n_samples, n_channels = signal.shape
    for _ in range(rng.poisson(per_second * n_samples / rate)):
        length = int(rng.uniform(0.005, 0.06) * 2000 / rate * rate)
        start = int(rng.integers(0, max(1, n_samples - length)))
        walk = rng.random() < 0.3
        burst = rng.standard_normal((length, n_channels))
        burst = (
            (np.cumsum(burst, axis=0) if walk else burst) * np.hanning(length)[:, None] * (rng.random(n_channels) < 0.6)
        )
        norm = np.sqrt((burst**2).sum())
        if norm > 0:
            signal[start : start + length] += (burst * (size * rng.uniform(0.5, 2.0) / norm))[: n_samples - start]


def cramer_rao_bound_s(simulation):
    """Least standard deviation of any unbiased onset estimate, per event, in seconds (n,).

    sigma_t >= 1 / sqrt(sum over frequencies of |2 pi f a S(f)|^2 / N(f)), with the true template S, amplitude a and
    noise spectrum N. In white noise this is 1 / sqrt(sum (a s'(t))^2 / sigma^2). Where events vary, S is the mean
    template of the kind: a bound from each event's own shape would differ.
    """
    rate, n = simulation.recording.sampling_rate_hz, 8192
    duration_s = simulation.templates.duration_s  # longer at a lower rate
    shapes = simulation.templates.sampled(rate, 0.5 * duration_s, 2 * duration_s)
    frequency = np.fft.rfftfreq(n, 1 / rate)
    spectrum = np.abs(np.fft.rfft(shapes, n, axis=1)) ** 2  # (E, F, C)
    weight = np.full(len(frequency), 2.0)  # the negative frequencies count too
    weight[[0, -1]] = 1.0
    per_bin = weight * (2 * np.pi * frequency) ** 2 / simulation.noise_psd(frequency) / n
    information = np.einsum("efc,f->e", spectrum, per_bin)
    return 1 / (simulation.amplitude * np.sqrt(information[simulation.events.type]))
