"""Windows of several data sets: their rows and channels, runs in one recording, sensors of one place."""

import numpy as np
import pytest

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.training.windows import Windows, split_labels, triads

SIX = tuple(f"waist_{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz")


def windows(name="a", n=20, channels=SIX, time=100, seed=0, **fields):
    return Windows(name, np.random.default_rng(seed).normal(size=(n, time, len(channels))), 50.0, channels, **fields)


def test_windows_know_their_rows_and_channels():
    some = windows(labels=np.repeat(["walk", "sit"], 10), groups=np.arange(20) % 3)
    sit = some[some.labels == "sit"]
    assert (
        some.fingerprint()
        == windows(labels=np.repeat(["walk", "sit"], 10).astype(object), groups=np.arange(20) % 3).fingerprint()
    )
    others = (sit, windows(seed=1), windows(labels=["walk"] * 20), some.with_channels(SIX[::-1]))
    assert len({some.fingerprint(), *(one.fingerprint() for one in others)}) == 5, (
        "another for other windows, labels or channels"
    )
    assert len(sit) == 10 and np.array_equal(sit.x, some.x[10:]) and np.array_equal(sit.sources, np.arange(10, 20))
    rest, out = split_labels(some, ["sit"])
    assert set(rest.labels) == {"walk"} and set(out.labels) == {"sit"}
    picked = some.with_channels(("waist_gyro_x", "waist_acc_z"))
    assert np.array_equal(picked.x, some.x[..., [3, 2]]) and picked.descriptions == ("waist gyro x", "waist acc z")
    with pytest.raises(OptionError, match="unknown channel 'ecg' in a"):
        some.with_channels(("ecg",))
    with pytest.raises(OptionError, match="got the text 'sit'"):
        split_labels(some, "sit")
    with pytest.raises(OptionError, match="unknown label 'swim' in a; known: sit, walk"):
        split_labels(some, ["swim"])


@pytest.mark.parametrize("sessions", [False, True])
def test_runs_end_with_a_person_or_a_session(sessions):
    rng = np.random.default_rng(0)
    fields = {"groups": np.sort(rng.integers(0, 4, 20)).astype(str)} | (
        {"sources": rng.choice(["a", "b"], 20)} if sessions else {}
    )
    some = windows(**fields)
    for row, (first, last) in enumerate(zip(*some.runs(), strict=True)):
        same = [all(values[k] == values[row] for values in fields.values()) for k in range(20)]
        assert first <= row <= last and all(same[first : last + 1])
        assert (first == 0 or not same[first - 1]) and (last == 19 or not same[last + 1])
    assert windows().runs()[1].tolist() == [19] * 20, "without persons and sessions all is one run"
    assert windows()[[0, 1, 5, 6, 7]].runs()[0].tolist() == [0, 0, 2, 2, 2], "what lay between was taken out"
    assert windows(sources=[f"s{k}" for k in range(20)]).runs()[0].tolist() == list(range(20)), "sessions of one window"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": np.zeros((3, 100))}, ShapeError, "must be"),
        ({"x": np.full((3, 100, 6), np.nan)}, DataError, "NaN or infinity"),
        ({"channels": SIX[:5]}, ShapeError, "6 channels need a name"),
        ({"channels": (SIX[0],) * 6}, ShapeError, "a name of their own"),
        ({"descriptions": ("one",)}, ShapeError, "a description for each"),
        ({"labels": ("walk",)}, ShapeError, "one of labels for each of 3"),
        ({"sampling_rate_hz": 0}, ValueError, "rate"),
        ({"x": np.ma.masked_equal(np.zeros((3, 100, 6)), 0)}, DataError, "masked"),
        ({"x": np.zeros((3, 100, 6), complex)}, DataError, "real numbers"),
        ({"descriptions": "abcdef"}, OptionError, "must be a list, got the text"),
    ],
)
def test_windows_that_do_not_fit_are_refused(change, error, words):
    fields = {"name": "a", "x": np.zeros((3, 100, 6)), "sampling_rate_hz": 50.0, "channels": SIX}
    with pytest.raises(error, match=words):
        Windows(**fields | change)


def test_triads_share_a_location():
    found, places = triads((*SIX, "wrist_acc_x", "wrist_acc_z", "ecg", "total_acc_x", "total_acc_y", "total_acc_z"))
    assert found == ((0, 1, 2), (3, 4, 5), (9, 10, 11)) and places == ("waist", "waist", "")
    both = [f"acc_{place}_{axis}" for place in ("wrist", "ankle") for axis in "xyz"]
    assert triads(both)[1] == ("wrist", "ankle"), "also where the sensor comes first"
    assert triads(("total_acc_x", "total_acc_y", "total_acc_z", "body_gyro_x", "body_gyro_y", "body_gyro_z"))[1] == (
        "",
        "",
    )
