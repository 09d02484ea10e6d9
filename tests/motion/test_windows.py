"""Windows cut from sessions, and simulated people."""

import numpy as np
import pytest

from evlib import Recording
from evlib.motion.sessions import Session
from evlib.motion.windows import ACTIVITIES, GRAVITY, cut_sessions, make_motion
from evlib.signals.errors import DataError, OptionError


def test_windows_are_cut_from_sessions_whole():
    signals = [np.arange(n)[:, None] + np.array([0.0, 1000.0]) for n in (250, 90, 130)]
    some = [
        Session(f"s{k}", Recording(x, 50.0, ("acc_x", "ecg")), ("walking",), f"p{k}") for k, x in enumerate(signals)
    ]
    some[2] = Session("s2", Recording(signals[2][:, :1], 50.0, ("acc_x",)), ("sitting",), "p2")
    cut = cut_sessions("set", some, window_s=2.0, stride_s=1.0, descriptions={"acc_x": "up and down"})
    assert cut.channels == ("acc_x",) and cut.descriptions == ("up and down",), "what all sessions have"
    assert cut.x[:, 0, 0].tolist() == [0, 50, 100, 150, 0] and cut.sources.tolist() == ["s0"] * 4 + ["s2"]
    assert cut.labels.tolist() == ["walking"] * 4 + ["sitting"] and cut.groups.tolist() == ["p0"] * 4 + ["p2"]
    with pytest.raises(DataError, match="as long as a window of 9 s"):
        cut_sessions("set", some, window_s=9.0)
    for options in ({"window_s": 0}, {"window_s": 2.0, "stride_s": -1.0}, {"window_s": np.nan}):
        with pytest.raises(OptionError, match="must be a positive number"):
            cut_sessions("set", some, **options)
    with pytest.raises(DataError, match="two sessions are called s0"):
        cut_sessions("set", [some[0], some[0]], 2.0)
    with pytest.raises(DataError, match="1 sessions have no label while others have, as x"):
        cut_sessions("set", [*some, Session("x", some[0].recording)], 2.0)
    with pytest.raises(DataError, match="sessions of one rate"):
        cut_sessions("set", [*some, Session("x", Recording(signals[0], 20.0, ("acc_x", "ecg")), ("walking",))], 2.0)


def test_simulated_people_keep_to_physics():
    some = make_motion(n_people=3, windows_per_activity=4, places=("waist", "ankle"), magnetometer=True, seed=1)
    assert some.x.shape == (3 * 4 * len(ACTIVITIES), 128, 18) and len(set(some.groups)) == 3
    still = some[np.isin(some.labels, ["sitting", "standing", "lying"])]
    for start in (0, 9):
        np.testing.assert_allclose(np.linalg.norm(still.x[..., start : start + 3].mean(1), axis=1), GRAVITY, rtol=0.03)
    upright = {name: some.x[some.labels == name, :, 0].mean() for name in ("standing", "lying")}
    assert upright["standing"] > 9 and abs(upright["lying"]) < 3
    again = make_motion(n_people=3, windows_per_activity=4, places=("waist", "ankle"), magnetometer=True, seed=1)
    other = make_motion(n_people=3, windows_per_activity=4, places=("waist", "ankle"), magnetometer=True, seed=2)
    assert np.array_equal(some.x, again.x) and not np.array_equal(some.x, other.x)
    for wrong in ({"activities": ("yodelling",)}, {"places": ()}, {"n_people": 0}):
        with pytest.raises(OptionError):
            make_motion(**wrong)
