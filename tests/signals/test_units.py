"""Units: what can be converted is, and nothing else."""

import numpy as np
import pytest

from evlib.signals.errors import OptionError, ShapeError, UnitError
from evlib.signals.recording import Recording
from evlib.signals.units import QUANTITIES, conversion_factor


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_factors_are_those_of_the_definition_there_and_back(quantity):
    for unit in quantity:
        for other in quantity:
            factor = conversion_factor(unit, other)
            assert factor == pytest.approx(quantity[unit] / quantity[other])
            assert factor * conversion_factor(other, unit) == pytest.approx(1)


@pytest.mark.parametrize(
    ("unit", "wanted", "factor"),
    [
        ("g", "m/s²", 9.80665),
        ("dps", "rad/s", np.pi / 180),
        ("µV", "mV", 1e-3),
        ("mg", "m·s⁻²", 9.80665e-3),
        ("mm/s^2", "m / s^2", 1e-3),
        ("m.s-2", "m/sec²", 1),
        ("deg s-1", "radians/s", np.pi / 180),
        ("°·s⁻¹", "degrees/sec", 1),
        ("rad s^-1", "rpm", 30 / np.pi),
        ("g_n", "ug", 1e6),
        ("ms", "us", 1e3),
        ("", "m/s2", 1),
        ("counts", "counts", 1),
    ],
)
def test_spellings(unit, wanted, factor):
    assert conversion_factor(unit, wanted) == pytest.approx(factor)


@pytest.mark.parametrize(("unit", "wanted"), [("g", "rad/s"), ("counts", "V"), ("G", "g"), ("MG", "mg")])
def test_other_quantities_are_refused(unit, wanted):
    with pytest.raises(UnitError, match="cannot convert"):
        conversion_factor(unit, wanted)


@pytest.fixture
def recording(rng):
    return Recording(rng.normal(size=(50, 3)), 100, ("x", "y", "z"), ("g", "g", "deg/s"))


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (0, 1, 2)])
def test_channels_are_found_by_name_and_units_converted(recording, order):
    names = tuple(recording.channels[k] for k in order)
    wanted = tuple({"g": "m/s2", "deg/s": "rad/s"}[recording.units[k]] for k in order)
    found = recording.like(names, wanted)
    assert found.channels == names and found.units == wanted
    factors = [{"g": 9.80665, "deg/s": np.pi / 180}[recording.units[k]] for k in order]
    assert np.allclose(found.read(10, 20), recording.read(10, 20)[:, order] * factors, rtol=1e-5)
    assert np.allclose(found.between(0.1, 0.2).read(), found.read(10, 20))


@pytest.mark.parametrize("spell", [str.upper, lambda name: f" {name}_", lambda name: f"{name}\u200b"])
def test_case_blanks_and_underscores_of_names_do_not_matter(recording, spell):
    names = tuple(spell(name) for name in ("z", "x", "y"))
    found = recording.like(names)
    assert found.channels == names and np.array_equal(found.read(), recording.read()[:, [2, 0, 1]])
    with pytest.raises(ShapeError, match="other names"):
        recording.like(("z-", "x-", "y-"))


def test_two_names_of_one_spelling_are_not_guessed(rng):
    with pytest.raises(ShapeError, match="other names"):
        Recording(rng.normal(size=(50, 2)), 100, ("x", "X")).like(("x ", "X "))


def test_channels_without_names_are_taken_in_their_order_and_said(recording, recwarn):
    assert recording.like(recording.channels).channels == ("x", "y", "z") and not recwarn.list
    with pytest.warns(UserWarning, match="'x' is read as 'ch1'"):
        recording.like(("ch1", "ch2", "ch3"))


def test_of_more_channels_those_that_are_wanted_are_taken(recording):
    assert np.array_equal(recording.like(("z",)).read(), recording.read()[:, 2:])
    assert recording.like(recording.channels, recording.units) is recording


def test_other_names_count_by_position_only_if_that_is_said_or_nobody_named_them(recording):
    with pytest.raises(ShapeError, match='is for 3 channels, the recording has x, y, z and not b .*"position"'):
        recording.like(("x", "b", "y"))
    with pytest.warns(UserWarning, match="'x' is read as 'a'"):
        assert recording.like(("a", "b", "c"), match_channels="position").channels == ("a", "b", "c")
    assert np.array_equal(recording.like(("ch1", "ch2", "ch3")).read(), recording.read())
    with pytest.raises(ShapeError, match="is for 2 channels, the recording has 3"):
        recording.like(("ch1", "ch2"))
    with pytest.raises(UnitError, match="channel x: .* is in 'V'"):
        recording.like(recording.channels, ("V", "g", "deg/s"))
    with pytest.raises(OptionError, match="match_channels"):
        recording.like(recording.channels, match_channels="order")


def test_select(recording):
    chosen = recording.select(["z", 0])
    assert chosen.channels == ("z", "x") and chosen.units == ("deg/s", "g")
    assert np.array_equal(chosen.read(), recording.read()[:, [2, 0]])
    for channels, words in (
        (["w"], "unknown channel 'w'"),
        ([], "at least one"),
        (["x", 0], "different"),
        ([5], "3 channels"),
    ):
        with pytest.raises(OptionError, match=words):
            recording.select(channels)
