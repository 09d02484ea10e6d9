"""The same fit, detect and compare on real recordings: hearts, feet, a hammer; and the strikes of real bells.

``EVLIB_DATA_HOME`` names their folder; without it these tests are skipped. The first half of a recording is for
training, the second for testing. Each set holds ``<set>/<set>.npz`` (arrays ``x__<recording>`` and, to multiply
them with, ``scale__<recording>``), ``<set>/dataset.json`` with rates and channels, and tables of events.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import evlib
from evlib.scoring.refractory import decode_refractory, find_violations


def read_set(home, name, recording, channels=slice(None), types=None):
    """A recording of a set and its events, of some channels and some types."""
    about = json.loads((home / name / "dataset.json").read_text())["recordings"][recording]
    with np.load(home / name / f"{name}.npz", allow_pickle=False) as arrays:
        signal = arrays[f"x__{recording}"] * arrays[f"scale__{recording}"]
    table = pd.read_csv(home / name / "events.tsv", sep="\t", dtype={"recording": str})
    table = table[(table["recording"] == recording) & table["trial_type"].isin(types or table["trial_type"])]
    rate = round(about["fs"], 6)
    signal = evlib.Recording(signal[:, channels], rate, about["channels"][channels], about["units"][channels], name)
    return signal, evlib.Events.from_seconds(table["onset"], table["trial_type"], rate)


def halves(recording, events):
    """(recording, events) of the first and of the second half."""
    middle, end = recording.n_samples // 2, recording.n_samples
    middle_s = middle / recording.sampling_rate_hz
    first = recording.between(0, middle_s), events.within(0, middle)
    return first, (recording.between(middle_s), events.within(middle, end).shift(-middle))


def report(train, test, tolerance_s, refractory_s, **options):
    """Learn from one (recording, events), judge on the other."""
    detector = evlib.fit([train], refractory_s=refractory_s, progress=False, **options)
    recording, reference = test
    return evlib.compare(reference, evlib.detect(detector, recording), tolerance_s, refractory_s)


@pytest.fixture(scope="module")
def heart(data_home):
    """30 minutes of a heart in two leads: normal beats, 33 that come early, and one other."""
    return halves(*read_set(data_home, "ecg_mitbih100", "100"))


@pytest.fixture(scope="module")
def foot(data_home):
    """A walk with a sensor on the right foot: when it lands and when it leaves the floor."""
    types = ["right_initial_contact", "right_terminal_contact"]
    return halves(*read_set(data_home, "gait_foot_imu", "walk2x20m", slice(6, 12), types))


# A narrow network and few passes: what is tested is that all of it works on such data.
METHODS = [
    pytest.param({"method": "matched_filter"}, id="matched_filter"),
    pytest.param({"method": "lstm", "max_epochs": 6}, id="lstm", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("options", METHODS)
def test_heart_beats(heart, options):
    (recording, events), test = heart
    assert (recording.sampling_rate_hz, recording.n_channels, len(events)) == (360, 2, 1145)
    found = report((recording, events), test, tolerance_s=0.020, refractory_s=0.25, **options)
    beats = found.per_type().loc["normal_beat"]
    # The filter takes every premature beat for a normal one; only rhythm tells them apart.
    assert beats["n_reference"] > 1000 and beats["f1"] >= (0.995 if options["method"] == "lstm" else 0.985)
    assert beats["rmse_ms"] < 1000 / 360  # better than a sample
    assert found.refractory_violations() == {"reference": 0, "estimated": 0}


@pytest.mark.slow
def test_three_labelled_beats_are_enough(heart):
    """Called normal or not: every beat of the second half is found from three labels and 15 minutes without."""
    (recording, events), (unseen, reference) = heart
    (train, test) = (table[table.type == table.names.index("normal_beat")] for table in (events, reference))
    train, test = (replace(table, type=0 * table.type, names=("normal_beat",)) for table in (train, test))
    options = {"tolerance_s": 0.020, "refractory_s": 0.25, "labels_per_type": 3}
    found = report((recording, train), (unseen, test), max_epochs=4, **options)
    assert found.n_reference == 1106 and found.f1 >= 0.99  # the early beats, called normal here, are all that is wrong


@pytest.mark.parametrize("options", METHODS)
def test_steps(foot, options):
    (recording, events), test = foot
    assert recording.channels[0] == "right_acc_x" and (recording.sampling_rate_hz, recording.n_channels) == (204.8, 6)
    found = report((recording, events), test, tolerance_s=0.050, refractory_s=0.5, **options)
    steps = found.per_type()
    assert steps["n_reference"].min() >= 13
    assert steps.loc["right_initial_contact", "f1"] >= 0.95
    assert steps.loc["right_terminal_contact", "f1"] >= 0.85
    assert found.refractory_violations()["estimated"] == 0


def test_one_blow_of_a_hammer_is_found_by_the_filter_that_it_made(data_home):
    recording, events = read_set(data_home, "hammer_brb", "impact")
    assert (recording.sampling_rate_hz, recording.n_channels, len(events)) == (12800, 3, 1)
    detector = evlib.fit(
        [(recording, events)], "matched_filter", refractory_s=10.0, template_s=(0.001, 0.01), progress=False
    )
    found = evlib.detect(detector, recording)
    assert len(found) == 1
    assert abs(found.onset_s[0] - events.onset_s[0]) < 0.0005


def test_strikes_of_bells_break_a_rule_of_two_seconds(data_home):
    """Real bells return sooner than they should: the period belongs to the data, and what breaks it is counted."""
    touches = {
        path.name: evlib.read_events(path) for path in sorted((data_home / "bells_strike_times").glob("*_events.tsv"))
    }
    assert len(touches) == 21 and sum(map(len, touches.values())) == 73_128
    share = {}
    for name, strikes in touches.items():
        assert len(strikes.names) == 12
        pairs, gap_s = find_violations(strikes, 2.0)
        # The same count, from the times of each bell alone.
        times = pd.Series(strikes.onset_s).groupby(strikes.type)
        assert len(pairs) == (times.diff() < 2.0 - 1e-9).sum()
        assert (gap_s < 2.0).all() and (gap_s > 0).all()
        share[name] = len(pairs) / (len(strikes) - 12)
        # The best choice that keeps the rule loses at least one strike of every run of violations, and breaks nothing.
        period = round(2.0 * strikes.sampling_rate_hz)
        keep = decode_refractory(strikes.time_samples, strikes.type, np.ones(len(strikes)), period)
        assert len(find_violations(strikes[keep], 2.0)[0]) == 0
        assert np.sum(~keep) <= len(pairs)
    assert 0.10 < max(share.values()) < 0.11
    assert sum(value == 0 for value in share.values()) > 10


@pytest.mark.slow
def test_bells_learned_in_rounds_are_found_alone(data_home):
    """Four bells strike in the same order for half a minute and ring into each other: each is known when it strikes
    alone.

    Means of snippets hold the bells before and after too, and find half of these strikes.
    """
    rate, noise, rng = 2000.0, 0.002, np.random.default_rng(0)
    table = pd.read_csv(data_home / "bells_birmingham_singles" / "events.tsv", sep="\t")
    bells = sorted(table.recording.unique())[:4]
    strokes = tuple(f"{bell}/{stroke}" for bell in bells for stroke in (1, 2))
    sounds, alone = [], []
    with np.load(data_home / "bells_birmingham_singles" / "bells_birmingham_singles.npz") as file:
        for bell in bells:
            quiet = file[f"lo__{bell}"][:, 0] * file[f"scale__{bell}"]
            starts = (table.onset[table.recording == bell].to_numpy() * rate).astype(int)
            sounds += [quiet[starts[0] - 20 : starts[1] - 20], quiet[starts[1] - 20 :]]
            noisy = (quiet + noise * rng.standard_normal(len(quiet)))[:, None]
            names = [f"{bell}/1", f"{bell}/2"]
            alone.append((evlib.Recording(noisy, rate), evlib.Events.from_seconds(starts / rate, names, rate, strokes)))
    start = np.cumsum(0.2 * rate + 24 * rng.standard_normal(4 * 24)).astype(int)
    kind = [2 * (k % 4) + (k // 4) % 2 for k in range(len(start))]  # handstrokes, backstrokes, handstrokes, ...
    signal = noise * rng.standard_normal(start[-1] + 20_000)
    for first, k in zip(start - 20, kind, strict=True):
        signal[first : first + len(sounds[k])] += np.exp(0.2 * rng.standard_normal()) * sounds[k]
    rounds = evlib.Events.from_seconds(start / rate, [strokes[k] for k in kind], rate, strokes)
    options = {"template_s": (0.005, 0.8), "refractory_s": 0.5, "tolerance_s": 0.01, "progress": False}
    detector = evlib.fit(
        [(evlib.Recording(signal[: start[-1] + 2000, None], rate), rounds)], "matched_filter", **options
    )
    reports = [
        evlib.compare(events, evlib.detect(detector, recording), tolerance_s=0.01) for recording, events in alone
    ]
    assert sum(report.tp for report in reports) == 8
    assert sum(report.n_estimated for report in reports) <= 9
