"""Simulated recordings keep every promise they make: energy, noise, times, schedules and bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

import evlib
from evlib.detection.oracle import oracle_detector
from evlib.signals import synthetic
from evlib.signals.errors import EvlibError, OptionError, UnitError
from evlib.signals.synthetic import (
    MARGIN_S,
    add_events,
    coloured_noise,
    cramer_rao_bound_s,
    make_recording,
    make_templates,
    noise_spectrum,
    schedule_poisson,
    schedule_rounds,
)

RATES = [360.0, 500.0, 2000.0]
# White noise and nothing that the truth does not tell.
PLAIN = {"pink_share": 0.0, "sway_ratio": 0.0, "transients_per_s": 0.0}


def same_events(a, b):
    return np.array_equal(a.time_samples, b.time_samples) and np.array_equal(a.type, b.type)


def test_a_seed_is_a_recording():
    a, b, other = (make_recording(duration_s=3.0, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(a.recording.read(), b.recording.read())
    assert same_events(a.events, b.events) and np.array_equal(a.amplitude, b.amplitude)
    assert not np.array_equal(a.recording.read(), other.recording.read())
    assert not same_events(a.events, other.events)
    assert np.array_equal(a.templates.sampled(2000), other.templates.sampled(2000))


def test_the_parts_are_drawn_apart():
    """Other noise leaves events and amplitudes as they were."""
    quiet = make_recording(duration_s=10.0, seed=2)
    for other in ({"noise_std": 3.0}, {"pink_share": 0.9, "sway_ratio": 2.0}, {"transients_per_s": 5.0}, {"snr": 3.0}):
        loud = make_recording(duration_s=10.0, seed=2, **other)
        assert same_events(quiet.events, loud.events)
        scale = other.get("noise_std", 1.0) * other.get("snr", 12.0) / 12.0
        assert np.allclose(loud.amplitude, quiet.amplitude * scale)
    # Without events' amplitudes and bursts, what remains is the same noise.
    faint, fainter = (
        make_recording(duration_s=5.0, snr=snr, transients_per_s=0).recording.read() for snr in (1e-6, 1e-7)
    )
    assert np.allclose(faint, fainter, atol=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_templates_have_unit_energy_and_short_delays(rate):
    scale = 2000 / rate
    for seed in range(3):
        templates = make_templates(7, 3, rate, seed=seed, n_modes=2)
        shapes = templates.sampled(rate, 0.01 * scale, 0.1 * scale)
        assert shapes.shape[::2] == (7, 3)
        assert np.allclose((shapes**2).sum((1, 2)), 1)
        assert np.abs(templates.delay_s).max() <= 0.005 * scale
        time_s = np.linspace(-0.006, 0.046, 500) * scale
        outside = (time_s < -0.005 * scale) | (time_s > 0.045 * scale)
        values = templates(np.arange(7), np.tile(time_s, (7, 1)))
        assert (values[:, outside] == 0).all() and np.isfinite(values).all()
    assert templates.names[:2] == ("event_00", "event_01")


def test_a_template_is_the_sum_of_its_modes():
    """One number by hand, from the definition."""
    templates = make_templates(2, 2, seed=3)
    k, c, t = 1, 0, 0.0123
    u = t - templates.delay_s[k, c]
    wave = sum(
        templates.gain[k, c, m]
        * np.exp(-u / templates.decay_s[k, c, m])
        * np.sin(2 * np.pi * templates.frequency_hz[k, c, m] * u + templates.phase[k, c, m])
        for m in range(3)
    )
    expected = (1 - np.exp(-u / 0.001)) * np.cos(0.5 * np.pi * u / 0.04) ** 2 * wave
    assert templates([k], [[t]])[0, 0, c] == pytest.approx(expected, rel=1e-12)


def test_events_that_overlap_add_and_those_at_the_ends_are_cut():
    templates = make_templates(3, 2, seed=1)
    type, onset, amplitude = np.array([0, 1, 1, 2]), np.array([-3.25, 50.5, 51.5, 99.0]), np.array([1.0, 2.0, 3.0, 4.0])
    signal = np.zeros((100, 2))
    add_events(signal, templates, type, onset, amplitude, 2000.0)
    time_s = (np.arange(100) - onset[:, None]) / 2000.0
    assert np.allclose(signal, (templates(type, time_s) * amplitude[:, None, None]).sum(0))


@pytest.mark.parametrize("rate", RATES)
def test_the_snr_is_the_matched_filter_output(rate):
    scale = 2000 / rate
    templates = make_templates(2, sampling_rate_hz=rate, seed=2)
    options = {"schedule": "poisson", "refractory_s": 0.5 * scale, "mean_interval_s": scale, "sampling_rate_hz": rate}
    simulation = make_recording(
        templates, 200 * scale, snr=9.0, seed=1, amplitude_spread=0.0, noise_std=0.5, **options, **PLAIN
    )
    events, signal = simulation.events, simulation.recording.read()
    index = events.sample[:, None] + np.arange(-15, 95)
    keep = np.diff(events.time_samples, prepend=-np.inf, append=np.inf)
    alone = (keep[:-1] > 110) & (keep[1:] > 110) & (index[:, -1] < len(signal)) & (index[:, 0] >= 0)
    assert alone.sum() > 250
    shape = templates(events.type[alone], (index[alone] - events.time_samples[alone, None]) / rate)
    score = np.einsum("nlc,nlc->n", signal[index[alone]], shape) / 0.5
    # The energy of samples depends a little on where the onset lies between them.
    assert score.mean() == pytest.approx(9.0, abs=0.2)
    assert score.std() == pytest.approx(1.0, abs=0.15)


def test_amplitudes_spread_around_the_snr():
    simulation = make_recording(duration_s=300.0, snr=8.0, noise_std=2.0, amplitude_spread=0.3)
    relative = np.log(simulation.amplitude / 16.0)
    assert abs(relative.mean()) < 0.05 and relative.std() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("options", [{}, {"noise_std": 3.0, "pink_share": 0.8}, {"sway_ratio": 0.0}], ids=str)
def test_noise_has_its_spectrum(options):
    rate = 2000.0
    noise = coloured_noise(600_000, 2, rate, np.random.default_rng(0), **options)
    frequency, psd = welch(noise, rate, nperseg=16384, axis=0)
    ratio = psd[1:].mean(1) * rate / 2 / noise_spectrum(frequency[1:], rate, **options)
    edges = np.geomspace(0.5 if options.get("sway_ratio") == 0 else 8.0, 999.0, 12)
    band = np.digitize(frequency[1:], edges)
    for k in range(1, len(edges)):
        assert ratio[band == k].mean() == pytest.approx(1, abs=0.2 if (band == k).sum() < 30 else 0.06)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sway", [0.0, 10.0])
def test_the_mean_of_the_spectrum_is_the_variance(rate, sway):
    grid = (np.arange(2_000_000) + 0.5) / 2_000_000 * rate / 2
    assert noise_spectrum(grid, rate, noise_std=1.5, sway_ratio=sway).mean() == pytest.approx(
        2.25 * (1 + sway**2), rel=1e-3
    )


@pytest.mark.parametrize("refractory_s", [0.0, 0.5, 2.0, 3.7])
@pytest.mark.parametrize("n_types", [1, 2, 3, 8, 12, 13, 16])
def test_schedules_keep_the_refractory_period(n_types, refractory_s):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        plans = [
            schedule_rounds(n_types, 60.0, rng, refractory_s),
            schedule_rounds(n_types, 60.0, rng, refractory_s, missed=0.5, swaps=1.0),
            schedule_poisson(n_types, 60.0, rng, refractory_s, mean_interval_s=refractory_s + 0.5),
        ]
        for onset_s, type in plans:
            assert len(onset_s) == len(type) and set(type) == set(range(n_types))
            assert onset_s.min() >= MARGIN_S and onset_s.max() < 60.0 - MARGIN_S
            for kind in range(n_types):
                own = np.sort(onset_s[type == kind])
                assert np.diff(own).min(initial=np.inf) > refractory_s


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_rounds_go_like_bells(seed):
    onset_s, type = schedule_rounds(16, 120.0, np.random.default_rng(seed), missed=0.0)
    gaps = np.diff(onset_s)
    assert gaps.min() >= 0.15 - 1e-9 and gaps.max() <= 0.25 + 1e-9
    rounds = type[: len(type) // 16 * 16].reshape(-1, 16)
    assert (np.sort(rounds, axis=1) == np.arange(16)).all()
    places = rounds.argsort(axis=1)
    moves = np.abs(np.diff(places, axis=0))
    assert moves.max() == 1 and 0 < moves.mean() < 0.6
    assert not np.array_equal(rounds[0], rounds[-1])
    returns = np.concatenate([np.diff(onset_s[type == kind]) for kind in range(16)])
    assert 2.0 < returns.min() and returns.max() < 3.5


def test_rounds_miss_some():
    full_s, full = schedule_rounds(16, 600.0, np.random.default_rng(0), missed=0.0)
    some_s, some = schedule_rounds(16, 600.0, np.random.default_rng(0), missed=0.05)
    assert set(zip(some_s, some, strict=True)) < set(zip(full_s, full, strict=True))
    assert len(some) / len(full) == pytest.approx(0.95, abs=0.015)


def test_poisson_waits_are_exponential_after_the_dead_time():
    onset_s, type = schedule_poisson(5, 3000.0, np.random.default_rng(0), refractory_s=2.0, mean_interval_s=3.0)
    waits = np.concatenate([np.diff(np.sort(onset_s[type == kind])) for kind in range(5)]) - 2.0
    assert waits.min() > 0
    assert waits.mean() == pytest.approx(1.0, rel=0.05) and waits.std() == pytest.approx(1.0, rel=0.08)


@pytest.mark.parametrize("plan", ["rounds", "poisson"])
@pytest.mark.parametrize("rate", RATES)
def test_recordings_at_other_rates(plan, rate):
    simulation = make_recording(make_templates(3, 2, rate), 20.0, schedule=plan, sampling_rate_hz=rate)
    recording, events = simulation
    assert recording.shape == (20 * rate, 2) and recording.sampling_rate_hz == events.sampling_rate_hz == rate
    assert np.isfinite(recording.read()).all() and len(simulation.amplitude) == len(events) > 10
    assert (np.diff(events.time_samples) >= 0).all()
    assert np.abs(events.fraction).max() > 0.1  # onsets do not sit on samples


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"duration_s": -1.0}, OptionError, "duration_s must be a positive number"),
        ({"duration_s": 0.1}, OptionError, "duration_s must be longer than"),
        ({"schedule": "bells"}, OptionError, "schedule must be one of"),
        ({"snr": 0}, OptionError, "snr must be a positive number"),
        ({"pink_share": 1.5}, OptionError, "pink_share"),
        ({"sway_ratio": -1.0}, OptionError, "sway_ratio must be a number of at least 0"),
        ({"amplitude_spread": np.nan}, OptionError, "amplitude_spread"),
        ({"missed": 5}, OptionError, "missed must be a number between 0 and 1"),
        ({"schedule": "poisson", "refractory_s": 3.0}, OptionError, "mean_interval_s must be longer"),
        ({"schedule": "poisson", "mean_interval_s": np.nan}, OptionError, "mean_interval_s must be longer"),
        ({"seed": -1}, OptionError, "seed must be a whole number"),
        ({"sampling_rate_hz": 0}, UnitError, "sampling_rate_hz"),
        ({"templates": 60.0}, OptionError, "templates come from make_templates"),
        ({"variation": -1.0}, OptionError, "variation must be"),
    ],
)
def test_bad_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        make_recording(**{"duration_s": 3.0} | options)


@pytest.mark.parametrize(
    "options", [{"n_types": 0}, {"n_channels": 0}, {"n_modes": 0}, {"seed": -3}, {"sampling_rate_hz": np.nan}]
)
def test_bad_templates_are_refused(options):
    with pytest.raises(EvlibError, match=next(iter(options))):
        make_templates(**options)


# The Cramer-Rao bound


@pytest.mark.parametrize("rate", RATES)
def test_bound_in_white_noise(rate):
    """1 / sqrt(sum (a s')^2 / sigma^2), the derivative by differences, averaged over onsets between samples."""
    templates = make_templates(6, 3, rate, seed=4)
    simulation = make_recording(templates, 30.0, seed=1, sampling_rate_hz=rate, noise_std=0.7, **PLAIN)
    bound = cramer_rao_bound_s(simulation)
    step = 1e-3 / rate
    time_s = np.arange(-40, 160) / rate
    information = np.zeros(6)
    for phase in np.arange(8) / 8 / rate:
        at = np.tile(time_s + phase, (6, 1))
        slope = (templates(np.arange(6), at + step) - templates(np.arange(6), at - step)) / (2 * step)
        information += (slope**2).sum((1, 2)) / 8
    expected = 0.7 / (simulation.amplitude * np.sqrt(information[simulation.events.type]))
    assert np.allclose(bound, expected, rtol=0.03)


# ---- events that vary -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    return make_templates(4, seed=2)


def quiet(templates, **options):
    """A recording in which nothing but events is heard."""
    return evlib.make_recording(templates, 40.0, snr=1e6, transients_per_s=0, sway_ratio=0, **options)


def test_events_stay_where_they_are_when_their_shapes_vary(few):
    plain, varied = (quiet(few, seed=3, variation=v) for v in (0.0, 1.0))
    np.testing.assert_array_equal(plain.events.time_samples, varied.events.time_samples)
    np.testing.assert_array_equal(plain.amplitude, varied.amplitude)
    signal, rate = varied.recording.read(), varied.recording.sampling_rate_hz
    loud = 1e-3 * np.abs(signal).max()
    first = varied.events.time_samples + varied.shapes.delay_s.min(1) * rate
    ends = np.r_[0, first[:-1] + 0.15 * rate].astype(int)  # the event before, its bounce and its ring-down are over
    for end, start in zip(ends, np.floor(first).astype(int), strict=True):
        assert np.abs(signal[end:start]).max(initial=0) < loud
    assert (np.abs(signal).max(1) > loud).any()


def test_a_varied_event_keeps_the_energy_of_its_kind(few):
    varied = evlib.make_recording(few, 40.0, variation=1.0, seed=1)
    own = (varied.shapes.sampled(2000.0, 0.02, 0.2) ** 2).sum((1, 2))
    np.testing.assert_allclose(own, 1.0, atol=0.02)  # that of every template


def test_kinds_differ_from_their_templates_alike_in_all_recordings(few, monkeypatch):
    monkeypatch.setattr(synthetic, "EVENT_SPREADS", dict.fromkeys(synthetic.EVENT_SPREADS, 0.0))
    one, two = (evlib.make_recording(few, 20.0, seed=seed, variation=1.0) for seed in (3, 4))
    for kind in range(4):
        own, other = (made.shapes.frequency_hz[made.events.type == kind] for made in (one, two))
        np.testing.assert_array_equal(np.ptp(np.concatenate([own, other]), axis=0), 0)
        assert not np.isclose(own[0], few.frequency_hz[kind]).any()


def test_the_more_events_vary_the_less_a_mean_template_is_worth():
    templates = make_templates(seed=1)
    f1 = []
    for variation in (0.0, 1.0):
        train, test = (evlib.make_recording(templates, 40.0, seed=s, variation=variation) for s in (11, 21))
        f1.append(evlib.compare(test.events, evlib.detect(oracle_detector(train), test.recording)).f1)
    assert f1[0] > 0.98 and f1[0] - f1[1] > 0.15  # 0.27 on longer recordings


@pytest.mark.parametrize("options", [{"duration_s": 1e12}, {"sampling_rate_hz": 1e9}])
def test_a_simulation_that_fits_into_no_memory_is_refused(options):
    with pytest.raises(OptionError, match="samples, more than"):
        make_recording(**options)
